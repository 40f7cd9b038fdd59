"""Solids as the kernels want them: which segments they block, how large a shadow they cast.

Shape suffixes: P primitives, C columns of a packed primitive.

What an eye can see of a goal object: line of sight, and about how many pixels.

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

from envs.houses.scene import Kind, Primitives, Scene
from envs.objectnav.config import EYE_HEIGHT

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


_CORNERS: Final = np.array(
    [(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
)
_TETRAHEDRON: Final = np.array([(1.0, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
_SPREAD: Final = 0.57
"""Where points lie between the centre and the ends of a primitive's axes: as Gauss's do."""


class Sight(NamedTuple):
    """A scene, packed for the kernels below."""

    solids_PC: Packed
    """From `solids.pack_solids`."""
    points_Q3: Packed
    """Points inside goal objects, in the order of their primitives."""
    objects_O9: Packed
    """Centre, radius, half height, first and last + 1 primitive, first point, points each."""


def pack(scene: Scene) -> Sight:
    """Pack a scene's primitives and goal objects."""
    solids_PC = pack_solids(scene.primitives)
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
    local_Q3 = np.concatenate(patterns) * _SPREAD * solid_QC[:, HX : HZ + 1]
    cos_Q, sin_Q = solid_QC[:, COS], solid_QC[:, SIN]
    points_Q3 = solid_QC[:, X : Z + 1].copy()
    points_Q3[:, 0] += cos_Q * local_Q3[:, 0] - sin_Q * local_Q3[:, 1]
    points_Q3[:, 1] += sin_Q * local_Q3[:, 0] + cos_Q * local_Q3[:, 1]
    points_Q3[:, 2] += local_Q3[:, 2]
    return points_Q3


class View(NamedTuple):
    """A camera of square images, for `seen_pixels`; made by `view_of`."""

    focal: float
    """Focal length in pixels: half the image's width over tan(hfov / 2)."""
    edge: float
    """Tangent of half the opening angle that counts; 0 counts every direction."""
    cos_heading: float
    sin_heading: float
    cos_pitch: float
    sin_pitch: float


@njit(cache=True, nogil=True)
def view_of(focal: float, edge: float, heading: float, pitch: float) -> View:
    """Return the view of a camera that looks along a heading, and up by a pitch."""
    return View(focal, edge, math.cos(heading), math.sin(heading), math.cos(pitch), math.sin(pitch))


@njit(cache=True, nogil=True)
def solids_near(solids_PC: Packed, object_9: Packed, distance: float) -> NDArray[np.int64]:
    """List the solids that could hide an object from eyes within a horizontal distance."""
    near = np.empty(len(solids_PC), np.int64)
    count = 0
    low = min(object_9[2] - object_9[4], EYE_HEIGHT)
    high = max(object_9[2] + object_9[4], EYE_HEIGHT)
    for p in range(len(solids_PC)):
        if object_9[5] <= p < object_9[6]:
            continue
        solid = solids_PC[p]
        if solid[Z] + solid[HZ] <= low or solid[Z] - solid[HZ] >= high:
            continue
        reach = distance + solid[REACH]
        dx = solid[X] - object_9[0]
        dy = solid[Y] - object_9[1]
        if dx * dx + dy * dy < reach * reach:
            near[count] = p
            count += 1
    return near[:count]


@njit(cache=True, nogil=True)
def _in_the_way(
    solids_PC: Packed, near: NDArray[np.int64], object_9: Packed, x: float, y: float
) -> NDArray[np.int64]:
    """List those of the near solids that the lines from (x, y) to an object may pass."""
    way = np.empty(len(near), np.int64)
    count = 0
    dx = object_9[0] - x
    dy = object_9[1] - y
    squared = max(dx * dx + dy * dy, 1e-12)
    for p in near:
        reach = solids_PC[p, REACH] + object_9[3]
        sx = solids_PC[p, X] - x
        sy = solids_PC[p, Y] - y
        t = min(max((sx * dx + sy * dy) / squared, 0.0), 1.0)
        sx -= t * dx
        sy -= t * dy
        if sx * sx + sy * sy < reach * reach:
            way[count] = p
            count += 1
    return way[:count]


@njit(cache=True, nogil=True)
def _toward(object_9: Packed, x: float, y: float) -> tuple[Point, float]:
    """Return the unit direction from an eye to an object's centre, and the squared distance."""
    dx = object_9[0] - x
    dy = object_9[1] - y
    dz = object_9[2] - EYE_HEIGHT
    squared = dx * dx + dy * dy + dz * dz
    scale = 1.0 / math.sqrt(squared)
    return (dx * scale, dy * scale, dz * scale), squared


@njit(cache=True, nogil=True)
def full_pixels(solids_PC: Packed, object_9: Packed, x: float, y: float, focal: float) -> float:
    """Return about how many pixels an object covers if nothing hides it.

    Args:
        solids_PC: `Sight.solids_PC`.
        object_9: A row of `Sight.objects_O9`.
        x: Position of the eye.
        y: Position of the eye.
        focal: Focal length in pixels.
    """
    toward, squared = _toward(object_9, x, y)
    area = 0.0
    for p in range(int(object_9[5]), int(object_9[6])):
        area += silhouette(solids_PC[p], toward)
    # Parts overlap in the image; together they stay within their common cylinder's silhouette.
    across = math.sqrt(toward[0] * toward[0] + toward[1] * toward[1])
    radius = object_9[3]
    most = 4.0 * radius * object_9[4] * across + math.pi * radius * radius * abs(toward[2])
    return min(area, most) * focal * focal / squared


@njit(cache=True, nogil=True)
def _in_view(along: Point, view: View) -> bool:
    """Tell whether a direction lies inside the part of the image that counts."""
    if view.edge <= 0.0:
        return True
    ahead = view.cos_heading * along[0] + view.sin_heading * along[1]
    depth = view.cos_pitch * ahead + view.sin_pitch * along[2]
    across = abs(view.sin_heading * along[0] - view.cos_heading * along[1])
    up = abs(view.cos_pitch * along[2] - view.sin_pitch * ahead)
    return depth > 0.0 and max(across, up) < view.edge * depth


@njit(cache=True, nogil=True)
def seen_pixels(
    sight: Sight, object_9: Packed, near: NDArray[np.int64], x: float, y: float, view: View
) -> float:
    """Return about how many pixels of an object are seen from a position.

    Args:
        sight: The scene.
        object_9: A row of `sight.objects_O9`.
        near: What could hide it, from `solids_near`.
        x: Position of the eye.
        y: Position of the eye.
        view: The camera.
    """
    way = _in_the_way(sight.solids_PC, near, object_9, x, y)
    toward, _ = _toward(object_9, x, y)
    first = int(object_9[7])
    each = int(object_9[8])
    area = 0.0
    seen_area = 0.0
    for part in range(int(object_9[5]), int(object_9[6])):
        seen = 0
        for q in range(first, first + each):
            point = sight.points_Q3[q]
            along = (point[0] - x, point[1] - y, point[2] - EYE_HEIGHT)
            hidden = not _in_view(along, view)
            for p in way:
                if hidden:
                    break
                hidden = blocks(sight.solids_PC[p], (x, y, EYE_HEIGHT), along)
            seen += not hidden
        first += each
        part_area = silhouette(sight.solids_PC[part], toward)
        area += part_area
        seen_area += part_area * seen / each
    return full_pixels(sight.solids_PC, object_9, x, y, view.focal) * seen_area / area
