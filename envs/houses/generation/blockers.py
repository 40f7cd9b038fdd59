"""Finds furniture that cuts the free floor of a house in two.

It has a coarse grid of its own, without the finer points of `navigation/grid.py`: the generator
asks only which pieces to leave out, with a radius well above the agent's.

Shapes: Y and X grid rows and columns, B obstacles, C cells, K pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from envs.houses.generation.floorplan import CELL
from envs.houses.navigation.grid import connected_parts
from envs.houses.scene import Receptacle

PASSAGE_RADIUS: Final = 0.335
"""The agent's 0.25 m, and what a passage needs besides so that a grid of 0.1 m with rounded-up
obstacles still leads through it at any slant."""
POCKET_RADIUS: Final = 0.26
"""Nearly the agent's own: ground that is free for it should not be shut in by furniture."""
SLOT: Final = 0.34
"""Side of the square that one enlarged object may need."""
SLOT_REACH: Final = 0.9
LARGEST_POCKET: Final = 12
"""Cells of unreachable floor, 0.03 m2, that are left where they are."""

_FIXED: Final = -1
_FREE: Final = -2
_MANY: Final = -3
"""Owners of cells: walls, nobody, several pieces. Other numbers are the only piece on a cell, which
is free once that piece is gone."""


class Obstacles(NamedTuple):
    """B upright obstacles at the height of the agent."""

    x_B: NDArray[np.float64]
    y_B: NDArray[np.float64]
    half_x_B: NDArray[np.float64]
    half_y_B: NDArray[np.float64]
    cos_B: NDArray[np.float64]
    sin_B: NDArray[np.float64]
    round_B: NDArray[np.bool_]
    """True for cylinders."""
    piece_B: NDArray[np.int64]
    """Number of the piece of furniture, or -1 for walls, which stay."""


@numba.njit(cache=True, nogil=True)
def _mark(
    owner_YX: NDArray[np.int64],
    obstacles: Obstacles,
    gone_K: NDArray[np.bool_],
    radius: float,
    cell: float,
) -> None:
    """Write into each cell which piece covers it, if it is one only."""
    rows, columns = owner_YX.shape
    for b in range(obstacles.x_B.size):
        piece = obstacles.piece_B[b]
        if piece >= 0 and gone_K[piece]:
            continue
        x, y, cos, sin = obstacles.x_B[b], obstacles.y_B[b], obstacles.cos_B[b], obstacles.sin_B[b]
        half_x, half_y = obstacles.half_x_B[b], obstacles.half_y_B[b]
        reach_x = abs(cos) * half_x + abs(sin) * half_y + radius
        reach_y = abs(sin) * half_x + abs(cos) * half_y + radius
        for row in range(
            max(0, int((y - reach_y) / cell)), min(rows, int((y + reach_y) / cell) + 1)
        ):
            dy = (row + 0.5) * cell - y
            for column in range(
                max(0, int((x - reach_x) / cell)), min(columns, int((x + reach_x) / cell) + 1)
            ):
                # Another part of the same piece must not make the cell one of several pieces.
                if owner_YX[row, column] == _FIXED or owner_YX[row, column] == piece:
                    continue
                dx = (column + 0.5) * cell - x
                if obstacles.round_B[b]:
                    near = dx * dx + dy * dy < (half_x + radius) ** 2
                else:
                    out_x = max(abs(cos * dx + sin * dy) - half_x, 0.0)
                    out_y = max(abs(cos * dy - sin * dx) - half_y, 0.0)
                    near = out_x * out_x + out_y * out_y < radius * radius
                if near:
                    if piece < 0:
                        owner_YX[row, column] = _FIXED
                    else:
                        before = owner_YX[row, column]
                        owner_YX[row, column] = piece if before == _FREE else _MANY


@numba.njit(cache=True, nogil=True)
def _opens(owner_YX: NDArray[np.int64], start: int, end: int, piece: int) -> bool:
    """Tell whether a way between two cells opens if one piece goes."""
    columns = owner_YX.shape[1]
    owner = owner_YX.ravel()
    seen = np.zeros(owner.size, np.bool_)
    stack = np.empty(owner.size, np.int64)
    stack[0] = start
    seen[start] = True
    top = 1
    while top > 0 and not seen[end]:
        top -= 1
        here = stack[top]
        column = here % columns
        for step in (-1, 1, -columns, columns):
            there = here + step
            if not 0 <= there < owner.size or seen[there]:
                continue
            # A flat index would run on into the row before or after.
            if (step == -1 and column == 0) or (step == 1 and column == columns - 1):
                continue
            if owner[there] == _FREE or owner[there] == piece:
                seen[there] = True
                stack[top] = there
                top += 1
    return bool(seen[end])


@numba.njit(cache=True, nogil=True)
def _nearest_blocker(
    x_C: NDArray[np.float64],
    y_C: NDArray[np.float64],
    obstacles: Obstacles,
    area_K: NDArray[np.float64],
    gone_K: NDArray[np.bool_],
    reach: float,
) -> int:
    """Return the smallest piece that comes within a distance of some cells, or -1."""
    best = -1
    for b in range(obstacles.x_B.size):
        piece = obstacles.piece_B[b]
        if piece < 0 or gone_K[piece] or (best >= 0 and area_K[piece] >= area_K[best]):
            continue
        wide = max(obstacles.half_x_B[b], obstacles.half_y_B[b]) + reach
        for c in range(x_C.size):
            if abs(x_C[c] - obstacles.x_B[b]) < wide and abs(y_C[c] - obstacles.y_B[b]) < wide:
                best = piece
                break
    return best


def pieces_in_the_way(
    extent: tuple[float, float], obstacles: Obstacles, area_K: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Choose pieces to leave out so that all free floor hangs together.

    Args:
        extent: of the house.
        obstacles: walls and parts of furniture at the agent's height.
        area_K: ground that each piece takes; the smallest that helps is chosen.

    Returns:
        gone_K, true for pieces that must go, and free_YX, true where the agent can then go.
    """
    shape = (round(extent[1] / CELL), round(extent[0] / CELL))
    gone_K = np.zeros(len(area_K), np.bool_)
    free_YX = np.zeros(shape, np.bool_)
    # First passages that hold for any grid and slant, then nooks that only the agent's own radius
    # opens and furniture shuts in.
    for radius in (PASSAGE_RADIUS, POCKET_RADIUS):
        free_YX = _connect(shape, obstacles, area_K, gone_K, radius)
    return gone_K, free_YX


def _connect(
    shape: tuple[int, int],
    obstacles: Obstacles,
    area_K: NDArray[np.float64],
    gone_K: NDArray[np.bool_],
    radius: float,
) -> NDArray[np.bool_]:
    """Mark pieces in `gone_K` until no pocket is left; return the free floor."""
    owner_YX = np.empty(shape, np.int64)
    # Stable, so that pieces of equal ground come in one order on every machine.
    order = np.argsort(area_K, kind="stable")
    while True:
        owner_YX[:] = _FREE
        _mark(owner_YX, obstacles, gone_K, radius, CELL)
        label_YX, sizes = connected_parts(owner_YX == _FREE)
        sizes[0] = 0  # what is not free
        main = int(np.argmax(sizes))
        pockets = [i for i in np.flatnonzero(sizes > LARGEST_POCKET).tolist() if i != main]
        if not pockets:
            return label_YX == main
        before = int(gone_K.sum())
        in_main = int(np.argmax(label_YX == main))
        for pocket in pockets:
            pocket_YX = label_YX == pocket
            # Pieces that border the pocket own the cells right around it.
            wider_YX: NDArray[np.bool_] = np.asarray(ndimage.binary_dilation(pocket_YX), bool)
            touches_K = np.isin(np.arange(len(area_K)), owner_YX[wider_YX])
            if (touches_K & gone_K).any():
                continue  # what was just taken away for another pocket may open this one too
            by_area = order[touches_K[order]].tolist()
            start = int(np.argmax(pocket_YX))
            chosen = next((k for k in by_area if _opens(owner_YX, start, in_main, k)), -1)
            if chosen < 0:  # several pieces together shut the pocket in: begin with one of them
                rows, columns = np.nonzero(pocket_YX)
                x_C = (columns.astype(np.float64) + 0.5) * CELL
                y_C = (rows.astype(np.float64) + 0.5) * CELL
                chosen = int(_nearest_blocker(x_C, y_C, obstacles, area_K, gone_K, 2 * radius))
            if chosen >= 0:
                gone_K[chosen] = True
        # No piece helps what is left.
        if int(gone_K.sum()) == before:
            return label_YX == main


def reachable_slots(receptacles: Sequence[Receptacle], free_YX: NDArray[np.bool_]) -> int:
    """Count the places for objects of a hand's breadth that an agent can come near to."""
    slots = 0
    reach = round(SLOT_REACH / CELL)
    for place in receptacles:
        if place.clearance < SLOT:
            continue
        columns, rows = int(2 * place.half_x / SLOT + 0.2), int(2 * place.half_y / SLOT + 0.2)
        row, column = int(place.y / CELL), int(place.x / CELL)
        near_YX = free_YX[
            max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1
        ]
        if columns and rows and near_YX.any():
            slots += columns * rows
    return slots
