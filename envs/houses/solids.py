"""Solids as the kernels want them: which segments they block, how large a shadow they cast.

Shape suffixes: P primitives, C columns of a packed primitive.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.scene import Kind, Primitives

Packed = NDArray[np.float64]
Point = tuple[float, float, float]

X, Y, Z, HX, HY, HZ, COS, SIN, KIND, REACH, COLUMNS = range(11)
"""Columns: centre, half extents, cosine and sine of the yaw, kind, horizontal reach."""

_BOX: Final = int(Kind.BOX)
_ELLIPSOID: Final = int(Kind.ELLIPSOID)
_END: Final = 1e-9
"""Ray parameters this near the ends do not count, so that a touched surface does not block."""


def pack_solids(primitives: Primitives) -> Packed:
    """Return a row of columns for each primitive, (P, C)."""
    p = primitives
    solids_PC = np.zeros((len(p), COLUMNS))
    solids_PC[:, X : Z + 1] = p.center_P3
    solids_PC[:, HX : HZ + 1] = p.half_P3
    solids_PC[:, COS] = np.cos(p.yaw_P.astype(np.float64))
    solids_PC[:, SIN] = np.sin(p.yaw_P.astype(np.float64))
    solids_PC[:, KIND] = p.kind_P
    corner_P = np.hypot(solids_PC[:, HX], solids_PC[:, HY])
    longest_P = np.maximum(solids_PC[:, HX], solids_PC[:, HY])
    solids_PC[:, REACH] = np.where(p.kind_P == _BOX, corner_P, longest_P)
    return solids_PC


@njit(cache=True, nogil=True)
def _clip(
    enter: float, leave: float, start: float, along: float, half: float
) -> tuple[float, float]:
    """Narrow a ray's interval to the slab [-half, half] of one axis."""
    if along == 0.0:
        return (enter, leave) if abs(start) < half else (1.0, 0.0)
    a = (-half - start) / along
    b = (half - start) / along
    return max(enter, min(a, b)), min(leave, max(a, b))


@njit(cache=True, nogil=True)
def blocks(solid_C: Packed, start: Point, along: Point) -> bool:
    """Tell whether a solid meets the segment from `start` to `start + along`."""
    cos = solid_C[COS]
    sin = solid_C[SIN]
    x = start[0] - solid_C[X]
    y = start[1] - solid_C[Y]
    z = start[2] - solid_C[Z]
    x, y = cos * x + sin * y, cos * y - sin * x
    dx = cos * along[0] + sin * along[1]
    dy = cos * along[1] - sin * along[0]
    dz = along[2]
    hx = solid_C[HX]
    hy = solid_C[HY]
    hz = solid_C[HZ]
    kind = solid_C[KIND]
    enter = _END
    leave = 1.0 - _END
    if kind != _ELLIPSOID:
        enter, leave = _clip(enter, leave, z, dz, hz)
    if kind == _BOX:
        enter, leave = _clip(enter, leave, x, dx, hx)
        enter, leave = _clip(enter, leave, y, dy, hy)
        return enter < leave
    round_z = 1.0 / hz if kind == _ELLIPSOID else 0.0
    px, py, pz = x / hx, y / hy, z * round_z
    qx, qy, qz = dx / hx, dy / hy, dz * round_z
    a = qx * qx + qy * qy + qz * qz
    b = px * qx + py * qy + pz * qz
    c = px * px + py * py + pz * pz - 1.0
    if a == 0.0:
        return c < 0.0 and enter < leave
    inside = b * b - a * c
    if inside <= 0.0:
        return False
    root = math.sqrt(inside)
    return max(enter, (-b - root) / a) < min(leave, (-b + root) / a)


@njit(cache=True, nogil=True)
def silhouette(solid_C: Packed, toward: Point) -> float:
    """Return the area of a solid's shadow on a plane across a unit direction."""
    cos = solid_C[COS]
    sin = solid_C[SIN]
    lx = abs(cos * toward[0] + sin * toward[1])
    ly = abs(cos * toward[1] - sin * toward[0])
    lz = abs(toward[2])
    hx = solid_C[HX]
    hy = solid_C[HY]
    hz = solid_C[HZ]
    if solid_C[KIND] == _BOX:
        return 4.0 * (lx * hy * hz + ly * hx * hz + lz * hx * hy)
    if solid_C[KIND] == _ELLIPSOID:
        lx *= hy * hz
        ly *= hx * hz
        lz *= hx * hy
        return math.pi * math.sqrt(lx * lx + ly * ly + lz * lz)
    return 4.0 * hx * hz * math.sqrt(lx * lx + ly * ly) + math.pi * hx * hx * lz
