"""The expert: walks to where a goal object can be seen, faces it, and stops.

Its action is a pure function of pose, goal and distance field, so that it can be asked at any time,
also in the middle of somebody else's episode. It tries out its own next moves with the simulator's
collision kernel: every heading of the turning lattice, and a few steps ahead along each. It does
not oscillate, because a plan that was best stays available, one action cheaper, after its first
action.

Shapes: K goal instances, Y and X grid rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.navigation.geodesic import sample
from envs.houses.navigation.grid import FloatGrid, NavGrid
from envs.houses.navigation.movement import Moves, Slabs, slide
from envs.houses.navigation.visibility import PackedScene, Table, seen_pixels, solids_near, view_of
from envs.houses.scene import Scene
from envs.objectnav.config import EYE_HEIGHT, Action, ObjectNavConfig

Pose4 = tuple[float, float, float, float]

_STOP: Final = int(Action.STOP)
_FORWARD: Final = int(Action.FORWARD)
_LEFT: Final = int(Action.TURN_LEFT)
_RIGHT: Final = int(Action.TURN_RIGHT)
_UP: Final = int(Action.LOOK_UP)
_DOWN: Final = int(Action.LOOK_DOWN)

_PLENTY: Final = 1.5
"""Estimated pixels, in multiples of what success needs, that are worth a few more steps."""
_ENOUGH: Final = 1.3
"""The same for settling where nothing near is better."""
_WHOLE: Final = 4.0
"""The same for stopping although a part of the object is out of view."""
_ARRIVED: Final = 0.05
"""Distance to the nearest viewpoint, in metres, from which the end is searched for by eye."""
_AHEAD: Final = 4
"""Forward moves that are tried along every heading."""
_TURN_COST: Final = 0.1
"""Of a turn, in forward moves. Paths are judged by length, turns only cost time; but when turns
are nearly free (0.03), the expert may turn back and forth for ever."""
_GAIN: Final = 0.01
"""Metres by which a plan must come nearer."""
_NO_GAIN_COST: Final = 1e6
"""Added to plans that do not, so that one is taken only if there is no other."""
_INNER_VIEW: Final = 0.8
"""Share of the image's half width within which an object counts as in view."""


class TaskConstants(NamedTuple):
    """What the kernels need of the task's configuration."""

    moves: Moves
    distance: float
    """Within which an instance may be found."""
    pixels: float
    """Of it that must be seen."""
    focal: float
    """Focal length of the image that they are counted in, in pixels."""
    edge: float
    """Tangent of half the opening angle that the expert wants objects in."""

    @classmethod
    def of(cls, config: ObjectNavConfig) -> TaskConstants:
        """Read a task's configuration."""
        tangent = math.tan(math.radians(config.hfov_deg) / 2.0)
        return cls(
            moves=Moves.of(config),
            distance=config.success_distance - 0.01,
            pixels=float(config.success_pixels),
            focal=config.success_resolution / 2.0 / tangent,
            edge=_INNER_VIEW * tangent,
        )


class WalkArea(NamedTuple):
    """Where the agent can go, and how far it is from there."""

    slack_YX: FloatGrid
    """`NavGrid.slack_YX`."""
    field_YX: FloatGrid
    """Distances to the nearest viewpoint of the goal instances."""
    cell: float


@njit(cache=True, nogil=True)
def _best_seen(
    packed: PackedScene, targets_K: NDArray[np.int64], task: TaskConstants, x: float, y: float
) -> tuple[int, float]:
    """Return the goal object that is seen best from a position, facing it, and its pixels."""
    best = -1
    most = 0.0
    for k in targets_K:
        object_9 = packed.objects_O9[k]
        dx = object_9[0] - x
        dy = object_9[1] - y
        if dx * dx + dy * dy > task.distance * task.distance:
            continue
        near = solids_near(packed.solids_PC, object_9, task.distance)
        view = view_of(task.focal, 0.0, 0.0, 0.0)
        pixels = seen_pixels(packed, object_9, near, x, y, view)
        if pixels > most:
            best = k
            most = pixels
    return best, most


@njit(cache=True, nogil=True)
def _wrap(angle: float) -> float:
    """Bring an angle into [-pi, pi)."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


@njit(cache=True, nogil=True)
def _face(
    packed: PackedScene, object_9: Table, task: TaskConstants, pixels: float, pose: Pose4
) -> int:
    """Turn and look towards an object; stop once it is well in view."""
    x, y, heading, pitch = pose
    near = solids_near(packed.solids_PC, object_9, task.distance)
    view = view_of(task.focal, task.edge, heading, pitch)
    seen = seen_pixels(packed, object_9, near, x, y, view)
    if seen >= 0.999 * min(pixels, _WHOLE * task.pixels):  # but for rounding
        return _STOP
    dx = object_9[0] - x
    dy = object_9[1] - y
    aside = _wrap(math.atan2(dy, dx) - heading)
    # At half a turn either turn leaves half a turn on the other side: just more than half, or the
    # expert would turn back and forth for ever.
    if abs(aside) > 0.5001 * task.moves.turn:
        return _LEFT if aside > 0.0 else _RIGHT
    above = math.atan2(object_9[2] - EYE_HEIGHT, math.hypot(dx, dy)) - pitch
    # At the end of its range the camera stays, and the expert would look up for ever.
    if above > 0.5001 * task.moves.look and pitch < task.moves.pitch_max - 1e-6:
        return _UP
    if above < -0.5001 * task.moves.look and pitch > task.moves.pitch_min + 1e-6:
        return _DOWN
    return _STOP


@njit(cache=True, nogil=True)
def _nth_turn(n: int) -> int:
    """Order headings by the turns that they take: 0, -1, 1, -2, 2, ..."""
    return (n + 1) // 2 * (1 if n % 2 == 0 else -1)


@njit(cache=True, nogil=True)
def _first_action(turned: int) -> int:
    """Return the first action of a plan that turns left so often, and then walks."""
    if turned == 0:
        return _FORWARD
    return _LEFT if turned > 0 else _RIGHT


@njit(cache=True, nogil=True)
def _search(
    area: WalkArea,
    packed: PackedScene,
    targets_K: NDArray[np.int64],
    task: TaskConstants,
    pixels: float,
    pose: Pose4,
) -> int:
    """Return the first action towards the cheapest near end that sees so many pixels, or -1."""
    action = -1
    cheapest = np.inf
    # Once around. The epsilon keeps a quotient that is whole but for rounding from growing.
    for n in range(2 * math.ceil(math.pi / task.moves.turn - 1e-6)):
        turned = _nth_turn(n)
        heading = pose[2] + turned * task.moves.turn
        nx, ny = pose[0], pose[1]
        for ahead in range(1, _AHEAD + 1):
            cost = abs(turned) * _TURN_COST + ahead
            if cost >= cheapest:
                break  # going farther along this heading only costs more
            px, py = nx, ny
            nx, ny = slide(area.slack_YX, area.cell, px, py, heading, task.moves.forward)
            # Blocked, so further moves ahead would end here as well.
            if nx == px and ny == py:
                break
            if _best_seen(packed, targets_K, task, nx, ny)[1] >= pixels:
                cheapest = cost
                action = _first_action(turned)
    return action


@njit(cache=True, nogil=True)
def walk(area: WalkArea, task: TaskConstants, pose: Pose4) -> int:
    """Return the first action of the plan, turns and then steps, that leads down the field best."""
    action = _LEFT
    cheapest = np.inf
    here = sample(area.field_YX, area.cell, pose[0], pose[1])
    for n in range(2 * math.ceil(math.pi / task.moves.turn - 1e-6)):
        turned = _nth_turn(n)
        if abs(turned) * _TURN_COST + here / task.moves.forward >= cheapest:
            break  # no walk comes nearer by more than its length
        heading = pose[2] + turned * task.moves.turn
        nx, ny = pose[0], pose[1]
        for ahead in range(1, _AHEAD + 1):
            px, py = nx, ny
            nx, ny = slide(area.slack_YX, area.cell, px, py, heading, task.moves.forward)
            if nx == px and ny == py:
                break
            left = sample(area.field_YX, area.cell, nx, ny)
            cost = abs(turned) * _TURN_COST + ahead + left / task.moves.forward
            if left > here - _GAIN:
                cost += _NO_GAIN_COST
            # Of equal plans the one with fewer turns, which comes first; rounding must not decide.
            if cost < cheapest - 1e-9:
                cheapest = cost
                action = _first_action(turned)
    return action


@njit(cache=True, nogil=True)
def expert_action(
    area: WalkArea,
    packed: PackedScene,
    targets_K: NDArray[np.int64],
    task: TaskConstants,
    pose: Pose4,
) -> int:
    """Return the expert's action.

    Args:
        area: Free space and distances.
        packed: The scene.
        targets_K: Rows of `packed.objects_O9` that are goals.
        task: The task's constants.
        pose: x, y, heading, pitch.
    """
    x, y, _, _ = pose
    best, seen = _best_seen(packed, targets_K, task, x, y)
    settled = seen >= _PLENTY * task.pixels
    if not settled and sample(area.field_YX, area.cell, x, y) <= _ARRIVED:
        action = _search(area, packed, targets_K, task, _PLENTY * task.pixels, pose)
        if action >= 0:
            return action
        settled = seen >= _ENOUGH * task.pixels
        if not settled:
            action = _search(area, packed, targets_K, task, _ENOUGH * task.pixels, pose)
            if action >= 0:
                return action
    if settled:
        return _face(packed, packed.objects_O9[best], task, seen, pose)
    return walk(area, task, pose)


@njit(cache=True, nogil=True)
def walk_rows(
    slabs: Slabs,
    target_NK2: NDArray[np.float64],
    cell: float,
    task: TaskConstants,
    action_N: NDArray[np.int64],
) -> None:
    """Write the expert's action of each row that is still on its way; -1 where it must look.

    The same as `expert_action` where no goal instance is near and no viewpoint is reached, which is
    most of the time. All rows in one call: handing over a row's scene takes longer than its walk.

    Args:
        slabs: Poses, free space and distances of the rows.
        target_NK2: Where the goal's instances are, over and over until there are K.
        cell: Of the grids.
        task: The task's constants.
        action_N: Is overwritten.
    """
    for n in range(len(action_N)):
        action_N[n] = -1
        x, y = slabs.pose_N4[n, 0], slabs.pose_N4[n, 1]
        near = False
        for k in range(target_NK2.shape[1]):
            dx = target_NK2[n, k, 0] - x
            dy = target_NK2[n, k, 1] - y
            near |= dx * dx + dy * dy <= task.distance * task.distance
        if near:
            continue
        rows, columns = slabs.shape_N2[n]
        slack_YX = slabs.slack_NC[n][: rows * columns].reshape((rows, columns))
        field_YX = slabs.field_NC[n][: rows * columns].reshape((rows, columns))
        if sample(field_YX, cell, x, y) <= _ARRIVED:
            continue
        pose = (x, y, slabs.pose_N4[n, 2], slabs.pose_N4[n, 3])
        action_N[n] = walk(WalkArea(slack_YX, field_YX, cell), task, pose)


class Expert:
    """The expert of one scene, which rows in that scene may share."""

    def __init__(
        self, scene: Scene, grid: NavGrid, config: ObjectNavConfig, packed: PackedScene
    ) -> None:
        """Prepare a scene, given the grid of its house and the result of `pack_scene`."""
        self._grid = grid
        self._packed = packed
        self._task = TaskConstants.of(config)
        self._index = {o.instance: i for i, o in enumerate(scene.objects)}

    def targets(self, instances: Sequence[int]) -> NDArray[np.int64]:
        """Return the indices of goal instances, as `action` wants them.

        Raises:
            ValueError: If an instance is not in the scene.
        """
        unknown = [i for i in instances if i not in self._index]
        if unknown:
            raise ValueError(
                f"Expert.targets: instances must be in the scene, got {unknown}. "
                f"Choose among {sorted(self._index)}."
            )
        return np.array([self._index[i] for i in instances], np.int64)

    def action(self, field_YX: FloatGrid, targets_K: NDArray[np.int64], pose: Pose4) -> int:
        """Return what the expert would do.

        Args:
            field_YX: Distances to the nearest viewpoint of the goal instances.
            targets_K: The goal instances, from `targets`.
            pose: x, y, heading, pitch.
        """
        area = WalkArea(self._grid.slack_YX, field_YX, self._grid.cell)
        return int(expert_action(area, self._packed, targets_K, self._task, pose))
