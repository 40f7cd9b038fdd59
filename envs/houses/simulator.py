"""N agents, each in a scene of its own, moved together: the embedded simulator's state and step.

Poses and what the step needs of each row (free space, distances to its goal) lie in preallocated
slabs, so that a step of all rows is one compiled call. Rows are independent: what happens in one
depends on neither N nor threads. Goals, rewards and episodes are decided elsewhere.

Shapes: N rows, K some of the rows, C grid cells, flat and padded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from envs.houses.navigation.expert import TaskConstants, walk_rows
from envs.houses.navigation.geodesic import sample
from envs.houses.navigation.grid import AGENT_RADIUS, CELL, NavGrid, build_grid
from envs.houses.navigation.movement import Moves, Slabs, advance
from envs.houses.navigation.task_scene import (
    FieldCache,
    FieldPrefetcher,
    HouseTaskScene,
    SceneKey,
    scene_key,
)
from envs.houses.rendering.renderer import BatchRenderer
from envs.houses.scene import Scene
from envs.objectnav.config import MAX_PLACES, ObjectNavConfig
from envs.objectnav.rules import EpisodePlan, Goal, Pose, near_instances, succeeded

FIELD_BYTES: Final = 256 << 20
"""Default bound of the distance fields that are kept."""


def on_device(num_rows: int, **settings: Any) -> Any:
    """Return a renderer whose images stay on the current CUDA device.

    Raises:
        ImportError: numba-cuda is not installed.
        NoDeviceError: there is no such device.
    """
    from envs.houses.rendering.cuda import CudaBatchRenderer  # numba-cuda is optional

    return CudaBatchRenderer(num_rows, **settings)


class HouseSimulator:
    """Moves and draws N rows. Methods that name rows change only those."""

    def __init__(
        self,
        num_rows: int,
        *,
        config: ObjectNavConfig,
        shape: tuple[int, int],
        sensors: Sequence[str],
        threads: int = 1,
        antialias: int = 1,
        field_bytes: int = FIELD_BYTES,
        renderer: str = "cpu",
    ) -> None:
        """Allocate rows that wait for scenes.

        Args:
            num_rows: N.
            config: the task; its angles, lengths and success test are used.
            shape: height and width of the images, in pixels.
            sensors: what `render` draws, of rgb, depth, semantic, instance.
            threads: that draw together. With several, one more computes distance fields ahead.
            antialias: samples along a pixel's side.
            field_bytes: bound of the distance fields that are kept for later episodes.
            renderer: what draws, `cpu` or `cuda`; pixels for success are counted on the CPU.
        """
        self.config = config
        self._hfov = math.radians(config.hfov_deg)
        settings: dict[str, Any] = {
            "width": shape[1],
            "height": shape[0],
            "hfov": self._hfov,
            "sensors": tuple(sensors) or ("depth",),  # a blind agent's success is seen all the same
            "antialias": antialias,
        }
        self.renderer = BatchRenderer(num_rows, threads=threads, **settings)
        self._drawer = self.renderer if renderer == "cpu" else on_device(num_rows, **settings)
        self._moves = Moves.of(config)
        self._fields = FieldCache(field_bytes)
        self._prefetcher = FieldPrefetcher(self._fields) if threads > 1 else None
        self._scenes: list[HouseTaskScene | None] = [None] * num_rows
        # Weak, so that a scene and its distance fields go when the last row leaves it.
        self._shared: WeakValueDictionary[SceneKey, HouseTaskScene] = WeakValueDictionary()
        self._goals: list[Goal | None] = [None] * num_rows
        self._target_NK2 = np.zeros((num_rows, MAX_PLACES, 2))
        self._task = TaskConstants.of(config)
        self._in_view: tuple[NDArray[np.float64], NDArray[np.int32]] | None = None
        """Poses, and what was in view from them."""
        # Below radius / sqrt(2), which `build_grid` demands, for small agents too.
        self._cell = min(CELL, 0.4 * config.agent_radius)
        self._slabs = Slabs(
            pose_N4=np.zeros((num_rows, 4)),
            path_N=np.zeros(num_rows),
            distance_N=np.zeros(num_rows),
            shape_N2=np.zeros((num_rows, 2), np.int64),
            slack_NC=np.zeros((num_rows, 0), np.float32),
            field_NC=np.zeros((num_rows, 0), np.float32),
        )

    @property
    def pose_N4(self) -> NDArray[np.float64]:
        """Each row's x, y, heading and pitch. The state itself, no copy."""
        return self._slabs.pose_N4

    @property
    def path_N(self) -> NDArray[np.float64]:
        """Metres walked in the episode. The state itself."""
        return self._slabs.path_N

    @property
    def distance_N(self) -> NDArray[np.float64]:
        """Walking distance to the nearest viewpoint of the goal. The state itself."""
        return self._slabs.distance_N

    def task_scene(self, row: int) -> HouseTaskScene:
        """Return the scene that a row is in, as the task sees it."""
        task_scene = self._scenes[row]
        if task_scene is None:
            raise RuntimeError(
                f"HouseSimulator.task_scene: row {row} must be in a scene, got none. "
                "Call set_scene first."
            )
        return task_scene

    def goal(self, row: int) -> Goal:
        """Return what a row looks for."""
        goal = self._goals[row]
        if goal is None:
            raise RuntimeError(
                f"HouseSimulator.goal: row {row} must be in an episode, got none. Call begin first."
            )
        return goal

    def set_scene(self, row: int, scene: Scene, grid: NavGrid | None = None) -> None:
        """Move a row into a scene. `begin` must follow before it acts.

        Args:
            row: the row.
            scene: the scene; rows in equal scenes share all that is derived from it.
            grid: its house's free space for the standard agent, if the caller has it.
        """
        task_scene = self._shared.get(scene_key(scene))
        if task_scene is None:
            if grid is None or self.config.agent_radius != AGENT_RADIUS:
                grid = build_grid(scene, self.config.agent_radius, cell=self._cell)
            task_scene = HouseTaskScene(scene, grid, self.config, self._fields)
            self._shared[scene_key(scene)] = task_scene
            if self._prefetcher is not None:
                self._prefetcher.want(task_scene, task_scene.likely_goals())
        self._scenes[row] = task_scene
        self._goals[row] = None
        self._in_view = None
        # The object that rows share, as the renderer tells scenes apart by identity.
        self.renderer.set_scene(row, task_scene.scene)
        if self._drawer is not self.renderer:
            self._drawer.set_scene(row, task_scene.scene)
        slack_YX = task_scene.grid.slack_YX
        self._make_room(slack_YX.size)
        self._slabs.shape_N2[row] = slack_YX.shape
        self._slabs.slack_NC[row, : slack_YX.size] = slack_YX.ravel()

    def begin(self, row: int, plan: EpisodePlan) -> None:
        """Put a row at the start of an episode."""
        start = plan.start
        self.pose_N4[row] = (
            start.x,
            start.y,
            start.heading,
            math.radians(self.config.pitch_start_deg),
        )
        self.path_N[row] = 0.0
        self.set_goal(row, plan.goal)

    def set_goal(self, row: int, goal: Goal) -> None:
        """Say what a row looks for, and measure how far it is."""
        self._goals[row] = goal
        task_scene = self.task_scene(row)
        field_YX = task_scene.field(goal)
        self._slabs.field_NC[row, : field_YX.size] = field_YX.ravel()
        self._target_NK2[row] = np.resize(task_scene.instance_xy(goal), (MAX_PLACES, 2))
        self.distance_N[row] = sample(
            field_YX, task_scene.grid.cell, self.pose_N4[row, 0], self.pose_N4[row, 1]
        )

    def base_pose(self, row: int) -> Pose:
        """Return where a row's agent is."""
        x, y, heading, _ = self.pose_N4[row].tolist()
        return Pose(x, y, heading)

    def advance(self, action_N: NDArray[np.int64]) -> None:
        """Act in all rows. A stop changes nothing here."""
        advance(action_N, self._slabs, self._cell, self._moves)

    def would_succeed(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell in which of some rows a stop here and now finds the goal, (K,)."""
        success_K = np.zeros(len(rows), bool)
        near: dict[int, NDArray[np.bool_]] = {}
        for k, row in enumerate(rows.tolist()):
            x, y = self.pose_N4[row, :2].tolist()
            near_I = near_instances(
                self.config, x, y, self.task_scene(row).instance_xy(self.goal(row))
            )
            # Only these are drawn: counting pixels is by far the dearer half of the test.
            if near_I.any():
                near[k] = near_I
        if near:
            close = rows[list(near)]
            pixels = self.renderer.count_pixels(
                close, *self.pose_N4[close].T, size=self.config.success_resolution
            )
            for (k, near_I), pixels_I in zip(near.items(), pixels, strict=True):
                instances = list(self.goal(int(rows[k])).instances)
                success_K[k] = succeeded(self.config, near_I, pixels_I[instances])
        return success_K

    def pixels_in_view(self) -> NDArray[np.int32]:
        """Count the pixels of each goal instance in all rows, in a square view as wide as theirs.

        They are drawn once, however many ask, for as long as no agent moves.

        Returns:
            Shape (N, I): pixels by instance id, where id 0 is everything else. Not to be written.
        """
        if self._in_view is None or not np.array_equal(self._in_view[0], self.pose_N4):
            rows = np.arange(len(self._goals))
            width = self.renderer.camera.width
            pixels_NI = self.renderer.count_pixels(rows, *self.pose_N4.T, size=width)
            self._in_view = (self.pose_N4.copy(), pixels_NI)
        return self._in_view[1]

    def render(self, rows: NDArray[np.int64] | None, out: dict[str, Any]) -> None:
        """Draw what rows (None: all) see into `out[sensor][rows]`.

        On a device, arrays of the host are replaced by arrays there; the others are drawn into.
        """
        if self._drawer is self.renderer:
            if rows is None:
                self.renderer.render(*self.pose_N4.T, out=out)
                return
            images = self.renderer.render(*self.pose_N4[rows].T, rows=rows)
            for name, image in images.items():
                out[name][rows] = image
        elif rows is None:
            there = {n: image for n, image in out.items() if not isinstance(image, np.ndarray)}
            out |= self._drawer.render(*self.pose_N4.T, out=there)
        else:
            images = self._drawer.render(*self.pose_N4[rows].T, rows=rows)
            for name, image in images.items():
                for k, row in enumerate(rows.tolist()):
                    out[name][row : row + 1].copy_to_device(image[k : k + 1])

    def expert_actions(self) -> NDArray[np.int64]:
        """Return what the expert would do in all rows."""
        action_N = np.empty(len(self._goals), np.int64)
        walk_rows(self._slabs, self._target_NK2, self._cell, self._task, action_N)
        for row in np.flatnonzero(action_N < 0).tolist():
            action_N[row] = self.expert_action(row)
        return action_N

    def expert_action(self, row: int) -> int:
        """Return what the expert would do in a row."""
        x, y, heading, pitch = self.pose_N4[row].tolist()
        return self.task_scene(row).expert_action(self.goal(row), (x, y, heading, pitch))

    def close(self) -> None:
        """End the threads."""
        self.renderer.close()
        if self._prefetcher is not None:
            self._prefetcher.close()

    def _make_room(self, cells: int) -> None:
        """Widen the slabs to hold a grid of this many cells."""
        missing = cells - self._slabs.slack_NC.shape[1]
        if missing > 0:
            wider = ((0, 0), (0, missing))
            self._slabs = self._slabs._replace(
                slack_NC=np.pad(self._slabs.slack_NC, wider),
                field_NC=np.pad(self._slabs.field_NC, wider),
            )
