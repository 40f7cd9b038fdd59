"""One picture on the CPU: solids into a canvas, eight pixels at a time, and the canvas into images.

The canvas is a z-buffer of 1 / depth that notes which face of which solid is nearest. Images are
painted from it afterwards, so that a pixel is coloured once, however many solids it was tested
against. One canvas serves one thread, picture after picture. Many rows are drawn in `cpu.py`.

Shapes as in `tables.py`, and Q drawn solids (from 1 on; 0 is nothing), K the numbers of
one shape, A of one look, I faces of drawn solids or instance ids, HW pixels of the padded canvas,
C the numbers of one camera, W its (columns, rows).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.rendering.color import (
    LOOK_SIZE,
    TILE_OFFSET,
    blend,
    colors_of,
    curved_hit,
    curved_row,
    flat_hit,
    flat_row,
    is_flat,
    make_look,
    texel_of,
)
from envs.houses.rendering.lanes import (
    LANES,
    Number,
    gather,
    load,
    select,
    spread,
    store,
    store_bytes,
    store_shorts,
)
from envs.houses.rendering.pixel import (
    BOX,
    CYLINDER,
    ONE,
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
from envs.houses.rendering.tables import INSTANCE, KIND, MATERIAL, NUM_PRIMITIVES, Atlas, Tables
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
    """Where the look of a face is in `look_IA`, 0 while it is not made."""
    look_IA: FloatArray
    packed_W: NDArray[np.int32]
    """Colours of one pixel row, with room for a vector that starts at its last pixel."""


def new_canvas(width: int, height: int, tables: Tables) -> Canvas:
    """Return a canvas for pictures of any slot of the tables."""
    stride = -(-width // LANES) * LANES
    num_solids = tables.rooms_SP.shape[1] + 1
    # A ray enters a solid through at most three of its faces, so no more than those are looked at.
    num_looks = num_solids * 3 + 1
    return Canvas(
        # Runs of a face begin at any column, so the last vector of depths may reach over the end.
        # Faces are loaded at multiples of LANES only, which needs no such room.
        inverse_HW=np.zeros(height * stride + LANES, np.float32),
        face_HW=np.zeros(height * stride, np.int32),
        column_W=np.arange(stride + LANES, dtype=np.float32),
        window_R4=np.zeros((max(1, tables.room_SR4.shape[1]), 4), np.int32),
        solid_Q=np.zeros(num_solids, np.int32),
        label_Q=np.zeros(num_solids, np.int32),
        shape_QK=np.zeros((num_solids, SHAPE_SIZE), np.float32),
        look_of_I=np.zeros(num_solids * FACES, np.int32),
        look_IA=np.zeros((num_looks, LOOK_SIZE), np.float32),
        packed_W=np.zeros(stride + LANES, np.int32),
    )


@njit
def stride_of(canvas: Canvas) -> int:
    """Return the pixels from one row of the canvas to the next, a multiple of `LANES`."""
    return len(canvas.column_W) - LANES


@njit(forceinline=True)
def _keep_nearer(canvas: Canvas, at: int, nearest: Number, face: Number) -> None:
    """Put eight pixels of a solid on the canvas where nothing nearer is."""
    before = load(canvas.inverse_HW, at)
    # Strictly nearer, so that of two equal depths the solid that was drawn first stays.
    nearer = nearest > before
    store(canvas.inverse_HW, at, select(nearer, nearest, before))
    store(canvas.face_HW, at, select(nearer, face, load(canvas.face_HW, at)))


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
            _keep_nearer(canvas, j * stride + i, nearest, face)


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
            _keep_nearer(canvas, j * stride + i, nearest, face)


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
            _keep_nearer(canvas, j * stride + i, nearest, face)


@njit
def draw_solids(
    tables: Tables, slot: int, camera_C: FloatArray, size_W: NDArray[np.int32], canvas: Canvas
) -> None:
    """Draw all that the camera may see of a slot. Overwrites the canvas."""
    pixels = size_W[1] * stride_of(canvas)
    canvas.inverse_HW[:pixels] = ZERO
    # Solid 0 is nothing, with label 0 and black: a pixel that stays so needs no test later.
    canvas.face_HW[:pixels] = 0
    seen = open_windows(tables, slot, camera_C, size_W, canvas.window_R4)
    sight = Sight(size_W, canvas.window_R4, seen, frustum_of(camera_C, size_W))
    drawn = 0
    for p in range(tables.count_S3[slot, NUM_PRIMITIVES]):
        x0, y0, x1, y1 = visible_rectangle(tables, slot, p, camera_C, sight)
        if x0 >= x1 or y0 >= y1:
            continue
        # Vectors start at multiples of LANES. Rectangles leave out only what cannot be seen, so to
        # test a few more pixels changes nothing.
        rectangle = (x0 // LANES * LANES, y0, x1, y1)
        kind = tables.label_SPL[slot, p, KIND]
        # The next number, which is taken only if the solid can be seen.
        shape_K = canvas.shape_QK[drawn + 1]
        if not make_shape(tables.solid_SPG[slot, p], kind, camera_C, shape_K):
            continue
        drawn += 1
        canvas.solid_Q[drawn] = p
        # Looks hold the camera, so those of the picture before are forgotten.
        canvas.look_of_I[drawn * FACES : drawn * FACES + FACES] = 0
        if kind == BOX:
            _draw_box(canvas, shape_K, drawn * FACES, rectangle)
        elif kind == CYLINDER:
            _draw_cylinder(canvas, shape_K, drawn * FACES, rectangle)
        else:
            _draw_ellipsoid(canvas, shape_K, drawn * FACES, rectangle)
    canvas.solid_Q[0] = drawn


@njit
def to_depth(canvas: Canvas, size_W: NDArray[np.int32]) -> None:
    """Turn the canvas's 1 / depth into depth, in place."""
    for at in range(0, size_W[1] * stride_of(canvas), LANES):
        inverse = load(canvas.inverse_HW, at)
        nothing = inverse <= ZERO  # lanes take both branches, so a 1 stands in for the 0
        store(canvas.inverse_HW, at, select(nothing, ZERO, ONE / select(nothing, ONE, inverse)))


@njit
def paint_depth(canvas: Canvas, depth_HW: FloatArray) -> None:
    """Write the depth image, after `to_depth`."""
    stride = stride_of(canvas)
    height, width = depth_HW.shape
    for j in range(height):
        for i in range(width):
            depth_HW[j, i] = canvas.inverse_HW[j * stride + i]


@njit
def _note_labels(tables: Tables, slot: int, canvas: Canvas, label: int) -> None:
    """Write one kind of label of the drawn solids into `canvas.label_Q`."""
    for q in range(1, canvas.solid_Q[0] + 1):
        canvas.label_Q[q] = tables.label_SPL[slot, canvas.solid_Q[q], label]


@njit
def paint_label(
    tables: Tables, slot: int, canvas: Canvas, label: int, image_HW: NDArray[np.int16]
) -> None:
    """Write the semantic or instance image."""
    stride = stride_of(canvas)
    height, width = image_HW.shape
    _note_labels(tables, slot, canvas, label)
    whole = width // LANES * LANES
    for j in range(height):
        for i in range(0, whole, LANES):
            solid = load(canvas.face_HW, j * stride + i) >> np.int32(FACE_BITS)
            store_shorts(image_HW, j * width + i, gather(canvas.label_Q, solid))
        for i in range(whole, width):  # a vector would run into the next row
            image_HW[j, i] = canvas.label_Q[canvas.face_HW[j * stride + i] >> FACE_BITS]


@njit
def count_instances(
    tables: Tables,
    slot: int,
    canvas: Canvas,
    size_W: NDArray[np.int32],
    count_I: NDArray[np.int32],
) -> None:
    """Count the pixels of each instance id, 0 being all else."""
    stride = stride_of(canvas)
    _note_labels(tables, slot, canvas, INSTANCE)
    for j in range(size_W[1]):
        for i in range(size_W[0]):
            count_I[canvas.label_Q[canvas.face_HW[j * stride + i] >> FACE_BITS]] += 1


@njit
def _look_of(tables: Tables, slot: int, canvas: Canvas, atlas: Atlas, face: int, made: int) -> int:
    """Return where the look of a face is; a new one is made there as number `made + 1`."""
    at = canvas.look_of_I[face]
    if at == 0:
        at = made + 1
        canvas.look_of_I[face] = at
        p = canvas.solid_Q[face >> FACE_BITS]
        side = face & (FACES - 1)
        make_look(
            tables.solid_SPG[slot, p],
            tables.material_SM5[slot, tables.label_SPL[slot, p, MATERIAL + side]],
            side if is_flat(tables.label_SPL[slot, p, KIND], side) else -1,
            canvas.shape_QK[face >> FACE_BITS],
            atlas,
            canvas.look_IA[at],
        )
    return at


@njit
def _paint_flat(
    canvas: Canvas, look_A: FloatArray, atlas: Atlas, run: tuple[int, int, int]
) -> None:
    """Paint columns [start, stop) of row j, which show one flat face, and spoil up to 7 more."""
    j, start, stop = run
    at = j * stride_of(canvas)
    row = flat_row(look_A, np.float32(j))
    colors = colors_of(look_A)
    # 1 / depth is affine along the run, so the tile is strongest at one of its ends.
    first = flat_hit(row, np.float32(start), canvas.inverse_HW[at + start])[2]
    last = flat_hit(row, np.float32(stop - 1), canvas.inverse_HW[at + stop - 1])[2]
    if look_A[TILE_OFFSET] == ZERO or (first <= ZERO and last <= ZERO):
        plain = blend(colors, np.int32(0), ZERO, ONE)
        for i in range(start, stop, LANES):
            store(canvas.packed_W, i, spread(np.int32(plain)))
        return
    for i in range(start, stop, LANES):
        u, v, strength = flat_hit(row, load(canvas.column_W, i), load(canvas.inverse_HW, at + i))
        store(canvas.packed_W, i, blend(colors, texel_of(atlas, colors, u, v), strength, ONE))


@njit
def _paint_curved(
    canvas: Canvas,
    row: tuple[Number, ...],
    colors: tuple[Number, ...],
    atlas: Atlas,
    run: tuple[int, int, int],
) -> None:
    """Paint columns [start, stop) of row j, which show one curved face, and spoil up to 7 more."""
    j, start, stop = run
    at = j * stride_of(canvas)
    for i in range(start, stop, LANES):
        u, v, strength, light = curved_hit(
            row, load(canvas.column_W, i), load(canvas.inverse_HW, at + i)
        )
        texel = texel_of(atlas, colors, u, v)
        store(canvas.packed_W, i, blend(colors, texel, strength, light))


@njit
def _unpack_row(canvas: Canvas, j: int, rgb_HW3: NDArray[np.uint8]) -> None:
    """Write the packed colours of a row into the image."""
    width = rgb_HW3.shape[1]
    whole = width // LANES * LANES
    for i in range(0, whole, LANES):
        store_bytes(rgb_HW3, (j * width + i) * 3, load(canvas.packed_W, i))
    for i in range(whole, width):
        color = canvas.packed_W[i]
        for n in range(3):
            rgb_HW3[j, i, n] = np.uint8((color >> (8 * n)) & 255)


@njit
def paint_color(
    tables: Tables, slot: int, canvas: Canvas, atlas: Atlas, rgb_HW3: NDArray[np.uint8]
) -> None:
    """Write the colour image, after `to_depth`.

    Neighbouring pixels mostly show the same face, so rows are painted in runs of one face.
    """
    height, width, _ = rgb_HW3.shape
    made = 0
    for j in range(height):
        at = j * stride_of(canvas)
        stop = 0
        while stop < width:
            start = stop
            face = canvas.face_HW[at + start]
            while stop < width and canvas.face_HW[at + stop] == face:
                stop += 1
            drawn, side = face >> FACE_BITS, face & (FACES - 1)
            if drawn == 0:
                canvas.packed_W[start:stop] = 0
                continue
            look = _look_of(tables, slot, canvas, atlas, face, made)
            made = max(made, look)
            look_A = canvas.look_IA[look]
            p = canvas.solid_Q[drawn]
            kind = tables.label_SPL[slot, p, KIND]
            # A vector may spoil pixels after `stop`. Runs go from left to right, so the next one
            # repairs them.
            run = (j, start, stop)
            if is_flat(kind, side):
                _paint_flat(canvas, look_A, atlas, run)
            else:
                solid_G, shape_K = tables.solid_SPG[slot, p], canvas.shape_QK[drawn]
                row = curved_row(solid_G, kind == CYLINDER, shape_K, look_A, np.float32(j))
                _paint_curved(canvas, row, colors_of(look_A), atlas, run)
        _unpack_row(canvas, j, rgb_HW3)
