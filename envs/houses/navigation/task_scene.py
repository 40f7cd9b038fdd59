"""A scene as the rules of the task see it: free space, goal instances, distances to them.

Everything is computed when it is first asked for. Distance fields of all scenes share one cache
within a byte bound, which forgets those of a scene that is gone; a thread may compute them ahead of
need. A field is a pure function of its key, so what is kept and who computed it changes speed only.
Nothing here moves an agent or draws.

Shapes: I goal instances, V viewpoints, Y and X grid rows and columns.
"""

from __future__ import annotations

import math
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from weakref import finalize, ref

import numpy as np
from numpy.typing import NDArray

from envs.houses.navigation.expert import Expert
from envs.houses.navigation.geodesic import distance_field, sample
from envs.houses.navigation.grid import AGENT_RADIUS, FloatGrid, NavGrid, slack_at
from envs.houses.navigation.visibility import (
    MAX_DISTANCE,
    MIN_PIXELS,
    SQUARE_PIXELS,
    PackedScene,
    pack_scene,
    viewpoints,
)
from envs.houses.scene import Scene
from envs.objectnav.config import GoalInstances, ObjectNavConfig
from envs.objectnav.goals import GOAL_CATEGORIES
from envs.objectnav.rules import Goal

SceneKey = tuple[int, str, int]
"""House seed, house size, arrangement: what a scene is a function of."""
FieldKey = tuple[SceneKey, Goal]
"""The scene and what is looked for in it."""


class FieldCache:
    """Distance fields, the least recently used of which make room for new ones."""

    def __init__(self, max_bytes: int) -> None:
        """Hold at most `max_bytes`, and always the newest field."""
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._fields: OrderedDict[FieldKey, FloatGrid] = OrderedDict()
        # Reentrant: the garbage collector may run while the lock is held, and drop a dead scene's
        # fields from within.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Count the fields."""
        return len(self._fields)

    def get(self, key: FieldKey, compute: Callable[[], FloatGrid]) -> FloatGrid:
        """Return the field of a key, computing it if it is not here."""
        with self._lock:
            field = self._fields.get(key)
            if field is not None:
                self._fields.move_to_end(key)
                return field
        # Without the lock, so that nobody waits for it. Two threads that compute the same field get
        # the same numbers.
        field = compute()
        with self._lock:
            if key not in self._fields:
                self._fields[key] = field
                self.num_bytes += field.nbytes
            while self.num_bytes > self.max_bytes and len(self._fields) > 1:
                self.num_bytes -= self._fields.popitem(last=False)[1].nbytes
        return field

    def drop(self, scene: SceneKey) -> None:
        """Forget the fields of a scene."""
        with self._lock:
            for key in [k for k in self._fields if k[0] == scene]:
                self.num_bytes -= self._fields.pop(key).nbytes

    def has_room(self) -> bool:
        """Tell whether one more field would most likely drive out no other."""
        with self._lock:
            mean = self.num_bytes / max(len(self._fields), 1)
            return self.num_bytes + 2.0 * mean <= self.max_bytes


class FieldPrefetcher:
    """Computes fields on a thread of its own while others draw."""

    def __init__(self, cache: FieldCache) -> None:
        """Start the thread. It fills the cache as long as there is room."""
        self._cache = cache
        self._wanted: queue.SimpleQueue[tuple[ref[HouseTaskScene], Goal] | None] = (
            queue.SimpleQueue()
        )
        # A daemon, so that a program which forgets to close an environment ends at once.
        threading.Thread(target=self._work, name="fields", daemon=True).start()

    def want(self, scene: HouseTaskScene, goals: list[Goal]) -> None:
        """Ask for fields that are likely to be needed, unless the scene is gone by then."""
        for goal in goals:
            self._wanted.put((ref(scene), goal))

    def close(self) -> None:
        """End the thread once it has answered what was asked before."""
        self._wanted.put(None)

    def _work(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            scene = wanted[0]()
            if scene is not None and self._cache.has_room():
                scene.field(wanted[1])
            del scene  # which must not live on while the thread waits


def scene_key(scene: Scene) -> SceneKey:
    """Return what tells a scene from others of its dataset."""
    return scene.house.seed, scene.house.size, scene.arrangement


def needed_pixels(config: ObjectNavConfig) -> float:
    """Return what viewpoints must show, in the units of `envs.houses.navigation.visibility`.

    Those are half as many again as success needs, in a view of 90 degrees.
    """
    focal = 0.5 * config.success_resolution / math.tan(0.5 * math.radians(config.hfov_deg))
    # Rounded, so that the standard camera needs MIN_PIXELS exactly, with which it is compared.
    return 1.5 * config.success_pixels * round((0.5 * SQUARE_PIXELS / focal) ** 2, 9)


class HouseTaskScene:
    """A scene with its free space. Answers the questions of `envs.objectnav.rules.TaskScene`."""

    num_categories = len(GOAL_CATEGORIES)

    def __init__(
        self, scene: Scene, grid: NavGrid, config: ObjectNavConfig, fields: FieldCache
    ) -> None:
        """Look at a scene through the grid of its house."""
        self.scene = scene
        self.grid = grid
        self.goal_instances: dict[int, tuple[int, ...]] = {}
        self._key = scene_key(scene)
        self._config = config
        self._fields = fields
        self._packed_scene: PackedScene | None = None
        self._expert: Expert | None = None
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
        # At exit the cache ends as well, so there is nothing to drop.
        finalize(self, fields.drop, self._key).atexit = False

    def expert_action(self, goal: Goal, pose: tuple[float, float, float, float]) -> int:
        """Return what the expert would do at a pose (x, y, heading, pitch)."""
        if self._expert is None:
            self._expert = Expert(self.scene, self.grid, self._config, self._packed())
        targets = self._expert.targets(goal.instances)
        return self._expert.action(self.field(goal), targets, pose)

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
            packed=self._packed(),
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

    def _packed(self) -> PackedScene:
        if self._packed_scene is None:
            self._packed_scene = pack_scene(self.scene)
        return self._packed_scene

    def _compute_field(self, goal: Goal) -> FloatGrid:
        points = [self.viewpoints(i) for i in goal.instances]
        return distance_field(self.grid, np.concatenate(points))
