"""How the agent moves: straight where space is free, sliding along obstacles where it is not.

Positions are continuous. A move is cut into steps of at most half a cell; a step that would enter
an obstacle is projected onto the border of free space, so that what is left of it is its part
along the obstacle, as in Habitat's navmesh step filter. A position that is free stays free, no
step is longer than asked for, and a move through free space is exact. No `fastmath`: moves must
be reproducible everywhere.

Shape suffixes: Y and X grid rows and columns.
"""

from __future__ import annotations

import math
from typing import Final

from numba import njit

from envs.houses.navigation.navigation import FloatGrid, slack_at

_MAX_PROJECTIONS: Final = 4
_MAX_HALVINGS: Final = 3
_SKIN: Final = 1e-6
"""Metres inside free space at which projections aim, so that rounding does not leave it."""


@njit(cache=True, nogil=True)
def project(slack_YX: FloatGrid, cell: float, x: float, y: float) -> tuple[float, float]:
    """Move a position out of an obstacle along the gradient of slack."""
    h = 0.25 * cell
    for _ in range(_MAX_PROJECTIONS):
        slack = slack_at(slack_YX, cell, x, y)
        if slack >= 0.0:
            break
        gx = (slack_at(slack_YX, cell, x + h, y) - slack_at(slack_YX, cell, x - h, y)) / (2 * h)
        gy = (slack_at(slack_YX, cell, x, y + h) - slack_at(slack_YX, cell, x, y - h)) / (2 * h)
        squared = gx * gx + gy * gy
        if squared < 1e-6:
            break
        back = (_SKIN - slack) / squared
        x += back * gx
        y += back * gy
    return x, y


@njit(cache=True, nogil=True)
def _slide_step(
    slack_YX: FloatGrid, cell: float, x: float, y: float, dx: float, dy: float
) -> tuple[float, float]:
    """Advance by (dx, dy), or by as much of it as runs along the obstacle in the way."""
    for _ in range(_MAX_HALVINGS + 1):
        nx, ny = project(slack_YX, cell, x + dx, y + dy)
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
    steps = max(math.ceil(distance / (0.5 * cell) - 1e-9), 1)
    step = distance / steps
    done = 0
    while done < steps:
        ahead = step * (done + 1)
        if slack_at(slack_YX, cell, x + ahead * cos, y + ahead * sin) < 0.0:
            break
        done += 1
    if done == steps:
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
