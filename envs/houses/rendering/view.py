"""Culling: the rooms, solids and screen rectangles that a camera may see.

Everything here only leaves out what certainly covers no pixel; which pixel shows what is decided
in `pixel.py`. Scalar code, compiled for the CPU and for CUDA alike.

Rectangles are columns [x0, x1) and rows [y0, y1). Shapes as in `tables.py`, and
C the numbers of one camera, W its (columns, rows) of pixels.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.rendering.camera import EYE, FORWARD, RIGHT, STEP, UP
from envs.houses.rendering.lanes import Number
from envs.houses.rendering.pixel import HALF, ONE, ZERO
from envs.houses.rendering.tables import (
    CENTER,
    COSINE,
    DOOR_ALONG_X,
    DOOR_CENTER,
    DOOR_HALF_WIDTH,
    DOOR_HEIGHT,
    DOOR_ROOMS,
    HIGH,
    LOW,
    NUM_DOORS,
    NUM_ROOMS,
    SINE,
    Tables,
)
from envs.houses.scene import FloatArray

Vector = tuple[Number, Number, Number]
Box = tuple[Vector, Vector, Vector, Vector]
"""Centre and three half axes."""
Rectangle = tuple[int, int, int, int]

CLIP: Final = np.float32(1e-3)
"""Depth at which solids that reach behind the eye are cut for their rectangle. Far below the near
plane, so nothing visible is lost."""
FAR_COLUMN: Final = np.float32(1e6)
"""A position in the image at depth 1 that every other one is less than."""
SLACK: Final = np.float32(0.02)
"""Pixels added around rectangles for rounding."""
THRESHOLD: Final = np.float32(0.1)
"""Metres from a door's plane below which the door bounds nothing: the eye stands in it."""


class Sight(NamedTuple):
    """How far one camera may see."""

    size_W: NDArray[np.int32]
    window_R4: NDArray[np.int32]
    seen: Number
    """What `open_windows` returned."""
    frustum: Vector
    """What `frustum_of` returned."""


@njit
def to_camera(camera_C: FloatArray, x: Number, y: Number, z: Number) -> Vector:
    """Return a house vector's components to the right, up, and along the optical axis."""
    return (
        camera_C[RIGHT] * x + camera_C[RIGHT + 1] * y + camera_C[RIGHT + 2] * z,
        camera_C[UP] * x + camera_C[UP + 1] * y + camera_C[UP + 2] * z,
        camera_C[FORWARD] * x + camera_C[FORWARD + 1] * y + camera_C[FORWARD + 2] * z,
    )


@njit
def _corner(box: Box, k: int) -> Vector:
    """Return corner k of a box: bit a of k chooses the end of axis a."""
    center, a, b, c = box
    sa = ONE if k & 1 else -ONE
    sb = ONE if k & 2 else -ONE
    sc = ONE if k & 4 else -ONE
    return (
        center[0] + sa * a[0] + sb * b[0] + sc * c[0],
        center[1] + sa * a[1] + sb * b[1] + sc * c[1],
        center[2] + sa * a[2] + sb * b[2] + sc * c[2],
    )


@njit
def _clipped_span(box: Box) -> tuple[Number, Number, Number, Number]:
    """Return the image bounds at depth 1 of where a box's edges cross the clip plane."""
    left, right, low, high = FAR_COLUMN, -FAR_COLUMN, FAR_COLUMN, -FAR_COLUMN
    for k in range(8):
        p = _corner(box, k)
        for axis in range(3):
            # Each edge once, from its lower end.
            if k & (1 << axis):
                continue
            q = _corner(box, k | (1 << axis))
            if (p[2] > CLIP) == (q[2] > CLIP):
                continue
            share = (CLIP - p[2]) / (q[2] - p[2])
            x = (p[0] + share * (q[0] - p[0])) / CLIP
            y = (p[1] + share * (q[1] - p[1])) / CLIP
            left, right = min(left, x), max(right, x)
            low, high = min(low, y), max(high, y)
    return left, right, low, high


@njit
def rectangle_of(camera_C: FloatArray, box: Box, size_W: NDArray[np.int32]) -> Rectangle:
    """Return the pixels that a box may cover, its vectors being camera components."""
    left, right, low, high = FAR_COLUMN, -FAR_COLUMN, FAR_COLUMN, -FAR_COLUMN
    ahead = 0
    for k in range(8):
        x, y, depth = _corner(box, k)
        if depth > CLIP:
            inverse = ONE / depth
            x *= inverse
            y *= inverse
            left, right = min(left, x), max(right, x)
            low, high = min(low, y), max(high, y)
            ahead += 1
    if ahead == 0:
        return 0, 0, 0, 0
    if ahead < 8:
        # A box that reaches behind the eye is bounded by its corners ahead and by where its
        # edges cross the clip plane; its corners behind would land on the wrong side.
        near = _clipped_span(box)
        left, right = min(left, near[0]), max(right, near[1])
        low, high = min(low, near[2]), max(high, near[3])
    per_step = ONE / camera_C[STEP]
    middle_x = HALF * (np.float32(size_W[0]) - ONE)
    middle_y = HALF * (np.float32(size_W[1]) - ONE)
    end_x, end_y = np.float32(size_W[0]), np.float32(size_W[1])
    # Pixel centres are whole numbers: the first at or after the start, one past the last.
    x0 = math.ceil(max(middle_x + left * per_step - SLACK, ZERO))
    x1 = math.floor(min(middle_x + right * per_step + SLACK + ONE, end_x))
    y0 = math.ceil(max(middle_y - high * per_step - SLACK, ZERO))
    y1 = math.floor(min(middle_y - low * per_step + SLACK + ONE, end_y))
    return int(x0), int(y0), int(x1), int(y1)


@njit
def _door_rectangle(
    camera_C: FloatArray, door_D: FloatArray, size_W: NDArray[np.int32]
) -> Rectangle:
    """Return the pixels through which a door's opening may show."""
    x = door_D[DOOR_CENTER] - camera_C[EYE]
    y = door_D[DOOR_CENTER + 1] - camera_C[EYE + 1]
    half_width, half_height = door_D[DOOR_HALF_WIDTH], HALF * door_D[DOOR_HEIGHT]
    along_x = door_D[DOOR_ALONG_X] > ZERO
    across, beside = (y, x) if along_x else (x, y)
    if abs(across) < THRESHOLD and abs(beside) < half_width + THRESHOLD:
        return 0, 0, int(size_W[0]), int(size_W[1])
    center = to_camera(camera_C, x, y, half_height - camera_C[EYE + 2])
    wide = (
        to_camera(camera_C, half_width, ZERO, ZERO)
        if along_x
        else to_camera(camera_C, ZERO, half_width, ZERO)
    )
    high = to_camera(camera_C, ZERO, ZERO, half_height)
    return rectangle_of(camera_C, (center, wide, high, (ZERO, ZERO, ZERO)), size_W)


@njit
def _widen(window_R4: NDArray[np.int32], room: int, x0: int, y0: int, x1: int, y1: int) -> bool:
    """Grow a room's window in place to hold a rectangle; return whether it grew."""
    window = window_R4[room]
    if x0 >= x1 or y0 >= y1:
        return False
    if window[0] >= window[2]:
        window[0], window[1], window[2], window[3] = x0, y0, x1, y1
        return True
    grew = x0 < window[0] or y0 < window[1] or x1 > window[2] or y1 > window[3]
    window[0], window[1] = min(window[0], x0), min(window[1], y0)
    window[2], window[3] = max(window[2], x1), max(window[3], y1)
    return grew


@njit
def open_windows(
    tables: Tables,
    slot: int,
    camera_C: FloatArray,
    size_W: NDArray[np.int32],
    window_R4: NDArray[np.int32],
) -> Number:
    """Find the rooms in sight and the part of the picture that may show each.

    Starts in the eye's room and goes through doors, each of which narrows the view. An eye in no
    room sees all. Fills `window_R4` with a rectangle for each room, empty for rooms out of sight,
    and returns a bit for each room in sight.
    """
    num_rooms = tables.count_S3[slot, NUM_ROOMS]
    num_doors = tables.count_S3[slot, NUM_DOORS]
    x, y = camera_C[EYE], camera_C[EYE + 1]
    home = -1
    for r in range(num_rooms):
        room = tables.room_SR4[slot, r]
        window_R4[r, 0], window_R4[r, 1], window_R4[r, 2], window_R4[r, 3] = 0, 0, 0, 0
        if room[0] <= x and x <= room[2] and room[1] <= y and y <= room[3]:
            home = r
    if home < 0:
        for r in range(num_rooms):
            _widen(window_R4, r, 0, 0, size_W[0], size_W[1])
        return (np.int64(1) << np.int64(num_rooms)) - np.int64(1)
    _widen(window_R4, home, 0, 0, size_W[0], size_W[1])
    one = np.int64(1)
    seen = waiting = one << np.int64(home)
    # A room waits again whenever its window grew. Windows only grow, and not beyond the picture, so
    # this ends, also where doors lead round in a circle.
    while waiting != 0:
        r = 0
        while not (waiting >> np.int64(r)) & one:
            r += 1
        waiting ^= one << np.int64(r)
        here = window_R4[r]
        for d in range(num_doors):
            door_D = tables.door_SD7[slot, d]
            a, b = int(door_D[DOOR_ROOMS]), int(door_D[DOOR_ROOMS + 1])
            if r not in (a, b):
                continue
            other = b if r == a else a
            x0, y0, x1, y1 = _door_rectangle(camera_C, door_D, size_W)
            x0, y0 = max(x0, here[0]), max(y0, here[1])
            x1, y1 = min(x1, here[2]), min(y1, here[3])
            if _widen(window_R4, other, x0, y0, x1, y1):
                waiting |= one << np.int64(other)
                seen |= one << np.int64(other)
    return seen


@njit
def is_outside(bound_4: FloatArray, camera_C: FloatArray, frustum: Vector) -> bool:
    """Return whether a sphere lies wholly outside the frustum of `frustum_of`."""
    right, up, depth = to_camera(
        camera_C,
        bound_4[0] - camera_C[EYE],
        bound_4[1] - camera_C[EYE + 1],
        bound_4[2] - camera_C[EYE + 2],
    )
    radius = bound_4[3]
    tan_x, tan_y, spread = frustum
    # A sphere reaches over a plane at an angle by its radius divided by the angle's cosine.
    return (
        depth < -radius
        or abs(right) > depth * tan_x + radius * spread
        or abs(up) > depth * tan_y + radius * spread
    )


@njit
def frustum_of(camera_C: FloatArray, size_W: NDArray[np.int32]) -> Vector:
    """Return the half view's tangents, and how far a unit sphere may reach over its planes."""
    tan_x = HALF * np.float32(size_W[0]) * camera_C[STEP]
    tan_y = HALF * np.float32(size_W[1]) * camera_C[STEP]
    # One factor serves both pairs of planes. The larger errs on the safe side.
    steepest = max(tan_x, tan_y)
    return tan_x, tan_y, math.sqrt(ONE + steepest * steepest)


@njit
def solid_rectangle(
    solid_G: FloatArray, camera_C: FloatArray, size_W: NDArray[np.int32]
) -> Rectangle:
    """Return the pixels that a solid's bounding box may cover."""
    cosine, sine = solid_G[COSINE], solid_G[SINE]
    mx = HALF * (solid_G[LOW] + solid_G[HIGH])
    my = HALF * (solid_G[LOW + 1] + solid_G[HIGH + 1])
    mz = HALF * (solid_G[LOW + 2] + solid_G[HIGH + 2])
    hx = HALF * (solid_G[HIGH] - solid_G[LOW])
    hy = HALF * (solid_G[HIGH + 1] - solid_G[LOW + 1])
    hz = HALF * (solid_G[HIGH + 2] - solid_G[LOW + 2])
    center = to_camera(
        camera_C,
        solid_G[CENTER] - camera_C[EYE] + cosine * mx - sine * my,
        solid_G[CENTER + 1] - camera_C[EYE + 1] + sine * mx + cosine * my,
        solid_G[CENTER + 2] - camera_C[EYE + 2] + mz,
    )
    a = to_camera(camera_C, cosine * hx, sine * hx, ZERO)
    b = to_camera(camera_C, -sine * hy, cosine * hy, ZERO)
    c = to_camera(camera_C, ZERO, ZERO, hz)
    return rectangle_of(camera_C, (center, a, b, c), size_W)


@njit
def visible_rectangle(
    tables: Tables, slot: int, p: int, camera_C: FloatArray, sight: Sight
) -> Rectangle:
    """Return the pixels in which solid p may show, cut to the windows of its rooms."""
    # Cheap tests first: bits of rooms, then a sphere, and only then eight corners.
    rooms = tables.rooms_SP[slot, p] & sight.seen
    if rooms == 0 or is_outside(tables.bound_SP4[slot, p], camera_C, sight.frustum):
        return 0, 0, 0, 0
    x0, y0, x1, y1 = solid_rectangle(tables.solid_SPG[slot, p], camera_C, sight.size_W)
    # What reaches into several rooms may show in the window of any of them.
    # Starts inside out, so that the first window replaces it.
    left, top, right, bottom = x1, y1, x0, y0
    r = 0
    while rooms != 0:
        if rooms & np.int64(1):
            window = sight.window_R4[r]
            left, top = min(left, window[0]), min(top, window[1])
            right, bottom = max(right, window[2]), max(bottom, window[3])
        rooms >>= np.int64(1)
        r += 1
    return max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)
