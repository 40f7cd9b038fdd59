"""The step of all rows as one compiled call: turning, looking, sliding, and what is left to go.

Shape suffixes: N rows, C grid cells, flat and padded.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.core.kernels import source_fingerprint
from envs.houses.navigation import collision, geodesic, navigation
from envs.houses.navigation.collision import slide
from envs.houses.navigation.geodesic import sample
from envs.objectnav.config import Action

_FORWARD: Final = int(Action.FORWARD)
_TURN_LEFT: Final = int(Action.TURN_LEFT)
_TURN_RIGHT: Final = int(Action.TURN_RIGHT)
_LOOK_UP: Final = int(Action.LOOK_UP)
_LOOK_DOWN: Final = int(Action.LOOK_DOWN)


class Moves(NamedTuple):
    """What actions do, in metres and radians."""

    forward: float
    turn: float
    look: float
    pitch_min: float
    pitch_max: float


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


advance: Final = _build(source_fingerprint(collision, geodesic, navigation))
