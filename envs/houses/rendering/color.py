"""The colour of a hit: its material, times the light on the face, times the tile.

Light is a constant plus one direction, so that all faces of a box differ and nothing is black.
Tiles fade to their mean colour with distance, sooner on slanting faces: there are no coarser
copies of a tile, and without this far floors would flicker.

A look is one face of one solid in one picture. Scalar code, compiled for the CPU and for CUDA.
Shapes as in `pixel.py`, and A the numbers of one look.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit

from envs.houses.rendering.lanes import (
    Number,
    floor_int,
    gather,
    maximum,
    minimum,
    root,
    select,
    to_float,
    to_int,
)
from envs.houses.rendering.pixel import BOX, CYLINDER, HALF, LOCAL, ONE, PIXEL, ZERO
from envs.houses.rendering.tables import CORNERED, COSINE, HIGH, LOW, REPEAT, SINE, TILE, Atlas
from envs.houses.scene import FloatArray

AMBIENT: Final = np.float32(0.75)
LIGHT: Final = (np.float32(0.12), np.float32(0.07), np.float32(0.18))
"""A face with unit normal n is lit by `AMBIENT + LIGHT . n`."""

FADE_START: Final = 1.0 / 16.0
FADE_END: Final = 1.0 / 3.0
"""Width of a pixel on the surface, in tiles, from which and up to which the tile fades."""
FADE_RATE: Final = np.float32(1.0 / (FADE_END - FADE_START))
FADE_BASE: Final = np.float32(FADE_END / (FADE_END - FADE_START))

WHITE: Final = np.float32(255.0)
QUARTER_TURN: Final = np.float32(0.5 * math.pi)
TWO: Final = np.float32(2.0)
FOUR: Final = np.float32(4.0)
# What divides is never less than these: squared lengths and sums, and metres.
TINY: Final = np.float32(1e-12)
CLOSE: Final = np.float32(1e-3)

MEAN: Final = 0
TINT: Final = 3
TILE_OFFSET: Final = 6
U: Final = 8
V: Final = 12
FADE: Final = 16
LOOK_SIZE: Final = 20
"""Offsets into a look: colour of the mean tile in [0, 255], colour per texel value, the tile's
first texel, tile coordinates in texels (of flat faces at the eye, by the first ray, by column, by
row; of curved ones scale and offset), how the tile fades with the depth and its square."""


@njit
def _fade(pixel: Number, span: Number, distance: Number, look_A: FloatArray) -> None:
    """Write how a tile of `span` metres fades on a face `distance` from the eye, 0 if curved.

    On a plane, a pixel at depth t is `pixel * t` wide and, along the slant, about
    `pixel * t^2 / distance` long; the mean of the two counts.
    """
    rate = pixel * FADE_RATE / span
    # The strength falls from 1 to 0 along a line: (FADE_END - width) / (FADE_END - FADE_START).
    look_A[FADE] = FADE_BASE
    if distance > ZERO:
        look_A[FADE + 1] = HALF * rate
        look_A[FADE + 2] = HALF * rate / distance
    else:
        # A curved face has slants of all kinds, so only the width counts.
        look_A[FADE + 1], look_A[FADE + 2] = rate, ZERO


@njit
def _face_light(solid_G: FloatArray, axis: int, sign: Number) -> Number:
    """Return the light on a box's face."""
    cosine, sine = solid_G[COSINE], solid_G[SINE]
    if axis == 0:
        along = LIGHT[0] * cosine + LIGHT[1] * sine
    elif axis == 1:
        along = LIGHT[1] * cosine - LIGHT[0] * sine
    else:
        along = LIGHT[2]
    return AMBIENT + sign * along


@njit
def _flat_look(
    solid_G: FloatArray, repeat: Number, face: int, shape_K: FloatArray, look_A: FloatArray
) -> None:
    """Write the tile coordinates of a box's face or a cylinder's cap, in tiles."""
    axis, sign = face >> 1, ONE if face & 1 == 0 else -ONE
    u_axis, v_axis = 1 if axis == 0 else 0, 1 if axis == 2 else 2
    # On upright faces u grows to the right as seen from outside, so that no tile is mirrored.
    u_sign = ONE if axis == 2 else (sign if axis == 0 else -sign)
    stretched = repeat <= ZERO
    span_u = max(solid_G[HIGH + u_axis] - solid_G[LOW + u_axis], CLOSE) if stretched else repeat
    span_v = max(solid_G[HIGH + v_axis] - solid_G[LOW + v_axis], CLOSE) if stretched else repeat
    corner = ONE if stretched else solid_G[CORNERED]
    left = -solid_G[LOW + u_axis] if u_sign > ZERO else solid_G[HIGH + u_axis]
    # Tile coordinates are those of the hit, so affine in the ray times the depth like its position.
    for n in range(4):
        look_A[U + n] = u_sign * shape_K[LOCAL + 4 * u_axis + n]
        look_A[V + n] = shape_K[LOCAL + 4 * v_axis + n]
    look_A[U] += corner * left
    look_A[V] -= corner * solid_G[LOW + v_axis]
    for n in range(4):
        look_A[U + n] /= span_u
        look_A[V + n] /= span_v
    plane = solid_G[HIGH + axis] if sign > ZERO else solid_G[LOW + axis]
    distance = max(abs(plane - shape_K[LOCAL + 4 * axis]), CLOSE)
    _fade(shape_K[PIXEL], min(span_u, span_v), distance, look_A)


@njit
def _curved_look(
    solid_G: FloatArray, repeat: Number, shape_K: FloatArray, look_A: FloatArray
) -> None:
    """Write the tile coordinates of a cylinder's side or an ellipsoid, in tiles."""
    # `_quarters` counts quarter turns, each of which is this long at the mean radius.
    quarter = QUARTER_TURN * HALF * (solid_G[HIGH] + solid_G[HIGH + 1])
    high = solid_G[HIGH + 2] - solid_G[LOW + 2]
    span_u = FOUR * quarter if repeat <= ZERO else repeat
    span_v = high if repeat <= ZERO else repeat
    look_A[U] = quarter / span_u
    look_A[V] = ONE / span_v
    look_A[V + 1] = HALF * high / span_v
    _fade(shape_K[PIXEL], min(span_u, span_v), ZERO, look_A)


@njit
def is_flat(kind: int, face: int) -> bool:
    """Return whether a face is plane: all of a box, the caps of a cylinder."""
    return kind == BOX or (kind == CYLINDER and face >= 4)


@njit
def make_look(
    solid_G: FloatArray,
    material_5: FloatArray,
    face: int,
    shape_K: FloatArray,
    atlas: Atlas,
    look_A: FloatArray,
) -> None:
    """Write the look of one face; `face` is negative for a curved one."""
    # The normal of a curved face changes by pixel, so `curved_hit` finds its light instead.
    light = ONE
    if face >= 0:
        light = _face_light(solid_G, face >> 1, ONE if face & 1 == 0 else -ONE)
        _flat_look(solid_G, material_5[REPEAT], face, shape_K, look_A)
    else:
        _curved_look(solid_G, material_5[REPEAT], shape_K, look_A)
    texels = np.float32(1 << atlas.shift)
    for n in range(4):
        look_A[U + n] *= texels
        look_A[V + n] *= texels
    tile = int(material_5[TILE])
    for n in range(3):
        look_A[TINT + n] = light * material_5[n]
        # Texels are bytes, so the tint needs no factor of 255. The mean, in [0, 1], does.
        look_A[MEAN + n] = WHITE * look_A[TINT + n] * atlas.mean[3 * tile + n]
    # A float32 holds whole numbers up to 2^24 exactly.
    look_A[TILE_OFFSET] = np.float32(tile << (2 * atlas.shift))


@njit
def flat_row(look_A: FloatArray, j: Number) -> tuple[Number, ...]:
    """Return a flat face's tile coordinates and fading along pixel row j."""
    return (
        look_A[U],
        look_A[U + 1] + j * look_A[U + 3],
        look_A[U + 2],
        look_A[V],
        look_A[V + 1] + j * look_A[V + 3],
        look_A[V + 2],
        look_A[FADE],
        look_A[FADE + 1],
        look_A[FADE + 2],
    )


@njit(forceinline=True)
def flat_hit(row: tuple[Number, ...], i: Number, t: Number) -> tuple[Number, Number, Number]:
    """Return the tile coordinates that column i shows at depth t, and the tile's strength."""
    eye_u, ray_u, step_u, eye_v, ray_v, step_v, full, fade, slant = row
    u = eye_u + t * (ray_u + i * step_u)
    v = eye_v + t * (ray_v + i * step_v)
    return u, v, maximum(minimum(full - t * (fade + t * slant), ONE), ZERO)


@njit(forceinline=True)
def _quarters(x: Number, y: Number) -> Number:
    """Return the turn from (1, 0) to (x, y) in [0, 4], even along the square |x| + |y| = 1.

    Close to the angle, cheap, and rounded alike everywhere.
    """
    # Lanes have neither an absolute value nor a minus sign.
    wide, high = maximum(x, ZERO - x), maximum(y, ZERO - y)
    turn = high / maximum(wide + high, TINY)
    ahead = select(y >= ZERO, turn, FOUR - turn)
    behind = select(y >= ZERO, TWO - turn, TWO + turn)
    return select(x >= ZERO, ahead, behind)


@njit
def curved_row(
    solid_G: FloatArray, is_cylinder: bool, shape_K: FloatArray, look_A: FloatArray, j: Number
) -> tuple[Number, ...]:
    """Return what a curved face shows along pixel row j: eye, ray, normal, light and tile."""
    a, b, c = solid_G[HIGH], solid_G[HIGH + 1], solid_G[HIGH + 2]
    return (
        shape_K[LOCAL],
        shape_K[LOCAL + 1] + j * shape_K[LOCAL + 3],
        shape_K[LOCAL + 2],
        shape_K[LOCAL + 4],
        shape_K[LOCAL + 5] + j * shape_K[LOCAL + 7],
        shape_K[LOCAL + 6],
        shape_K[LOCAL + 8],
        shape_K[LOCAL + 9] + j * shape_K[LOCAL + 11],
        ONE / (a * a),
        ONE / (b * b),
        ZERO if is_cylinder else ONE / (c * c),
        LIGHT[0] * solid_G[COSINE] + LIGHT[1] * solid_G[SINE],
        LIGHT[1] * solid_G[COSINE] - LIGHT[0] * solid_G[SINE],
        look_A[U],
        look_A[V],
        look_A[V + 1],
        look_A[FADE],
        look_A[FADE + 1],
    )


@njit(forceinline=True)
def curved_hit(
    row: tuple[Number, ...], i: Number, t: Number
) -> tuple[Number, Number, Number, Number]:
    """Return tile coordinates, the tile's strength and the light at column i and depth t."""
    eye_x, ray_x, step_x, eye_y, ray_y, step_y, eye_z, ray_z, aa, bb, cc, light_x, light_y = row[
        :13
    ]
    aa, bb, cc, light_x, light_y, scale_u, scale_v, offset_v, full, fade = row[8:]
    x = eye_x + t * (ray_x + i * step_x)
    y = eye_y + t * (ray_y + i * step_y)
    # No step by column, as the camera never rolls.
    z = eye_z + t * ray_z
    u, v = scale_u * _quarters(x, y), scale_v * z + offset_v
    # Half the gradient of x^2 / a^2 + y^2 / b^2 + z^2 / c^2, which is 1 on the surface.
    x, y, z = x * aa, y * bb, z * cc  # the normal, not yet of length 1
    length = root(maximum(x * x + y * y + z * z, TINY))
    light = AMBIENT + (light_x * x + light_y * y + LIGHT[2] * z) / length
    return u, v, maximum(minimum(full - t * fade, ONE), ZERO), light


@njit
def colors_of(look_A: FloatArray) -> tuple[Number, ...]:
    """Return what `blend` needs of a look."""
    return (
        look_A[MEAN],
        look_A[MEAN + 1],
        look_A[MEAN + 2],
        look_A[TINT],
        look_A[TINT + 1],
        look_A[TINT + 2],
        np.int32(look_A[TILE_OFFSET]),
    )


@njit(forceinline=True)
def texel_of(atlas: Atlas, colors: tuple[Number, ...], u: Number, v: Number) -> Number:
    """Return the packed texel at the coordinates of a look's tile."""
    # Edges are powers of two, so a mask repeats the tile, also for negative coordinates.
    last = np.int32((1 << atlas.shift) - 1)
    row, column = floor_int(v) & last, floor_int(u) & last
    return gather(atlas.texel, ((row << atlas.shift) | column) + colors[6])


@njit(forceinline=True)
def _channel(mean: Number, tint: Number, byte: Number, strength: Number, light: Number) -> Number:
    """Return one byte of colour."""
    color = (mean + strength * (tint * to_float(byte) - mean)) * light
    # `to_int` cuts fractions off, so the half rounds.
    return to_int(minimum(color, WHITE) + HALF)


@njit(forceinline=True)
def blend(colors: tuple[Number, ...], texel: Number, strength: Number, light: Number) -> Number:
    """Return the packed colour of a texel that counts by `strength` against the tile's mean."""
    byte = np.int32(255)
    red = _channel(colors[0], colors[3], texel & byte, strength, light)
    green = _channel(colors[1], colors[4], (texel >> np.int32(8)) & byte, strength, light)
    blue = _channel(colors[2], colors[5], (texel >> np.int32(16)) & byte, strength, light)
    # Packed like a texel, so that colours of a run are one vector too.
    return red | (green << np.int32(8)) | (blue << np.int32(16))
