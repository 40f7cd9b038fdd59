"""The memory oracle: an expert that knows only what was in its view in this trial.

If an instance of the goal was in its view since the trial began, it walks the shortest way to it,
as the expert does. Otherwise it explores: it walks to the nearest floor that it has not seen. What
it gains over an agent that forgets is what a perfect memory is worth, and a ceiling for agents that
learn to remember. Walls and free space it knows from the start.

It looks whenever it is asked. A row that is asked at every step knows all that was in view, in a
square view as wide as the agent's.

Shapes: N rows, I instance ids of a scene, Y and X grid rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from envs.core.vector import Rows, State
from envs.houses.navigation.expert import TaskConstants, WalkArea, walk
from envs.houses.navigation.geodesic import distance_field
from envs.houses.navigation.grid import FloatGrid, segment_free
from envs.houses.navigation.task_scene import HouseTaskScene
from envs.houses.simulator import HouseSimulator
from envs.objectnav.rules import Goal

_REACH: Final = 3.0
"""Metres up to which floor counts as seen: farther away, small objects show a pixel at most."""
_AT_HAND: Final = 0.5
"""Metres within which it counts as seen wherever the agent looks."""
_SIGHT: Final = 0.01
"""Metres that a line of sight keeps from obstacles."""

BoolGrid = NDArray[np.bool_]


@dataclass(slots=True)
class Knowledge:
    """What was in a row's view in its trial."""

    seen_YX: BoolGrid
    """Nodes of the floor."""
    instances: set[int]
    target: int = -1
    """Flat index of the node that is walked to while exploring; -1: none is chosen."""
    field_YX: FloatGrid | None = None
    """Distances to it."""


@njit(cache=True, nogil=True)
def look_around(
    seen_YX: BoolGrid,
    slack_YX: FloatGrid,
    cell: float,
    pose: tuple[float, float, float],
    lens: tuple[float, float],
) -> None:
    """Mark the nodes that are seen from a pose (x, y, heading).

    `lens` is half the horizontal field of view in radians, and the slack that sight needs.
    """
    x, y, heading = pose
    reach = math.ceil(_REACH / cell)
    cx, cy = int(x / cell), int(y / cell)
    rows, columns = seen_YX.shape
    for iy in range(max(cy - reach, 0), min(cy + reach + 1, rows)):
        for ix in range(max(cx - reach, 0), min(cx + reach + 1, columns)):
            if seen_YX[iy, ix] or slack_YX[iy, ix] < 0.0:
                continue
            node = ((ix + 0.5) * cell, (iy + 0.5) * cell)
            dx, dy = node[0] - x, node[1] - y
            away = math.hypot(dx, dy)
            if away > _REACH:
                continue
            if away > _AT_HAND:
                aside = (math.atan2(dy, dx) - heading + math.pi) % (2.0 * math.pi) - math.pi
                if abs(aside) > lens[0]:
                    continue
            if segment_free(slack_YX, cell, (x, y), node, lens[1]):
                seen_YX[iy, ix] = True


class MemoryExpert:
    """The oracle of N rows of a simulator."""

    def __init__(self, simulator: HouseSimulator) -> None:
        """Know nothing of the rows of a simulator."""
        self._simulator = simulator
        self._task = TaskConstants.of(simulator.config)
        self._lens = (
            0.5 * math.radians(simulator.config.hfov_deg),
            _SIGHT - simulator.config.agent_radius,
        )
        self._known: dict[int, Knowledge] = {}

    def forget(self, rows: Rows) -> None:
        """Know nothing of some rows any more: they begin a trial."""
        for row in rows.tolist():
            self._known.pop(row, None)

    def actions(self, rows: Rows) -> NDArray[np.int64]:
        """Look, and return what the oracle would do in some rows."""
        self._look(rows)
        return np.array([self._action(row) for row in rows.tolist()], np.int64)

    def known(self, row: int) -> Knowledge:
        """Return what a row knows; it must have been asked in its trial.

        Raises:
            KeyError: It was not.
        """
        return self._known[row]

    def _look(self, rows: Rows) -> None:
        simulator = self._simulator
        pose_K4 = simulator.pose_N4[rows]
        pixels = simulator.pixels_in_view()[rows]
        for row, pose, pixels_I in zip(rows.tolist(), pose_K4.tolist(), pixels, strict=True):
            grid = simulator.task_scene(row).grid
            known = self._known.get(row)
            if known is None:
                known = self._known[row] = Knowledge(np.zeros(grid.free_YX.shape, bool), set())
            known.instances.update((1 + np.flatnonzero(pixels_I[1:])).tolist())  # 0 is all else
            x, y, heading, _ = pose
            look_around(known.seen_YX, grid.slack_YX, grid.cell, (x, y, heading), self._lens)

    def _action(self, row: int) -> int:
        simulator, known = self._simulator, self._known[row]
        scene, goal = simulator.task_scene(row), simulator.goal(row)
        pose = tuple(simulator.pose_N4[row].tolist())
        remembered = tuple(i for i in goal.instances if i in known.instances)
        if remembered:
            return scene.expert_action(Goal(goal.category, remembered), pose)
        self._choose_target(known, scene, pose)
        assert known.field_YX is not None
        area = WalkArea(scene.grid.slack_YX, known.field_YX, scene.grid.cell)
        return int(walk(area, self._task, pose))

    def _choose_target(
        self, known: Knowledge, scene: HouseTaskScene, pose: tuple[Any, ...]
    ) -> None:
        """Go on to the target until it is seen; then take the nearest unseen floor."""
        if known.target >= 0 and not known.seen_YX.flat[known.target]:
            if known.field_YX is None:  # from a state, which holds no fields
                known.field_YX = _field_of(scene, known.target)
            return
        grid = scene.grid
        unseen_YX = grid.free_YX & ~known.seen_YX
        if not unseen_YX.any():
            # All was seen but the goal was not: objects may hide. Look at all of it once more.
            known.seen_YX[:] = False
            look_around(known.seen_YX, grid.slack_YX, grid.cell, pose[:3], self._lens)
            unseen_YX = grid.free_YX & ~known.seen_YX
        # Slivers along the edge of what was seen are not worth a walk while there is more.
        beyond_YX = unseen_YX | ~grid.free_YX
        inner_YX = unseen_YX & np.asarray(
            ndimage.binary_erosion(beyond_YX, iterations=2, border_value=1), bool
        )
        wanted_YX = inner_YX if inner_YX.any() else unseen_YX
        from_here_YX = distance_field(grid, [nearest_free(grid.free_YX, grid.cell, pose)])
        distance = np.where(wanted_YX, from_here_YX, np.inf)
        known.target = int(distance.argmin())
        known.field_YX = _field_of(scene, known.target)

    def state(self) -> State:
        """Return what the rows know, by row; a row that knows nothing has seen an empty floor."""
        # Of all rows, since states are shared out by row.
        return {
            str(row): {
                "seen": known.seen_YX.copy(),
                "instances": np.array(sorted(known.instances), np.int64),
                "target": known.target,
            }
            for row in range(len(self._simulator.pose_N4))
            for known in [self._known.get(row, Knowledge(np.zeros((0, 0), bool), set()))]
        }

    def load_state(self, state: State) -> None:
        """Take over what `state` returned."""
        self._known = {
            int(row): Knowledge(
                np.array(known["seen"], bool),
                set(np.asarray(known["instances"]).tolist()),
                int(known["target"]),
            )
            for row, known in state.items()
            if np.size(known["seen"])
        }


def nearest_free(free_YX: BoolGrid, cell: float, pose: tuple[Any, ...]) -> tuple[float, float]:
    """Return the free node that is nearest to a position, (x, y)."""
    node_F2 = np.argwhere(free_YX)[:, ::-1]
    x_F2 = (node_F2 + 0.5) * cell
    x, y = x_F2[np.hypot(*(x_F2 - pose[:2]).T).argmin()].tolist()
    return x, y


def _field_of(scene: HouseTaskScene, node: int) -> FloatGrid:
    """Return the distances to a node, given by its flat index."""
    iy, ix = divmod(node, scene.grid.free_YX.shape[1])
    return distance_field(
        scene.grid, [((ix + 0.5) * scene.grid.cell, (iy + 0.5) * scene.grid.cell)]
    )
