"""The pixels that a solid covers, and its depth in each.

A plane that stands `c` before the eye meets the ray `d` at depth t with 1 / t = (n . d) / c, which
is affine in the pixel's column and row. So all of a box is tested without a division: the ray
enters at the smallest 1 / t of the faces turned to the eye, leaves at the largest of the others,
and hits if it enters no later than it leaves. Curved sides are quadratics in 1 / t. A picture
keeps the largest 1 / t of each pixel; 0 is nothing.

A solid has a shape (made once per picture); each kind has `..._row` (once per pixel row) and
`..._hit` (lanes on the CPU, one pixel on CUDA). A solid that the near plane cuts is left out where
it would be entered nearer than that, so an eye inside a solid sees through it.

Shapes as in `tables.py`, and C the numbers of one camera, K of one shape.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from envs.houses.rendering.camera import EYE, RAY, RIGHT, STEP, UP
from envs.houses.rendering.lanes import Number, maximum, minimum, root, select
from envs.houses.rendering.tables import CENTER, COSINE, HIGH, LOW, SINE
from envs.houses.scene import FloatArray, Kind

NEAR_PLANE: Final = 0.05
"""Metres of depth below which nothing is drawn."""

ZERO: Final = np.float32(0.0)
HALF: Final = np.float32(0.5)
ONE: Final = np.float32(1.0)
LARGEST: Final = np.float32(1.0 / NEAR_PLANE)
ALWAYS: Final = np.float32(1e9)
"""The 1 / t of a face that the ray has passed before it starts."""
TINY: Final = np.float32(1e-6)
"""Keeps divisors from 0 where the eye touches a plane."""

BOX: Final = int(Kind.BOX)
ELLIPSOID: Final = int(Kind.ELLIPSOID)
CYLINDER: Final = int(Kind.CYLINDER)

LOCAL: Final = 0
"""The eye (first of four), the first ray and its steps by column and row, for each local axis."""
SLAB: Final = 12
"""1 / t of the entered face is `base + d * first`, of the left ones `d * second`, `d * third`, for
each axis."""
SCALED: Final = 12
"""Of curved shapes: the local x and y again, in radii; an ellipsoid's z too."""
INVERSE: Final = 24
"""Of curved shapes: what divides the roots, and what is added to the entering one."""
ENTERED: Final = 26
"""The faces that can be entered, by axis."""
PIXEL: Final = 29
"""The width of a pixel at depth 1."""
SHAPE_SIZE: Final = 32


@njit
def _local_shape(solid_G: FloatArray, camera_C: FloatArray, shape_K: FloatArray) -> None:
    """Write the camera in the solid's own frame into `shape_K[LOCAL:]`."""
    cosine, sine = solid_G[COSINE], solid_G[SINE]
    x = camera_C[EYE] - solid_G[CENTER]
    y = camera_C[EYE + 1] - solid_G[CENTER + 1]
    shape_K[0] = cosine * x + sine * y
    shape_K[4] = cosine * y - sine * x
    shape_K[8] = camera_C[EYE + 2] - solid_G[CENTER + 2]
    shape_K[PIXEL] = step = camera_C[STEP]
    shape_K[1] = cosine * camera_C[RAY] + sine * camera_C[RAY + 1]
    shape_K[5] = cosine * camera_C[RAY + 1] - sine * camera_C[RAY]
    shape_K[9] = camera_C[RAY + 2]
    shape_K[2] = step * (cosine * camera_C[RIGHT] + sine * camera_C[RIGHT + 1])
    shape_K[6] = step * (cosine * camera_C[RIGHT + 1] - sine * camera_C[RIGHT])
    shape_K[10] = ZERO  # the camera never rolls, so a step to the right stays level
    shape_K[3] = -step * (cosine * camera_C[UP] + sine * camera_C[UP + 1])
    shape_K[7] = -step * (cosine * camera_C[UP + 1] - sine * camera_C[UP])
    shape_K[11] = -step * camera_C[UP + 2]


@njit
def _slab(solid_G: FloatArray, axis: int, shape_K: FloatArray) -> None:
    """Write the planes that bound a solid along one axis."""
    eye = shape_K[LOCAL + 4 * axis]
    to_low = solid_G[LOW + axis] - eye
    to_high = solid_G[HIGH + axis] - eye
    base, first, face = ZERO, ZERO, 2 * axis
    if to_high < ZERO:  # the eye is beyond the upper plane: rays enter there
        first = ONE / min(to_high, -TINY)
        # The ray leaves by the other plane. It counts twice, as hits take the larger of two.
        second = third = ONE / min(to_low, -TINY)
    elif to_low > ZERO:  # the eye is before the lower plane
        first = ONE / max(to_low, TINY)
        second = third = ONE / max(to_high, TINY)
        face += 1
    else:  # between them: a ray has entered already, and leaves by the plane that it runs to
        base = ALWAYS
        second, third = ONE / min(to_low, -TINY), ONE / max(to_high, TINY)
    at = SLAB + 4 * axis
    shape_K[at], shape_K[at + 1], shape_K[at + 2], shape_K[at + 3] = base, first, second, third
    shape_K[ENTERED + axis] = np.float32(face)


@njit
def _curved_shape(solid_G: FloatArray, kind: int, shape_K: FloatArray) -> bool:
    """Complete an ellipsoid's or a cylinder's shape; return whether it can be seen at all."""
    # |eye|^2 - 1 in radii: positive outside, and the leading term of the quadratic in 1 / t.
    beyond = -ONE
    for axis in range(3 if kind == ELLIPSOID else 2):
        inverse = ONE / solid_G[HIGH + axis]
        for n in range(4):
            shape_K[SCALED + 4 * axis + n] = inverse * shape_K[LOCAL + 4 * axis + n]
        beyond += shape_K[SCALED + 4 * axis] * shape_K[SCALED + 4 * axis]
    if kind == CYLINDER:
        _slab(solid_G, 2, shape_K)
    shape_K[ENTERED] = ZERO  # Face.POS_X
    if beyond > ZERO:
        shape_K[INVERSE], shape_K[INVERSE + 1] = ONE / max(beyond, TINY), ZERO
    else:
        # Within the radius the ray has entered the side already, so only a cap can be entered.
        shape_K[INVERSE], shape_K[INVERSE + 1] = ONE / min(beyond, -TINY), ALWAYS
    return bool(beyond > ZERO or kind == CYLINDER)


@njit
def make_shape(solid_G: FloatArray, kind: int, camera_C: FloatArray, shape_K: FloatArray) -> bool:
    """Write the shape of a solid; return whether it can be seen at all."""
    _local_shape(solid_G, camera_C, shape_K)
    if kind != BOX:
        return _curved_shape(solid_G, kind, shape_K)
    for axis in range(3):
        _slab(solid_G, axis, shape_K)
    return True


@njit
def faces_of(shape_K: FloatArray, first: int) -> tuple[Number, Number, Number]:
    """Return the numbers of the faces that can be entered, those of the solid from `first` on."""
    return (
        np.int32(first + np.int32(shape_K[ENTERED])),
        np.int32(first + np.int32(shape_K[ENTERED + 1])),
        np.int32(first + np.int32(shape_K[ENTERED + 2])),
    )


@njit
def box_row(shape_K: FloatArray, j: Number) -> tuple[Number, ...]:
    """Return a box's planes along pixel row j, each 1 / t and its step by column.

    For x, then for y, the entered plane and the two that may be left; the same for z, done.
    """
    x = shape_K[1] + j * shape_K[3]
    y = shape_K[5] + j * shape_K[7]
    z = shape_K[9] + j * shape_K[11]
    step_x, step_y = shape_K[2], shape_K[6]
    return (
        shape_K[SLAB] + x * shape_K[SLAB + 1],
        step_x * shape_K[SLAB + 1],
        x * shape_K[SLAB + 2],
        step_x * shape_K[SLAB + 2],
        x * shape_K[SLAB + 3],
        step_x * shape_K[SLAB + 3],
        shape_K[SLAB + 4] + y * shape_K[SLAB + 5],
        step_y * shape_K[SLAB + 5],
        y * shape_K[SLAB + 6],
        step_y * shape_K[SLAB + 6],
        y * shape_K[SLAB + 7],
        step_y * shape_K[SLAB + 7],
        # Without roll z does not change along a pixel row, so its planes are done with here.
        shape_K[SLAB + 8] + z * shape_K[SLAB + 9],
        maximum(z * shape_K[SLAB + 10], z * shape_K[SLAB + 11]),
    )


@njit(forceinline=True)
def box_hit(
    row: tuple[Number, ...], i: Number, faces: tuple[Number, Number, Number]
) -> tuple[Number, Number]:
    """Return 1 / t at column i, 0 for a miss, and the face."""
    ex, dex, ax, dax, bx, dbx, ey, dey, ay, day, by, dby, enter_z, leave_z = row
    enter_x, enter_y = ex + dex * i, ey + dey * i
    leave_x = maximum(ax + dax * i, bx + dbx * i)
    leave_y = maximum(ay + day * i, by + dby * i)
    leave = maximum(maximum(leave_x, leave_y), leave_z)
    face = select(enter_x < enter_y, faces[0], faces[1])
    nearest = minimum(enter_x, enter_y)
    face = select(nearest < enter_z, face, faces[2])
    nearest = minimum(nearest, enter_z)
    # Floors have no height: there a ray enters and leaves at one depth, so equality is a hit.
    # What is behind the eye has 1 / t < 0, which is never larger than a picture's 0.
    return select((nearest >= leave) & (nearest <= LARGEST), nearest, ZERO), face


@njit
def ellipsoid_row(shape_K: FloatArray, j: Number) -> tuple[Number, ...]:
    """Return an ellipsoid's ray and eye along pixel row j."""
    return (
        shape_K[SCALED + 1] + j * shape_K[SCALED + 3],
        shape_K[SCALED + 2],
        shape_K[SCALED + 5] + j * shape_K[SCALED + 7],
        shape_K[SCALED + 6],
        shape_K[SCALED + 9] + j * shape_K[SCALED + 11],
        shape_K[SCALED],
        shape_K[SCALED + 4],
        shape_K[SCALED + 8],
        shape_K[INVERSE],
    )


@njit(forceinline=True)
def ellipsoid_hit(row: tuple[Number, ...], i: Number) -> Number:
    """Return 1 / t at column i, 0 for a miss.

    The discriminant is |d|^2 - |o x d|^2: for small, distant solids the textbook's form
    (o . d)^2 - |d|^2 (|o|^2 - 1) is a difference of large numbers and loses all digits.
    """
    ray_x, step_x, ray_y, step_y, z, eye_x, eye_y, eye_z, inverse = row
    x, y = ray_x + step_x * i, ray_y + step_y * i
    along = eye_x * x + eye_y * y + eye_z * z
    a, b, c = eye_y * z - eye_z * y, eye_z * x - eye_x * z, eye_x * y - eye_y * x
    inside = (x * x + y * y + z * z) - (a * a + b * b + c * c)
    # Of the two roots in 1 / t the larger is the nearer one, where the ray enters.
    nearest = (root(maximum(inside, ZERO)) - along) * inverse
    return select((inside >= ZERO) & (nearest <= LARGEST), nearest, ZERO)


@njit
def cylinder_row(shape_K: FloatArray, j: Number) -> tuple[Number, ...]:
    """Return a cylinder's ray, eye and caps along pixel row j."""
    z = shape_K[9] + j * shape_K[11]
    base, inverse = shape_K[INVERSE + 1], shape_K[INVERSE]
    return (
        shape_K[SCALED + 1] + j * shape_K[SCALED + 3],
        shape_K[SCALED + 2],
        shape_K[SCALED + 5] + j * shape_K[SCALED + 7],
        shape_K[SCALED + 6],
        shape_K[SCALED],
        shape_K[SCALED + 4],
        base,
        ZERO if base > ZERO else inverse,  # an eye within the radius enters by a cap or not at all
        inverse,
        shape_K[SLAB + 8] + z * shape_K[SLAB + 9],
        maximum(z * shape_K[SLAB + 10], z * shape_K[SLAB + 11]),
    )


@njit(forceinline=True)
def cylinder_hit(
    row: tuple[Number, ...], i: Number, faces: tuple[Number, Number, Number]
) -> tuple[Number, Number]:
    """Return 1 / t at column i, 0 for a miss, and the face."""
    ray_x, step_x, ray_y, step_y, eye_x, eye_y, base, enter, leave, cap_enter, cap_leave = row
    x, y = ray_x + step_x * i, ray_y + step_y * i
    along = eye_x * x + eye_y * y
    across = eye_x * y - eye_y * x
    inside = (x * x + y * y) - across * across
    spread = root(maximum(inside, ZERO))
    side = base + (spread - along) * enter
    # Lanes have no minus sign, hence `ZERO - along`.
    last = maximum((ZERO - along - spread) * leave, cap_leave)
    face = select(side < cap_enter, faces[0], faces[2])
    nearest = minimum(side, cap_enter)
    hit = (inside >= ZERO) & (nearest >= last) & (nearest <= LARGEST)
    return select(hit, nearest, ZERO), face
