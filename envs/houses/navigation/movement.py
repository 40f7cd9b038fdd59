"""How agents move: the step of all rows as one compiled call.

Positions are continuous. A move ahead is cut into steps of at most half a cell; a step that would
enter an obstacle is projected onto the border of free space, so that what is left of it is its part
along the obstacle, as in Habitat's navmesh step filter. A position that is free stays free, no
step is longer than asked for, and a move through free space is exact. No `fastmath`: moves must
be reproducible everywhere.

Shapes: N rows, Y and X grid rows and columns, C grid cells, flat and padded.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.core.kernels import source_fingerprint
from envs.houses.navigation import geodesic, grid
from envs.houses.navigation.geodesic import sample
from envs.houses.navigation.grid import FloatGrid, slack_at
from envs.objectnav.config import Action, ObjectNavConfig

_FORWARD: Final = int(Action.FORWARD)
_TURN_LEFT: Final = int(Action.TURN_LEFT)
_TURN_RIGHT: Final = int(Action.TURN_RIGHT)
_LOOK_UP: Final = int(Action.LOOK_UP)
_LOOK_DOWN: Final = int(Action.LOOK_DOWN)

_MAX_PROJECTIONS: Final = 4
_MAX_HALVINGS: Final = 3
_SKIN: Final = 1e-6
"""Metres inside free space at which projections aim, so that rounding does not leave it."""


@njit(cache=True, nogil=True)
def _project(slack_YX: FloatGrid, cell: float, x: float, y: float) -> tuple[float, float]:
    """Move a position out of an obstacle along the gradient of slack.

    Slack is bilinear, not a true distance, so a few Newton steps are needed.
    """
    h = 0.25 * cell
    for _ in range(_MAX_PROJECTIONS):
        slack = slack_at(slack_YX, cell, x, y)
        if slack >= 0.0:
            break
        gx = (slack_at(slack_YX, cell, x + h, y) - slack_at(slack_YX, cell, x - h, y)) / (2 * h)
        gy = (slack_at(slack_YX, cell, x, y + h) - slack_at(slack_YX, cell, x, y - h)) / (2 * h)
        squared = gx * gx + gy * gy
        # Without a slope no direction leads out.
        if squared < 1e-6:
            break
        # Divided by the slope once for the distance, and once more as (gx, gy) is not of length 1.
        back = (_SKIN - slack) / squared
        x += back * gx
        y += back * gy
    return x, y


@njit(cache=True, nogil=True)
def _slide_step(
    slack_YX: FloatGrid, cell: float, x: float, y: float, dx: float, dy: float
) -> tuple[float, float]:
    """Advance by (dx, dy), or by as much of it as runs along the obstacle in the way."""
    # In a corner the projection may lead back or too far, which a shorter step may not.
    for _ in range(_MAX_HALVINGS + 1):
        nx, ny = _project(slack_YX, cell, x + dx, y + dy)
        ex = nx - x
        ey = ny - y
        shorter = ex * ex + ey * ey <= dx * dx + dy * dy
        if shorter and ex * dx + ey * dy > 0.0 and slack_at(slack_YX, cell, nx, ny) >= 0.0:
            return nx, ny
        dx *= 0.5
        dy *= 0.5
    return x, y


@njit(cache=True, nogil=True)
def slide(
    slack_YX: FloatGrid, cell: float, x: float, y: float, heading: float, distance: float
) -> tuple[float, float]:
    """Move ahead, sliding along obstacles; never leaves free space.

    Args:
        slack_YX: `NavGrid.slack_YX`.
        cell: `NavGrid.cell`.
        x: Where the move starts.
        y: Where the move starts.
        heading: Direction of the move.
        distance: Length of the move in free space.

    Returns:
        Where it ends.
    """
    cos = math.cos(heading)
    sin = math.sin(heading)
    # Half a cell at a time, so that no step jumps over a thin wall.
    # The epsilon keeps a quotient that is whole but for rounding from one step more.
    steps = max(math.ceil(distance / (0.5 * cell) - 1e-9), 1)
    step = distance / steps
    done = 0
    while done < steps:
        # Measured from the start, so that rounding does not add up.
        ahead = step * (done + 1)
        if slack_at(slack_YX, cell, x + ahead * cos, y + ahead * sin) < 0.0:
            break
        done += 1
    if done == steps:  # one addition, so that the length of a free move is exact
        return x + distance * cos, y + distance * sin
    x += done * step * cos
    y += done * step * sin
    for _ in range(steps - done):
        nx, ny = _slide_step(slack_YX, cell, x, y, step * cos, step * sin)
        if nx == x and ny == y:
            break
        x = nx
        y = ny
    return x, y


class Moves(NamedTuple):
    """What actions do, in metres and radians."""

    forward: float
    turn: float
    look: float
    pitch_min: float
    pitch_max: float

    @classmethod
    def of(cls, config: ObjectNavConfig) -> Moves:
        """Read a task's configuration."""
        return cls(
            forward=config.forward_step,
            turn=config.turn,
            look=config.look,
            pitch_min=math.radians(config.pitch_min_deg),
            pitch_max=math.radians(config.pitch_max_deg),
        )


class Slabs(NamedTuple):
    """What a step reads and writes of each row. Grids are flat, and padded to one length."""

    pose_N4: NDArray[np.float64]
    """x, y, heading, pitch."""
    path_N: NDArray[np.float64]
    """Metres walked in the episode."""
    distance_N: NDArray[np.float64]
    """Walking distance to the nearest viewpoint of the goal."""
    shape_N2: NDArray[np.int64]
    """Rows and columns of the house's grid."""
    slack_NC: NDArray[np.float32]
    field_NC: NDArray[np.float32]
    """Distances to the goal."""


def _build(fingerprint: int) -> Any:
    """Return the step kernel."""

    @njit(cache=True, nogil=True)
    def advance(action_N: NDArray[np.int64], slabs: Slabs, cell: float, moves: Moves) -> int:
        """Act in all rows; overwrites poses, paths and distances."""
        pose_N4 = slabs.pose_N4
        for n in range(len(action_N)):
            action = action_N[n]
            if action == _FORWARD:
                rows, columns = slabs.shape_N2[n]
                cells = rows * columns
                x, y = pose_N4[n, 0], pose_N4[n, 1]
                slack_YX = slabs.slack_NC[n][:cells].reshape((rows, columns))
                nx, ny = slide(slack_YX, cell, x, y, pose_N4[n, 2], moves.forward)
                # A blocked move changes neither path nor distance, so the field need not be read.
                if nx != x or ny != y:
                    pose_N4[n, 0] = nx
                    pose_N4[n, 1] = ny
                    slabs.path_N[n] += math.hypot(nx - x, ny - y)
                    field_YX = slabs.field_NC[n][:cells].reshape((rows, columns))
                    slabs.distance_N[n] = sample(field_YX, cell, nx, ny)
            elif action == _TURN_LEFT:
                pose_N4[n, 2] = (pose_N4[n, 2] + moves.turn) % (2.0 * math.pi)
            elif action == _TURN_RIGHT:
                pose_N4[n, 2] = (pose_N4[n, 2] - moves.turn) % (2.0 * math.pi)
            elif action == _LOOK_UP:
                pose_N4[n, 3] = min(pose_N4[n, 3] + moves.look, moves.pitch_max)
            elif action == _LOOK_DOWN:
                pose_N4[n, 3] = max(pose_N4[n, 3] - moves.look, moves.pitch_min)
        return fingerprint

    return advance


advance: Final = _build(source_fingerprint(geodesic, grid))
