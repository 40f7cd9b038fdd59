"""Where trials take place, seen from above: positions, goals, and a picture to draw them on.

Shape suffixes: N rows, K goals, H and W picture height and width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from envs.core.vector import Observation, TrialVectorEnv
from envs.darkroom import DarkroomVectorEnv
from envs.houses.env import HousesVectorEnv
from envs.houses.rendering.renderer import BatchRenderer
from envs.houses.scene import Scene
from envs.houses.show.film import Frame
from envs.houses.show.topdown import Map, draw_map, mark_objects, plot_map

Positions = NDArray[np.float64]
"""(..., 2): x and y in the units of the ground."""

_GOAL, _LINE = (250, 214, 165), (205, 211, 219)
SIDE = 640
"""Pixels along the longer side of a picture, unless something else is asked for."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A ground from above, whose first row is the far side, of greatest y."""

    plan: Map
    """Its own origin is the picture's lower left corner, and its metre the ground's unit."""
    left: float
    bottom: float

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top in the units of the ground."""
        height, width = (n / self.plan.pixels_per_metre for n in self.plan.image.shape[:2])
        return self.left, self.left + width, self.bottom, self.bottom + height


class Ground(Protocol):
    """What one trial's positions are drawn on."""

    def positions(self, env: TrialVectorEnv, observation: Observation) -> Positions:
        """Return where the agents of all rows are, (N, 2)."""
        ...

    def poses(self, env: TrialVectorEnv, observation: Observation) -> Positions:
        """Return x, y, heading and pitch of all rows, (N, 4); NaN for what agents lack."""
        ...

    def goals(self, goal: int) -> Positions:
        """Return the places that satisfy a record's `goal`, (K, 2)."""
        ...

    def picture(self, goal: int | None = None, *, side: int = SIDE) -> Picture:
        """Return a picture; with the places that satisfy a goal marked, if it is given."""
        ...

    def views(self, env: TrialVectorEnv, pose_T4: Positions, side: int) -> Iterator[Frame] | None:
        """Return what agents see that stand so, in pictures of a side; None if they see nothing."""
        ...

    def draw(self, axes: Axes) -> None:
        """Draw the ground itself, and set the limits of the axes."""
        ...


@dataclass(frozen=True, slots=True)
class Cells:
    """Darkroom: cells of a square, which the agent knows by their numbers."""

    size: int

    def positions(self, env: TrialVectorEnv, observation: Observation) -> Positions:
        """Return the cell of each row; see `Ground`."""
        scaled_N2 = observation["position"].astype(np.float64)
        return np.rint((scaled_N2 + 1.0) * 0.5 * (self.size - 1))

    def poses(self, env: TrialVectorEnv, observation: Observation) -> Positions:
        """Return the cell of each row, with NaN for heading and pitch; see `Ground`."""
        position_N2 = self.positions(env, observation)
        return np.concatenate([position_N2, np.full_like(position_N2, np.nan)], axis=1)

    def goals(self, goal: int) -> Positions:
        """Return the hidden cell; see `Ground`."""
        return np.array([divmod(goal, self.size)], np.float64)

    def draw(self, axes: Axes) -> None:
        """Draw the lines between cells; see `Ground`."""
        edges = np.arange(self.size + 1) - 0.5
        axes.hlines(edges, edges[0], edges[-1], color="#d5dae1", lw=0.5, zorder=0)
        axes.vlines(edges, edges[0], edges[-1], color="#d5dae1", lw=0.5, zorder=0)
        axes.set(xlim=(-0.6, self.size - 0.4), ylim=(-0.6, self.size - 0.4), aspect="equal")
        axes.set_axis_off()

    def picture(self, goal: int | None = None, *, side: int = SIDE) -> Picture:
        """Paint the lines between cells, and the hidden cell; see `Ground`."""
        scale = max(side // self.size, 2)
        side = scale * self.size
        image_HW3 = np.full((side, side, 3), 255, np.uint8)
        if goal is not None:
            left, low = scale * self.goals(goal)[0].astype(int)
            image_HW3[side - low - scale : side - low, left : left + scale] = _GOAL
        lines = np.arange(0, side, scale)
        image_HW3[lines] = image_HW3[:, lines] = _LINE
        image_HW3[-1] = image_HW3[:, -1] = _LINE
        return Picture(Map(image_HW3, float(scale)), -0.5, -0.5)

    def views(self, env: TrialVectorEnv, pose_T4: Positions, side: int) -> Iterator[Frame] | None:
        """Return None: it is dark; see `Ground`."""
        return None


@dataclass(frozen=True, slots=True)
class Floor:
    """A furnished house, in metres."""

    scene: Scene

    def positions(self, env: TrialVectorEnv, observation: Observation) -> Positions:
        """Return where the agents stand; see `Ground`."""
        assert isinstance(env, HousesVectorEnv)
        return env.simulator.pose_N4[:, :2].copy()

    def poses(self, env: TrialVectorEnv, observation: Observation) -> Positions:
        """Return how the agents stand; see `Ground`."""
        assert isinstance(env, HousesVectorEnv)
        return env.simulator.pose_N4.copy()

    def goals(self, goal: int) -> Positions:
        """Return the objects of the category; see `Ground`."""
        return np.array([(o.x, o.y) for o in self.scene.objects if o.category == goal])

    def draw(self, axes: Axes) -> None:
        """Draw rooms and furniture, pale, as more is drawn over them; see `Ground`."""
        plot_map(axes, self.scene, pixels_per_metre=32.0)
        axes.images[-1].set_alpha(0.5)
        axes.set_axis_off()

    def picture(self, goal: int | None = None, *, side: int = SIDE) -> Picture:
        """Paint rooms and furniture, and ring the objects; see `Ground`."""
        plan = draw_map(self.scene, side / max(self.scene.house.extent))
        return Picture(mark_objects(plan, self.scene, names=goal is None, goal=goal), 0.0, 0.0)

    def views(self, env: TrialVectorEnv, pose_T4: Positions, side: int) -> Iterator[Frame] | None:
        """Render what the camera saw, in finer pictures than the agent's; see `Ground`."""
        assert isinstance(env, HousesVectorEnv)
        return _render(self.scene, pose_T4, side, math.radians(env.task.hfov_deg))


def _render(scene: Scene, pose_T4: Positions, side: int, hfov: float) -> Iterator[Frame]:
    renderer = BatchRenderer(1, width=side, height=side, hfov=hfov, sensors=("rgb",), antialias=2)
    try:
        renderer.set_scene(0, scene)
        for pose in pose_T4:
            yield renderer.render(*pose[:, None])["rgb"][0].copy()
    finally:
        renderer.close()


def has_ground(env: TrialVectorEnv) -> bool:
    """Say whether an environment shows where its agents are."""
    return isinstance(env, DarkroomVectorEnv | HousesVectorEnv)


def ground_of(env: TrialVectorEnv, row: int = 0) -> Ground:
    """Return the ground of the trial that a row is in.

    Raises:
        ValueError: If the environment shows no positions.
    """
    if isinstance(env, DarkroomVectorEnv):
        return Cells(env.size)
    if isinstance(env, HousesVectorEnv):
        return Floor(env.simulator.place(row).scene)
    raise ValueError(
        f"ground_of: the environment must be Darkroom or Houses, got {type(env).__name__}. "
        "Others have no map."
    )
