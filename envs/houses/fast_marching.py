"""Second-order fast marching on a lattice: |grad u| = 1 away from given values.

Nodes wait in an untidy queue: buckets much narrower than a cell, in any order within a bucket,
which is faster than a heap and adds less error than the scheme has. Arithmetic is in cells.
Grids are flat and padded with a blocked rim, so that stencils need no bounds.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.navigation import FloatGrid

PAD: Final = 2
"""Width of the blocked rim."""
_BUCKETS_PER_CELL: Final = 8
_NUM_BUCKETS: Final = 64
"""Power of two; the queue's values span fewer than _NUM_BUCKETS / _BUCKETS_PER_CELL cells."""


@njit(cache=True, nogil=True, inline="always")
def _axis(near: float, far: float) -> tuple[float, float]:
    """Return the (weight, value) of one axis in the quadratic: second order where it is upwind."""
    if far <= near:
        return 2.25, (4.0 * near - far) / 3.0
    return 1.0, near


@njit(cache=True, nogil=True)
def _solve(known: FloatGrid, i: int, stride: int) -> float:
    """Solve |grad u| = 1 at flat index i from its accepted neighbours."""
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
            continue
        known[i] = value[i]
        for offset in (-1, 1, -stride, stride):
            j = i + offset
            if not open_[j] or known[j] < np.inf:
                continue
            u = np.float32(_solve(known, j, stride))
            if u < value[j]:
                value[j] = u
                bucket = max(int(u * _BUCKETS_PER_CELL), current) & (_NUM_BUCKETS - 1)
                entry_node[used] = j
                entry_next[used] = head[bucket]
                head[bucket] = used
                used += 1
                waiting += 1
    return known
