"""Shortest walks: down a distance field, then pulled taut among the obstacles.

Shape suffixes: K points, Y and X grid rows and columns.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.navigation.collision import project
from envs.houses.navigation.navigation import FloatGrid, NavGrid, segment_free

_GRAZE_CELLS: Final = 0.05
"""How far taut paths may cut into the margin of free space, in cells; without it, a path that
rounds a corner would be a hundred points that do not quite see each other."""
_PULLS: Final = 2
"""Even, so that the path ends up in its original direction."""


@njit(cache=True, nogil=True)
def _descend(field_YX: FloatGrid, cell: float, x: float, y: float) -> NDArray[np.float64]:
    """List (x, y) and then the nodes of a way down the field from there."""
    rows, columns = field_YX.shape
    points = np.empty((rows * columns + 1, 2), np.float64)
    points[0] = x, y
    left = min(max(int(x / cell - 0.5), 0), columns - 2)
    low = min(max(int(y / cell - 0.5), 0), rows - 2)
    best = np.inf
    iy, ix = low, left
    for cy in range(low, low + 2):
        for cx in range(left, left + 2):
            away = math.hypot((cx + 0.5) * cell - x, (cy + 0.5) * cell - y)
            if field_YX[cy, cx] + away < best:
                best = field_YX[cy, cx] + away
                iy, ix = cy, cx
    count = 1
    while best < np.inf and count < len(points):
        points[count] = (ix + 0.5) * cell, (iy + 0.5) * cell
        count += 1
        steepest = 0.0
        ny, nx = iy, ix
        for cy in range(max(iy - 1, 0), min(iy + 2, rows)):
            for cx in range(max(ix - 1, 0), min(ix + 2, columns)):
                if not (field_YX[iy, cx] < np.inf or field_YX[cy, ix] < np.inf):
                    continue
                fall = field_YX[iy, ix] - field_YX[cy, cx]
                if cy != iy and cx != ix:
                    fall /= math.sqrt(2.0)
                if fall > steepest:
                    steepest = fall
                    ny, nx = cy, cx
        if ny == iy and nx == ix:
            break
        iy, ix = ny, nx
    return points[:count]


@njit(cache=True, nogil=True)
def _pull(slack_YX: FloatGrid, cell: float, points_K2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep of a path only points from which the last one in sight is the next."""
    kept = np.empty_like(points_K2)
    kept[0] = points_K2[0]
    count = 1
    at = 0
    while at < len(points_K2) - 1:
        ahead = len(points_K2) - 1
        while ahead > at + 1 and not segment_free(
            slack_YX,
            cell,
            (points_K2[at, 0], points_K2[at, 1]),
            (points_K2[ahead, 0], points_K2[ahead, 1]),
            -_GRAZE_CELLS * cell,
        ):
            ahead -= 1
        kept[count] = points_K2[ahead]
        count += 1
        at = ahead
    return kept[:count]


@njit(cache=True, nogil=True)
def _densify(points_K2: NDArray[np.float64], spacing: float) -> NDArray[np.float64]:
    """Reverse a path and insert points into its pieces."""
    total = 1
    for k in range(len(points_K2) - 1):
        dx, dy = points_K2[k + 1] - points_K2[k]
        total += math.ceil(math.hypot(dx, dy) / spacing) + 1
    dense = np.empty((total, 2), np.float64)
    dense[0] = points_K2[-1]
    count = 1
    for k in range(len(points_K2) - 1, 0, -1):
        step = points_K2[k - 1] - points_K2[k]
        pieces = math.ceil(math.hypot(step[0], step[1]) / spacing) + 1
        for i in range(1, pieces):
            dense[count] = points_K2[k] + step * (i / pieces)
            count += 1
        dense[count] = points_K2[k - 1]
        count += 1
    return dense[:count]


@njit(cache=True, nogil=True)
def _lift(slack_YX: FloatGrid, cell: float, points_K2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move a path's points, but for its ends, into free space; changes its argument."""
    for k in range(1, len(points_K2) - 1):
        points_K2[k] = project(slack_YX, cell, points_K2[k, 0], points_K2[k, 1])
    return points_K2


@njit(cache=True, nogil=True)
def _taut_path(
    slack_YX: FloatGrid, cell: float, field_YX: FloatGrid, x: float, y: float
) -> NDArray[np.float64]:
    """Descend a field and pull the way taut, from either end in turn."""
    points_K2 = _descend(field_YX, cell, x, y)
    points_K2 = _pull(slack_YX, cell, _lift(slack_YX, cell, points_K2))
    for _ in range(_PULLS):
        dense_K2 = _densify(points_K2, 0.25 * cell)
        points_K2 = _pull(slack_YX, cell, _lift(slack_YX, cell, dense_K2))
    return points_K2


def shortest_path(grid: NavGrid, field_YX: FloatGrid, x: float, y: float) -> NDArray[np.float64]:
    """Return a shortest walk from a position down a field.

    Args:
        grid: The free space that the field was solved in.
        field_YX: Result of `distance_field`.
        x: Where the walk starts, in free space.
        y: Where the walk starts.

    Returns:
        Corners (K, 2) of the walk, (x, y) first and the goal's nearest node last; a single point
        where no goal can be reached.
    """
    return _taut_path(grid.slack_YX, grid.cell, field_YX, x, y)


def path_length(points_K2: NDArray[np.float64]) -> float:
    """Return the length of a walk."""
    return float(np.linalg.norm(np.diff(points_K2, axis=0), axis=1).sum())
