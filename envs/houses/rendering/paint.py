"""From a drawn canvas to images on the CPU: depth, labels, colours, pixel counts.

Neighbouring pixels mostly show the same face, so rows are painted in runs of one face.

Shape suffixes as in `raster_draw.py`.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.rendering.color import (
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
from envs.houses.rendering.draw import FACE_BITS, FACES, Canvas, stride_of
from envs.houses.rendering.lanes import LANES, Number, select
from envs.houses.rendering.memory import gather, load, spread, store, store_bytes, store_shorts
from envs.houses.rendering.pixel import CYLINDER, ONE, ZERO
from envs.houses.rendering.tables import INSTANCE, KIND, MATERIAL, Atlas, Tables
from envs.houses.scene import FloatArray


@njit
def to_depth(canvas: Canvas, size_W: NDArray[np.int32]) -> None:
    """Turn the canvas's 1 / depth into depth, in place."""
    for at in range(0, size_W[1] * stride_of(canvas), LANES):
        inverse = load(canvas.inverse_HW, at)
        nothing = inverse <= ZERO
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
def paint_label(
    tables: Tables, slot: int, canvas: Canvas, label: int, image_HW: NDArray[np.int16]
) -> None:
    """Write the semantic or instance image."""
    stride = stride_of(canvas)
    height, width = image_HW.shape
    for q in range(1, canvas.solid_Q[0] + 1):
        canvas.label_Q[q] = tables.label_SPL[slot, canvas.solid_Q[q], label]
    whole = width // LANES * LANES
    for j in range(height):
        for i in range(0, whole, LANES):
            solid = load(canvas.face_HW, j * stride + i) >> np.int32(FACE_BITS)
            store_shorts(image_HW, j * width + i, gather(canvas.label_Q, solid))
        for i in range(whole, width):
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
    for q in range(1, canvas.solid_Q[0] + 1):
        canvas.label_Q[q] = tables.label_SPL[slot, canvas.solid_Q[q], INSTANCE]
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
    """Write the colour image, after `to_depth`."""
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
            run = (j, start, stop)
            if is_flat(kind, side):
                _paint_flat(canvas, look_A, atlas, run)
            else:
                solid_G, shape_K = tables.solid_SPG[slot, p], canvas.shape_QK[drawn]
                row = curved_row(solid_G, kind == CYLINDER, shape_K, look_A, np.float32(j))
                _paint_curved(canvas, row, colors_of(look_A), atlas, run)
        _unpack_row(canvas, j, rgb_HW3)
