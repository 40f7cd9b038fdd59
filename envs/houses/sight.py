"""What an eye can see of a goal object: line of sight, and about how many pixels.

A goal object is looked at through a few points inside each of its primitives. A point is seen if
no other solid meets the segment from the eye to it. The object then covers about as many pixels as
its primitives' silhouettes would, each times the share of its points that are seen. This costs
about a microsecond where a rendered count costs a millisecond; `viewpoints` and the expert use it,
the task's success test counts rendered pixels.

Shape suffixes: P primitives, C columns of a packed primitive, O objects, Q points.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.scene import Kind, Scene

EYE_HEIGHT: Final = 1.2

Packed = NDArray[np.float64]

_X, _Y, _Z, _HX, _HY, _HZ, _COS, _SIN, _KIND, _REACH, _COLUMNS = range(11)
_BOX: Final = int(Kind.BOX)
_ELLIPSOID: Final = int(Kind.ELLIPSOID)
_CYLINDER: Final = int(Kind.CYLINDER)
_END: Final = 1e-9
"""Ray parameters this near the ends do not count, so that a touched surface does not block."""

_CORNERS: Final = np.array(
    [(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
)
_TETRAHEDRON: Final = np.array([(1.0, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
_SPREAD: Final = 0.57
"""Where points lie between the centre and the ends of a primitive's axes: as Gauss's do."""


class Sight(NamedTuple):
    """A scene, packed for the kernels below."""

    solids_PC: Packed
    """Centre, half extents, cosine and sine of the yaw, kind, horizontal reach."""
    points_Q3: Packed
    """Points inside goal objects, in the order of their primitives."""
    objects_O9: Packed
    """Centre, radius, half height, first and last + 1 primitive, first point, points each."""


def pack(scene: Scene) -> Sight:
    """Pack a scene's primitives and goal objects."""
    p = scene.primitives
    solids_PC = np.zeros((len(p), _COLUMNS))
    solids_PC[:, _X : _Z + 1] = p.center_P3
    solids_PC[:, _HX : _HZ + 1] = p.half_P3
    solids_PC[:, _COS] = np.cos(p.yaw_P.astype(np.float64))
    solids_PC[:, _SIN] = np.sin(p.yaw_P.astype(np.float64))
    solids_PC[:, _KIND] = p.kind_P
    corner_P = np.hypot(solids_PC[:, _HX], solids_PC[:, _HY])
    longest_P = np.maximum(solids_PC[:, _HX], solids_PC[:, _HY])
    solids_PC[:, _REACH] = np.where(p.kind_P == _BOX, corner_P, longest_P)
    objects_O9 = np.zeros((len(scene.objects), 9))
    patterns = []
    first = 0
    for i, o in enumerate(scene.objects):
        parts = o.stop - o.start
        pattern = np.concatenate([np.zeros((1, 3)), _CORNERS if parts == 1 else _TETRAHEDRON])
        objects_O9[i] = (o.x, o.y, o.z, o.radius, o.half_height, o.start, o.stop, first, 0)
        objects_O9[i, 8] = len(pattern)
        patterns.extend([pattern] * parts)
        first += parts * len(pattern)
    return Sight(solids_PC, _place_points(solids_PC, objects_O9, patterns), objects_O9)


def _place_points(solids_PC: Packed, objects_O9: Packed, patterns: list[Packed]) -> Packed:
    """Put the unit patterns into the objects' primitives."""
    if not patterns:
        return np.zeros((0, 3))
    owners = np.concatenate([np.arange(o[5], o[6], dtype=np.int64) for o in objects_O9])
    owner_Q = np.repeat(owners, [len(pattern) for pattern in patterns])
    solid_QC = solids_PC[owner_Q]
    local_Q3 = np.concatenate(patterns) * _SPREAD * solid_QC[:, _HX : _HZ + 1]
    cos_Q, sin_Q = solid_QC[:, _COS], solid_QC[:, _SIN]
    points_Q3 = solid_QC[:, _X : _Z + 1].copy()
    points_Q3[:, 0] += cos_Q * local_Q3[:, 0] - sin_Q * local_Q3[:, 1]
    points_Q3[:, 1] += sin_Q * local_Q3[:, 0] + cos_Q * local_Q3[:, 1]
    points_Q3[:, 2] += local_Q3[:, 2]
    return points_Q3


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
def blocks(solid_C: Packed, x: float, y: float, z: float, dx: float, dy: float, dz: float) -> bool:
    """Tell whether a solid meets the segment from (x, y, z) to (x + dx, y + dy, z + dz)."""
    cos = solid_C[_COS]
    sin = solid_C[_SIN]
    x -= solid_C[_X]
    y -= solid_C[_Y]
    z -= solid_C[_Z]
    x, y = cos * x + sin * y, cos * y - sin * x
    dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
    hx = solid_C[_HX]
    hy = solid_C[_HY]
    hz = solid_C[_HZ]
    kind = solid_C[_KIND]
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
def silhouette(solid_C: Packed, dx: float, dy: float, dz: float) -> float:
    """Return the area of a solid's shadow on a plane across the unit direction (dx, dy, dz)."""
    cos = solid_C[_COS]
    sin = solid_C[_SIN]
    lx = abs(cos * dx + sin * dy)
    ly = abs(cos * dy - sin * dx)
    lz = abs(dz)
    hx = solid_C[_HX]
    hy = solid_C[_HY]
    hz = solid_C[_HZ]
    if solid_C[_KIND] == _BOX:
        return 4.0 * (lx * hy * hz + ly * hx * hz + lz * hx * hy)
    if solid_C[_KIND] == _ELLIPSOID:
        lx *= hy * hz
        ly *= hx * hz
        lz *= hx * hy
        return math.pi * math.sqrt(lx * lx + ly * ly + lz * lz)
    return 4.0 * hx * hz * math.sqrt(lx * lx + ly * ly) + math.pi * hx * hx * lz


@njit(cache=True, nogil=True)
def solids_near(
    solids_PC: Packed, object_9: Packed, distance: float, near: NDArray[np.int64]
) -> int:
    """List, in `near`, the solids that could hide an object from eyes within a distance."""
    count = 0
    low = min(object_9[2] - object_9[4], EYE_HEIGHT)
    high = max(object_9[2] + object_9[4], EYE_HEIGHT)
    for p in range(len(solids_PC)):
        if object_9[5] <= p < object_9[6]:
            continue
        solid = solids_PC[p]
        if solid[_Z] + solid[_HZ] <= low or solid[_Z] - solid[_HZ] >= high:
            continue
        reach = distance + solid[_REACH]
        dx = solid[_X] - object_9[0]
        dy = solid[_Y] - object_9[1]
        if dx * dx + dy * dy < reach * reach:
            near[count] = p
            count += 1
    return count


@njit(cache=True, nogil=True)
def _in_the_way(
    solids_PC: Packed,
    near: NDArray[np.int64],
    object_9: Packed,
    x: float,
    y: float,
    way: NDArray[np.int64],
) -> int:
    """List, in `way`, those of the near solids that the lines from (x, y) to an object pass."""
    dx = object_9[0] - x
    dy = object_9[1] - y
    squared = max(dx * dx + dy * dy, 1e-12)
    count = 0
    for p in near:
        reach = solids_PC[p, _REACH] + object_9[3]
        sx = solids_PC[p, _X] - x
        sy = solids_PC[p, _Y] - y
        t = min(max((sx * dx + sy * dy) / squared, 0.0), 1.0)
        sx -= t * dx
        sy -= t * dy
        if sx * sx + sy * sy < reach * reach:
            way[count] = p
            count += 1
    return count


@njit(cache=True, nogil=True)
def full_pixels(solids_PC: Packed, object_9: Packed, x: float, y: float, focal: float) -> float:
    """Return about how many pixels an object covers if nothing hides it.

    Args:
        solids_PC: `Sight.solids_PC`.
        object_9: A row of `Sight.objects_O9`.
        x: Position of the eye.
        y: Position of the eye.
        focal: Focal length in pixels, half the image's width over tan(hfov / 2).
    """
    dx = object_9[0] - x
    dy = object_9[1] - y
    dz = object_9[2] - EYE_HEIGHT
    squared = dx * dx + dy * dy + dz * dz
    scale = 1.0 / math.sqrt(squared)
    area = 0.0
    for p in range(int(object_9[5]), int(object_9[6])):
        area += silhouette(solids_PC[p], dx * scale, dy * scale, dz * scale)
    # Parts overlap in the image; together they stay within their common cylinder's silhouette.
    across = math.sqrt(dx * dx + dy * dy) * scale
    radius = object_9[3]
    most = 4.0 * radius * object_9[4] * across + math.pi * radius * radius * abs(dz) * scale
    return min(area, most) * focal * focal / squared


@njit(cache=True, nogil=True)
def _in_view(
    dx: float, dy: float, dz: float, view: tuple[float, float, float, float, float]
) -> bool:
    """Tell whether a direction lies inside a square image; see `camera_view`."""
    cos_heading, sin_heading, cos_pitch, sin_pitch, edge = view
    if edge <= 0.0:
        return True
    ahead = cos_heading * dx + sin_heading * dy
    depth = cos_pitch * ahead + sin_pitch * dz
    across = abs(sin_heading * dx - cos_heading * dy)
    up = abs(cos_pitch * dz - sin_pitch * ahead)
    return depth > 0.0 and max(across, up) < edge * depth


@njit(cache=True, nogil=True)
def camera_view(
    heading: float, pitch: float, edge: float
) -> tuple[float, float, float, float, float]:
    """Describe a camera to `seen_pixels`.

    Args:
        heading: Where it looks.
        pitch: How far up it looks.
        edge: Tangent of half the opening angle that counts; 0 counts every direction.
    """
    return math.cos(heading), math.sin(heading), math.cos(pitch), math.sin(pitch), edge


@njit(cache=True, nogil=True)
def seen_pixels(
    sight: Sight,
    object_9: Packed,
    near: NDArray[np.int64],
    x: float,
    y: float,
    focal: float,
    view: tuple[float, float, float, float, float],
    way: NDArray[np.int64],
) -> float:
    """Return about how many pixels of an object are seen from a position.

    Args:
        sight: The scene.
        object_9: A row of `sight.objects_O9`.
        near: What could hide it, from `solids_near`.
        x: Position of the eye.
        y: Position of the eye.
        focal: Focal length in pixels.
        view: What the camera sees, from `camera_view`.
        way: Scratch space, as long as `near`.
    """
    pixels = full_pixels(sight.solids_PC, object_9, x, y, focal)
    in_way = way[: _in_the_way(sight.solids_PC, near, object_9, x, y, way)]
    first = int(object_9[7])
    each = int(object_9[8])
    area = 0.0
    seen_area = 0.0
    for part in range(int(object_9[5]), int(object_9[6])):
        seen = 0
        for q in range(first, first + each):
            dx = sight.points_Q3[q, 0] - x
            dy = sight.points_Q3[q, 1] - y
            dz = sight.points_Q3[q, 2] - EYE_HEIGHT
            if not _in_view(dx, dy, dz, view):
                continue
            hidden = False
            for p in in_way:
                if blocks(sight.solids_PC[p], x, y, EYE_HEIGHT, dx, dy, dz):
                    hidden = True
                    break
            if not hidden:
                seen += 1
        first += each
        dx = object_9[0] - x
        dy = object_9[1] - y
        dz = object_9[2] - EYE_HEIGHT
        scale = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
        part_area = silhouette(sight.solids_PC[part], dx * scale, dy * scale, dz * scale)
        area += part_area
        seen_area += part_area * seen / each
    return pixels * seen_area / area
