"""Which nodes of a lattice hang together, and how to add nodes without changing that.

Shape suffixes: Y and X grid rows and columns.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

_THICKEN_LEVELS: Final = 4


@njit(cache=True, nogil=True)
def largest_component(slack_YX: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark the largest set of 4-connected nodes whose slack is not negative."""
    rows, columns = slack_YX.shape
    label_YX = np.zeros((rows, columns), np.int32)
    stack = np.empty((rows * columns, 2), np.int32)
    labels = 0
    best = 0
    best_size = 0
    for y in range(rows):
        for x in range(columns):
            if slack_YX[y, x] < 0.0 or label_YX[y, x] != 0:
                continue
            labels += 1
            label_YX[y, x] = labels
            stack[0] = y, x
            size = 1
            top = 1
            while top > 0:
                top -= 1
                cy, cx = stack[top]
                for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                    ny = cy + dy
                    nx = cx + dx
                    if not (0 <= ny < rows and 0 <= nx < columns):
                        continue
                    if slack_YX[ny, nx] >= 0.0 and label_YX[ny, nx] == 0:
                        label_YX[ny, nx] = labels
                        stack[top] = ny, nx
                        top += 1
                        size += 1
            if size > best_size:
                best = labels
                best_size = size
    return (label_YX == best) & (label_YX > 0)


@njit(cache=True, nogil=True)
def _is_simple(open_YX: NDArray[np.bool_], y: int, x: int) -> bool:
    """Tell whether opening a closed node joins nothing that was apart and closes no loop.

    True when exactly one 4-connected piece of the node's open neighbourhood touches it.
    """
    east, north = open_YX[y, x + 1], open_YX[y + 1, x]
    west, south = open_YX[y, x - 1], open_YX[y - 1, x]
    pieces = int(east) + int(north) + int(west) + int(south)
    pieces -= int(east and north and open_YX[y + 1, x + 1])
    pieces -= int(north and west and open_YX[y + 1, x - 1])
    pieces -= int(west and south and open_YX[y - 1, x - 1])
    pieces -= int(south and east and open_YX[y - 1, x + 1])
    return pieces == 1


@njit(cache=True, nogil=True)
def thicken(
    free_YX: NDArray[np.bool_], slack_YX: NDArray[np.float64], deepest: float
) -> NDArray[np.bool_]:
    """Add the nodes whose slack is at least `-deepest`, nearest to free space first.

    Free space ends up to a cell beyond its last free node, so paths over free nodes alone take
    corners too wide. Only nodes that leave the topology as it is are added, hence no path over
    the result squeezes through a gap that the agent does not fit through.
    """
    open_YX = free_YX.copy()
    rows, columns = free_YX.shape
    for level in range(1, _THICKEN_LEVELS + 1):
        least = -deepest * level / _THICKEN_LEVELS
        for y in range(1, rows - 1):
            for x in range(1, columns - 1):
                if not open_YX[y, x] and slack_YX[y, x] >= least and _is_simple(open_YX, y, x):
                    open_YX[y, x] = True
    return open_YX
