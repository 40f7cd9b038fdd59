"""Distances that the agent has to walk: fields over free space.

A field holds the distance from every node to the nearest of some goals: |grad u| = 1 away from the
goals, solved by second-order fast marching and sampled at continuous positions. Fields are float32
metres, infinite where nothing can be reached.

`march` takes nodes from an untidy queue: buckets much narrower than a cell, in any order within a
bucket, which is faster than a heap and adds less error than the scheme has. Its arithmetic is in
cells. Its grids are flat and padded with a blocked rim, so that stencils need no bounds.

Shapes: K goals or points, Y and X grid rows and columns.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from envs.houses.navigation.grid import FloatGrid, NavGrid, segment_free, slack_at

PAD: Final = 2
"""Width of the blocked rim."""
_BUCKETS_PER_CELL: Final = 8
_NUM_BUCKETS: Final = 64
"""Power of two; the queue's values span fewer than _NUM_BUCKETS / _BUCKETS_PER_CELL cells."""
_SEED_CELLS: Final = 3.0
"""Nodes this near a goal in plain sight get their exact distance: there the field bends most."""
_ON_NODE: Final = 1e-3
"""A goal this many cells from a node is that node."""


@njit(cache=True, nogil=True, inline="always")
def _axis(near: float, far: float) -> tuple[float, float]:
    """Return the (weight, value) of one axis in the quadratic: second order where it is upwind."""
    # (3 u - 4 near + far)^2 / 4 = 2.25 (u - (4 near - far) / 3)^2. A far node that is not accepted
    # is infinite and fails the test, which leaves the first order.
    if far <= near:
        return 2.25, (4.0 * near - far) / 3.0
    return 1.0, near


@njit(cache=True, nogil=True)
def _solve(known: FloatGrid, i: int, stride: int) -> float:
    """Solve |grad u| = 1 at flat index i from its accepted neighbours."""
    # Walls and nodes that are not accepted are infinite, so the smaller neighbour is upwind.
    x_near = known[i - 1]
    x_far = known[i - 2]
    if known[i + 1] < x_near:
        x_near = known[i + 1]
        x_far = known[i + 2]
    y_near = known[i - stride]
    y_far = known[i - 2 * stride]
    if known[i + stride] < y_near:
        y_near = known[i + stride]
        y_far = known[i + 2 * stride]
    # At most one axis has no accepted neighbour, as `march` asks beside accepted nodes only.
    if x_near == np.inf:
        weight, value = _axis(y_near, y_far)
        return value + 1.0 / math.sqrt(weight)
    if y_near == np.inf:
        weight, value = _axis(x_near, x_far)
        return value + 1.0 / math.sqrt(weight)
    wx, vx = _axis(x_near, x_far)
    wy, vy = _axis(y_near, y_far)
    a = wx + wy
    b = wx * vx + wy * vy
    # wx (u - vx)^2 + wy (u - vy)^2 = 1; if its larger root is not upwind of both, one axis counts.
    inside = b * b - a * (wx * vx * vx + wy * vy * vy - 1.0)
    if inside >= 0.0:
        u = (b + math.sqrt(inside)) / a
        if u >= max(x_near, y_near):
            return u
    return min(vx + 1.0 / math.sqrt(wx), vy + 1.0 / math.sqrt(wy))


@njit(cache=True, nogil=True)
def march(
    value: FloatGrid, open_: NDArray[np.bool_], stride: int, seeds: NDArray[np.int64]
) -> FloatGrid:
    """Grow accepted values from seeds over a flat padded grid, in cells; changes its arguments."""
    known = np.full(len(value), np.float32(np.inf), np.float32)
    head = np.full(_NUM_BUCKETS, -1, np.int64)
    # A node is entered at most once for each neighbour that lowers it, and no entry is reused.
    capacity = 4 * len(value) + len(seeds)
    entry_node = np.empty(capacity, np.int32)
    entry_next = np.empty(capacity, np.int32)
    used = 0
    waiting = 0
    lowest = np.inf
    for i in seeds:
        lowest = min(lowest, value[i])
        open_[i] = False  # seeds are exact; the scheme would lower those around a point
    for i in seeds:
        bucket = int(value[i] * _BUCKETS_PER_CELL) & (_NUM_BUCKETS - 1)
        entry_node[used] = i
        entry_next[used] = head[bucket]
        head[bucket] = used
        used += 1
        waiting += 1
    current = int(lowest * _BUCKETS_PER_CELL) if waiting > 0 else 0
    while waiting > 0:
        slot = current & (_NUM_BUCKETS - 1)
        entry = head[slot]
        if entry < 0:
            current += 1
            continue
        head[slot] = entry_next[entry]
        waiting -= 1
        i = int(entry_node[entry])
        if known[i] < np.inf:
            continue  # an older entry of a node that was lowered meanwhile and is done
        known[i] = value[i]
        for offset in (-1, 1, -stride, stride):
            j = i + offset
            if not open_[j] or known[j] < np.inf:
                continue
            # Rounded as it is stored, or the same distance might count as lower again.
            u = np.float32(_solve(known, j, stride))
            if u < value[j]:
                value[j] = u
                # Not behind the bucket in hand, which would only come round after all others.
                bucket = max(int(u * _BUCKETS_PER_CELL), current) & (_NUM_BUCKETS - 1)
                entry_node[used] = j
                entry_next[used] = head[bucket]
                head[bucket] = used
                used += 1
                waiting += 1
    return known


@njit(cache=True, nogil=True)
def _seed_disc(
    value_YX: FloatGrid,
    domain_YX: NDArray[np.bool_],
    slack_YX: FloatGrid,
    cell: float,
    x: float,
    y: float,
) -> None:
    """Lower the values of the nodes in plain sight around a goal; the padded grid is changed."""
    rows, columns = domain_YX.shape
    # With that much to spare all around, nothing stands between the goal and any node of the disc.
    open_disc = slack_at(slack_YX, cell, x, y) >= _SEED_CELLS * cell
    fx = x / cell - 0.5
    fy = y / cell - 0.5
    for iy in range(max(math.ceil(fy - _SEED_CELLS), 0), min(int(fy + _SEED_CELLS) + 1, rows)):
        for ix in range(
            max(math.ceil(fx - _SEED_CELLS), 0), min(int(fx + _SEED_CELLS) + 1, columns)
        ):
            away = math.hypot(ix - fx, iy - fy)
            if away > _SEED_CELLS or not domain_YX[iy, ix]:
                continue
            if value_YX[iy + PAD, ix + PAD] <= away:
                continue
            if open_disc or segment_free(
                slack_YX, cell, (x, y), ((ix + 0.5) * cell, (iy + 0.5) * cell), 0.0
            ):
                value_YX[iy + PAD, ix + PAD] = away


@njit(cache=True, nogil=True)
def _field(
    domain_YX: NDArray[np.bool_], slack_YX: FloatGrid, cell: float, goals_K2: NDArray[np.float64]
) -> FloatGrid:
    """Solve the field of goals in free space."""
    rows, columns = domain_YX.shape
    stride = columns + 2 * PAD
    value_YX = np.full((rows + 2 * PAD, stride), np.float32(np.inf), np.float32)
    open_YX = np.zeros((rows + 2 * PAD, stride), np.bool_)
    open_YX[PAD:-PAD, PAD:-PAD] = domain_YX
    off_node = np.zeros(len(goals_K2), np.bool_)
    for k in range(len(goals_K2)):
        fx = goals_K2[k, 0] / cell - 0.5
        fy = goals_K2[k, 1] / cell - 0.5
        ix = round(fx)
        iy = round(fy)
        off_node[k] = math.hypot(fx - ix, fy - iy) > _ON_NODE
        if not off_node[k]:
            value_YX[iy + PAD, ix + PAD] = 0.0
    for k in range(len(goals_K2)):
        x = goals_K2[k, 0]
        y = goals_K2[k, 1]
        # A goal among goals, as in a field of viewpoints, has no neighbours to give a value to.
        if off_node[k] or _on_rim(value_YX, round(x / cell - 0.5), round(y / cell - 0.5)):
            _seed_disc(value_YX, domain_YX, slack_YX, cell, x, y)
    value = value_YX.reshape(-1)
    seeds = np.flatnonzero(value < np.inf)
    known_YX = march(value, open_YX.reshape(-1), stride, seeds).reshape(value_YX.shape)
    return known_YX[PAD:-PAD, PAD:-PAD] * np.float32(cell)


@njit(cache=True, nogil=True)
def _on_rim(value_YX: FloatGrid, ix: int, iy: int) -> bool:
    """Tell whether a goal's node has a neighbour that is no goal."""
    for dy in range(PAD - 1, PAD + 2):
        for dx in range(PAD - 1, PAD + 2):
            if value_YX[iy + dy, ix + dx] > 0.0:
                return True
    return False


@njit(cache=True, nogil=True)
def _first_blocked(
    free_YX: NDArray[np.bool_], slack_YX: FloatGrid, cell: float, goals_K2: NDArray[np.float64]
) -> int:
    """Return the index of the first goal outside free space, -1 if there is none."""
    rows, columns = free_YX.shape
    for k in range(len(goals_K2)):
        fx = goals_K2[k, 0] / cell - 0.5
        fy = goals_K2[k, 1] / cell - 0.5
        if not (-0.5 <= fx < columns - 0.5 and -0.5 <= fy < rows - 0.5):
            return k
        if math.hypot(fx - round(fx), fy - round(fy)) <= _ON_NODE:
            if not free_YX[round(fy), round(fx)]:
                return k
        elif slack_at(slack_YX, cell, goals_K2[k, 0], goals_K2[k, 1]) < 0.0:
            return k
    return -1


def distance_field(grid: NavGrid, goals_K2: ArrayLike) -> FloatGrid:
    """Return every node's walking distance to the nearest of some goals.

    Args:
        grid: The house's free space.
        goals_K2: Goal positions (x, y) in free space, such as viewpoints.

    Returns:
        Metres, float32 (Y, X); infinite outside `NavGrid.domain_YX` and where no goal is reached.

    Raises:
        ValueError: If there is no goal, or one outside free space.
    """
    goals = np.ascontiguousarray(goals_K2, dtype=np.float64).reshape(-1, 2)
    if len(goals) == 0:
        raise ValueError("distance_field: goals_K2 must hold a goal, got none. Pass viewpoints.")
    bad = _first_blocked(grid.free_YX, grid.slack_YX, grid.cell, goals)
    if bad >= 0:
        raise ValueError(
            f"distance_field: goals must lie in free space, got {tuple(goals[bad].tolist())}. "
            "Take them from NavGrid.free_nodes() or test them with NavGrid.is_free()."
        )
    return _field(grid.domain_YX, grid.slack_YX, grid.cell, goals)


@njit(cache=True, nogil=True)
def _beyond(field_YX: FloatGrid, iy: int, ix: int, dy: int, dx: int, cell: float) -> float:
    """Extend the field from a node one cell along (dy, dx), by the slope behind the node."""
    here = field_YX[iy, ix]
    by = iy - dy
    bx = ix - dx
    if 0 <= by < field_YX.shape[0] and 0 <= bx < field_YX.shape[1]:
        behind = field_YX[by, bx]
        if behind < np.inf:
            # The field's slope is 1, so a distance changes by a cell's width at most.
            return here + min(max(here - behind, -cell), cell)
    return here


@njit(cache=True, nogil=True)
def _corner(field_YX: FloatGrid, iy: int, ix: int, dy: int, dx: int, cell: float) -> float:
    """Return the field at a corner of a patch, extended from its other corners if blocked.

    (dy, dx) points from the opposite corner to this one.
    """
    if field_YX[iy, ix] < np.inf:
        return field_YX[iy, ix]
    total = 0.0
    count = 0
    if field_YX[iy, ix - dx] < np.inf:
        total += _beyond(field_YX, iy, ix - dx, 0, dx, cell)
        count += 1
    if field_YX[iy - dy, ix] < np.inf:
        total += _beyond(field_YX, iy - dy, ix, dy, 0, cell)
        count += 1
    if count > 0:
        return total / count
    return field_YX[iy - dy, ix - dx]


@njit(cache=True, nogil=True)
def sample(field_YX: FloatGrid, cell: float, x: float, y: float) -> float:
    """Return the field at a position in free space.

    Bilinear; where a wall cuts the patch, its blocked corners are extended from the free ones by
    the slope behind them, so that distances keep changing up to the wall. Infinite where no corner
    has a distance.
    """
    # Short of the last node, so that the patch's far corners exist.
    fx = min(max(x / cell - 0.5, 0.0), field_YX.shape[1] - 1.001)
    fy = min(max(y / cell - 0.5, 0.0), field_YX.shape[0] - 1.001)
    ix = int(fx)
    iy = int(fy)
    fx -= ix
    fy -= iy
    low = (1.0 - fx) * _corner(field_YX, iy, ix, -1, -1, cell) + fx * _corner(
        field_YX, iy, ix + 1, -1, 1, cell
    )
    high = (1.0 - fx) * _corner(field_YX, iy + 1, ix, 1, -1, cell) + fx * _corner(
        field_YX, iy + 1, ix + 1, 1, 1, cell
    )
    if not (low < np.inf and high < np.inf):
        return np.inf
    # Extended corners may be negative beside a goal.
    return max((1.0 - fy) * low + fy * high, 0.0)
