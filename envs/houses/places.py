"""One scene as the rules of the task see it: free space, goal instances, distances to them.

Everything is computed when first asked for. Distance fields of all places share one cache, which
forgets those of a place that is gone. Nothing here moves an agent or draws.

Shape suffixes: I goal instances, V viewpoints, Y and X grid rows and columns.
"""

from __future__ import annotations

import math
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from envs.houses.fields import FieldCache
from envs.houses.follower import Follower
from envs.houses.geodesic import distance_field, sample
from envs.houses.navigation import AGENT_RADIUS, FloatGrid, NavGrid, slack_at
from envs.houses.scene import GOAL_CATEGORIES, Scene
from envs.houses.sight import Sight, pack
from envs.houses.viewpoints import MAX_DISTANCE, MIN_PIXELS, SQUARE_PIXELS, viewpoints
from envs.objectnav import Goal
from envs.objectnav_config import GoalInstances, ObjectNavConfig

PlaceKey = tuple[int, str, int]
"""House seed, house size, arrangement: what a scene is a function of."""


def place_key(scene: Scene) -> PlaceKey:
    """Return what tells a scene from others of its dataset."""
    return scene.house.seed, scene.house.size, scene.arrangement


def needed_pixels(config: ObjectNavConfig) -> float:
    """Return what viewpoints must show, in the units of `envs.houses.viewpoints`.

    Those are half as many again as success needs, in a view of 90 degrees.
    """
    focal = 0.5 * config.success_resolution / math.tan(0.5 * math.radians(config.hfov_deg))
    return 1.5 * config.success_pixels * round((0.5 * SQUARE_PIXELS / focal) ** 2, 9)


class Place:
    """A scene with its free space. Answers the questions of `envs.objectnav.TaskScene`."""

    num_categories = len(GOAL_CATEGORIES)

    def __init__(
        self, scene: Scene, grid: NavGrid, config: ObjectNavConfig, fields: FieldCache
    ) -> None:
        """Look at a scene through the grid of its house."""
        self.scene = scene
        self.grid = grid
        self.goal_instances: dict[int, tuple[int, ...]] = {}
        self._key = place_key(scene)
        self._config = config
        self._fields = fields
        self._sight: Sight | None = None
        self._follower: Follower | None = None
        self._object = {o.instance: o for o in scene.objects}
        # Arrangements hold only objects that the standard agent can see; others must look.
        proven = (
            config.agent_radius <= AGENT_RADIUS
            and config.success_distance >= MAX_DISTANCE
            and needed_pixels(config) <= MIN_PIXELS
        )
        for o in scene.objects:
            if proven or len(self.viewpoints(o.instance)):
                known = self.goal_instances.get(o.category, ())
                self.goal_instances[o.category] = (*known, o.instance)
        finalize(self, fields.drop, self._key).atexit = False

    def expert_action(self, goal: Goal, pose: tuple[float, float, float, float]) -> int:
        """Return what the expert would do at a pose (x, y, heading, pitch)."""
        if self._follower is None:
            self._follower = Follower(self.scene, self.grid, self._config, self._packed())
        targets = self._follower.targets(goal.instances)
        return self._follower.action(self.field(goal), targets, pose)

    def likely_goals(self) -> list[Goal]:
        """Return the goals that episodes here will most likely have."""
        if self._config.goal_instances is GoalInstances.ALL:
            return [Goal(c, instances) for c, instances in self.goal_instances.items()]
        return [Goal(c, (i,)) for c, several in self.goal_instances.items() for i in several]

    def viewpoints(self, instance: int) -> NDArray[np.float32]:
        """Return where the agent may stand to see an instance, (V, 2)."""
        return viewpoints(
            self.scene,
            self.grid,
            self._object[instance],
            self._config.success_distance,
            min_pixels=needed_pixels(self._config),
            sight=self._packed(),
        )

    def instance_xy(self, goal: Goal) -> NDArray[np.float64]:
        """Return where the goal's instances are, (I, 2)."""
        return np.array([(self._object[i].x, self._object[i].y) for i in goal.instances])

    def field(self, goal: Goal) -> FloatGrid:
        """Return each node's distance to the nearest viewpoint of any of the goal's instances."""
        return self._fields.get((self._key, goal), lambda: self._compute_field(goal))

    def distance(self, position: tuple[float, float, float], goal: Goal) -> float:
        """Return the walking distance from a position to the goal's nearest viewpoint."""
        return sample(self.field(goal), self.grid.cell, position[0], position[1])

    def random_position(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Draw a position uniformly over free space, by rejection from the house's rectangle."""
        width, depth = self.scene.house.extent
        while True:
            x, y = rng.random() * width, rng.random() * depth
            if slack_at(self.grid.slack_YX, self.grid.cell, x, y) >= 0.0:
                return x, y, 0.0

    def _packed(self) -> Sight:
        if self._sight is None:
            self._sight = pack(self.scene)
        return self._sight

    def _compute_field(self, goal: Goal) -> FloatGrid:
        points = [self.viewpoints(i) for i in goal.instances]
        return distance_field(self.grid, np.concatenate(points))
