"""Drawing on the CPU: solids into a canvas of 1 / depth and faces, eight pixels at a time.

What the faces look like is painted in `raster_paint.py`. One canvas serves one thread, picture
after picture.

Shape suffixes as in `raster_tables.py`, and Q drawn solids (from 1 on; 0 is nothing), K the
numbers of one shape, A of one look, I faces of drawn solids, HW pixels of the padded canvas, C the
numbers of one camera, W its (columns, rows).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.rendering.color import LOOK_SIZE
from envs.houses.rendering.lanes import LANES, select
from envs.houses.rendering.memory import load, store
from envs.houses.rendering.pixel import (
    BOX,
    CYLINDER,
    SHAPE_SIZE,
    ZERO,
    box_hit,
    box_row,
    cylinder_hit,
    cylinder_row,
    ellipsoid_hit,
    ellipsoid_row,
    faces_of,
    make_shape,
)
from envs.houses.rendering.tables import KIND, NUM_PRIMITIVES, Tables
from envs.houses.rendering.view import (
    Rectangle,
    Sight,
    frustum_of,
    open_windows,
    visible_rectangle,
)
from envs.houses.scene import FloatArray

FACE_BITS: Final = 3
FACES: Final = 1 << FACE_BITS
"""Numbers reserved for the faces of one drawn solid: face f of solid q is `q * FACES + f`."""


class Canvas(NamedTuple):
    """Working memory of one thread."""

    inverse_HW: FloatArray
    """1 / depth, later depth; 0 where nothing is."""
    face_HW: NDArray[np.int32]
    column_W: FloatArray
    """The numbers of the columns, with room for a vector that starts at the last one."""
    window_R4: NDArray[np.int32]
    solid_Q: NDArray[np.int32]
    """Which solid was drawn; first their number."""
    label_Q: NDArray[np.int32]
    """The ids of one image, 0 first."""
    shape_QK: FloatArray
    look_of_I: NDArray[np.int32]
    """Where the look of a face is in `look_A`, 0 while it is not made."""
    look_IA: FloatArray
    packed_W: NDArray[np.int32]
    """Colours of one pixel row, with room for a vector that starts at its last pixel."""


def new_canvas(width: int, height: int, tables: Tables) -> Canvas:
    """Return a canvas for pictures of any slot of the tables."""
    stride = -(-width // LANES) * LANES
    num_solids = tables.rooms_SP.shape[1] + 1
    return Canvas(
        inverse_HW=np.zeros(height * stride + LANES, np.float32),
        face_HW=np.zeros(height * stride, np.int32),
        column_W=np.arange(stride + LANES, dtype=np.float32),
        window_R4=np.zeros((max(1, tables.room_SR4.shape[1]), 4), np.int32),
        solid_Q=np.zeros(num_solids, np.int32),
        label_Q=np.zeros(num_solids, np.int32),
        shape_QK=np.zeros((num_solids, SHAPE_SIZE), np.float32),
        look_of_I=np.zeros(num_solids * FACES, np.int32),
        look_IA=np.zeros((num_solids * 3 + 1, LOOK_SIZE), np.float32),
        packed_W=np.zeros(stride + LANES, np.int32),
    )


@njit
def stride_of(canvas: Canvas) -> int:
    """Return the pixels from one row of the canvas to the next, a multiple of `LANES`."""
    return len(canvas.column_W) - LANES


@njit
def _draw_box(canvas: Canvas, shape_K: FloatArray, first: int, rectangle: Rectangle) -> None:
    """Draw a box whose faces are numbered from `first` into the canvas."""
    x0, y0, x1, y1 = rectangle
    stride = stride_of(canvas)
    faces = faces_of(shape_K, first)
    for j in range(y0, y1):
        row = box_row(shape_K, np.float32(j))
        if row[12] <= ZERO:  # the ray moves away from the face above or below that it must enter
            continue
        for i in range(x0, x1, LANES):
            nearest, face = box_hit(row, load(canvas.column_W, i), faces)
            at = j * stride + i
            before = load(canvas.inverse_HW, at)
            nearer = nearest > before
            store(canvas.inverse_HW, at, select(nearer, nearest, before))
            store(canvas.face_HW, at, select(nearer, face, load(canvas.face_HW, at)))


@njit
def _draw_ellipsoid(canvas: Canvas, shape_K: FloatArray, first: int, rectangle: Rectangle) -> None:
    """Draw an ellipsoid into the canvas."""
    x0, y0, x1, y1 = rectangle
    stride = stride_of(canvas)
    face = np.int32(first)
    for j in range(y0, y1):
        row = ellipsoid_row(shape_K, np.float32(j))
        for i in range(x0, x1, LANES):
            nearest = ellipsoid_hit(row, load(canvas.column_W, i))
            at = j * stride + i
            before = load(canvas.inverse_HW, at)
            nearer = nearest > before
            store(canvas.inverse_HW, at, select(nearer, nearest, before))
            store(canvas.face_HW, at, select(nearer, face, load(canvas.face_HW, at)))


@njit
def _draw_cylinder(canvas: Canvas, shape_K: FloatArray, first: int, rectangle: Rectangle) -> None:
    """Draw a cylinder into the canvas."""
    x0, y0, x1, y1 = rectangle
    stride = stride_of(canvas)
    faces = faces_of(shape_K, first)
    for j in range(y0, y1):
        row = cylinder_row(shape_K, np.float32(j))
        for i in range(x0, x1, LANES):
            nearest, face = cylinder_hit(row, load(canvas.column_W, i), faces)
            at = j * stride + i
            before = load(canvas.inverse_HW, at)
            nearer = nearest > before
            store(canvas.inverse_HW, at, select(nearer, nearest, before))
            store(canvas.face_HW, at, select(nearer, face, load(canvas.face_HW, at)))


@njit
def draw(
    tables: Tables, slot: int, camera_C: FloatArray, size_W: NDArray[np.int32], canvas: Canvas
) -> None:
    """Draw all that the camera may see of a slot. Overwrites the canvas."""
    pixels = size_W[1] * stride_of(canvas)
    canvas.inverse_HW[:pixels] = ZERO
    canvas.face_HW[:pixels] = 0
    seen = open_windows(tables, slot, camera_C, size_W, canvas.window_R4)
    sight = Sight(size_W, canvas.window_R4, seen, frustum_of(camera_C, size_W))
    drawn = 0
    for p in range(tables.count_S3[slot, NUM_PRIMITIVES]):
        x0, y0, x1, y1 = visible_rectangle(tables, slot, p, camera_C, sight)
        if x0 >= x1 or y0 >= y1:
            continue
        rectangle = (x0 // LANES * LANES, y0, x1, y1)
        kind = tables.label_SPL[slot, p, KIND]
        shape_K = canvas.shape_QK[drawn + 1]
        if not make_shape(tables.solid_SPG[slot, p], kind, camera_C, shape_K):
            continue
        drawn += 1
        canvas.solid_Q[drawn] = p
        canvas.look_of_I[drawn * FACES : drawn * FACES + FACES] = 0
        if kind == BOX:
            _draw_box(canvas, shape_K, drawn * FACES, rectangle)
        elif kind == CYLINDER:
            _draw_cylinder(canvas, shape_K, drawn * FACES, rectangle)
        else:
            _draw_ellipsoid(canvas, shape_K, drawn * FACES, rectangle)
    canvas.solid_Q[0] = drawn
