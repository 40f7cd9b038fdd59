"""Visibility of goal objects: their pixels in a view, and the places that see enough of them.

A goal object is looked at through a few points inside each of its primitives. A point is seen if
no other solid meets the segment from the eye to it. The object then covers about as many pixels as
its primitives' silhouettes would, each times the share of its points that are seen. This costs
about a microsecond where a rendered count costs a millisecond; viewpoints and the expert use it,
the task's success test counts rendered pixels.

A viewpoint of an object is a free node near it from which, turned and tilted to face it, the agent
sees enough of it. Viewpoints are the ends of every path in the task: the distance to a goal is the
distance to its nearest viewpoint.

Shapes: P primitives, C columns of a packed primitive, O objects, Q points, V viewpoints, Y
and X grid rows and columns.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.navigation.grid import NavGrid
from envs.houses.scene import GoalObject, Kind, Primitives, Scene
from envs.objectnav.config import EYE_HEIGHT

MAX_DISTANCE: Final = 2.0
MIN_PIXELS: Final = 15.0
"""Estimated pixels; half as many again as the success test counts, as estimates err."""
SQUARE_PIXELS: Final = 256
"""Side of the square image that pixels are counted in, with a view of 90 degrees."""

Table = NDArray[np.float64]
Point = tuple[float, float, float]

X, Y, Z, HX, HY, HZ, COS, SIN, KIND, REACH, COLUMNS = range(11)
"""Columns of a packed primitive: centre, half extents, cosine and sine of the yaw, kind, horizontal
reach."""

_BOX: Final = int(Kind.BOX)
_ELLIPSOID: Final = int(Kind.ELLIPSOID)
_END: Final = 1e-9
"""Ray parameters this near the ends do not count, so that a touched surface does not block."""
_FOCAL: Final = SQUARE_PIXELS / 2.0
_INSIDE: Final = 0.975
"""Share of the squared distance that is used, so that a viewpoint is not on its very limit."""
_CORNERS: Final = np.array(
    [(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
)
_TETRAHEDRON: Final = np.array([(1.0, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
_SPREAD: Final = 0.57
"""Where points lie between the centre and the ends of a primitive's axes: as Gauss's do."""


def pack_solids(primitives: Primitives) -> Table:
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
        return (enter, leave) if abs(start) < half else (1.0, 0.0)  # parallel: all of it or nothing
    a = (-half - start) / along
    b = (half - start) / along
    return max(enter, min(a, b)), min(leave, max(a, b))


@njit(cache=True, nogil=True)
def blocks(solid_C: Table, start: Point, along: Point) -> bool:
    """Tell whether a solid meets the segment from `start` to `start + along`."""
    cos, sin = solid_C[COS], solid_C[SIN]
    x = start[0] - solid_C[X]
    y = start[1] - solid_C[Y]
    z = start[2] - solid_C[Z]
    x, y = cos * x + sin * y, cos * y - sin * x
    dx = cos * along[0] + sin * along[1]
    dy = cos * along[1] - sin * along[0]
    dz = along[2]
    hx, hy, hz = solid_C[HX], solid_C[HY], solid_C[HZ]
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
    if a == 0.0:  # along a cylinder's axis, so its caps alone decide
        return c < 0.0 and enter < leave
    inside = b * b - a * c
    if inside <= 0.0:
        return False
    root = math.sqrt(inside)
    return max(enter, (-b - root) / a) < min(leave, (-b + root) / a)


@njit(cache=True, nogil=True)
def silhouette(solid_C: Table, toward: Point) -> float:
    """Return the area of a solid's shadow on a plane across a unit direction."""
    cos, sin = solid_C[COS], solid_C[SIN]
    lx = abs(cos * toward[0] + sin * toward[1])
    ly = abs(cos * toward[1] - sin * toward[0])
    lz = abs(toward[2])
    hx, hy, hz = solid_C[HX], solid_C[HY], solid_C[HZ]
    if solid_C[KIND] == _BOX:
        return 4.0 * (lx * hy * hz + ly * hx * hz + lz * hx * hy)
    if solid_C[KIND] == _ELLIPSOID:
        lx *= hy * hz
        ly *= hx * hz
        lz *= hx * hy
        return math.pi * math.sqrt(lx * lx + ly * ly + lz * lz)
    return 4.0 * hx * hz * math.sqrt(lx * lx + ly * ly) + math.pi * hx * hx * lz


class PackedScene(NamedTuple):
    """A scene, packed for the kernels below."""

    solids_PC: Table
    """From `pack_solids`."""
    points_Q3: Table
    """Points inside goal objects, in the order of their primitives."""
    objects_O9: Table
    """Centre, radius, half height, first and last + 1 primitive, first point, points each."""


def pack_scene(scene: Scene) -> PackedScene:
    """Pack a scene's primitives and goal objects."""
    solids_PC = pack_solids(scene.primitives)
    objects_O9 = np.zeros((len(scene.objects), 9))
    patterns, first = [], 0
    for i, o in enumerate(scene.objects):
        parts = o.stop - o.start
        # Objects of many parts have points enough with fewer in each.
        pattern = np.concatenate([np.zeros((1, 3)), _CORNERS if parts == 1 else _TETRAHEDRON])
        objects_O9[i] = (o.x, o.y, o.z, o.radius, o.half_height, o.start, o.stop, first, 0)
        objects_O9[i, 8] = len(pattern)
        patterns.extend([pattern] * parts)
        first += parts * len(pattern)
    return PackedScene(solids_PC, _place_points(solids_PC, objects_O9, patterns), objects_O9)


def _place_points(solids_PC: Table, objects_O9: Table, patterns: list[Table]) -> Table:
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
def solids_near(solids_PC: Table, object_9: Table, distance: float) -> NDArray[np.int64]:
    """List the solids that could hide an object from eyes within a horizontal distance."""
    near, count = np.empty(len(solids_PC), np.int64), 0
    low = min(object_9[2] - object_9[4], EYE_HEIGHT)
    high = max(object_9[2] + object_9[4], EYE_HEIGHT)
    for p in range(len(solids_PC)):
        if object_9[5] <= p < object_9[6]:  # its own parts, which do not hide it
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
    solids_PC: Table, near: NDArray[np.int64], object_9: Table, x: float, y: float
) -> NDArray[np.int64]:
    """List those of the near solids that the lines from (x, y) to an object may pass."""
    way, count = np.empty(len(near), np.int64), 0
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
def _toward(object_9: Table, x: float, y: float) -> tuple[Point, float]:
    """Return the unit direction from an eye to an object's centre, and the squared distance."""
    dx = object_9[0] - x
    dy = object_9[1] - y
    dz = object_9[2] - EYE_HEIGHT
    squared = dx * dx + dy * dy + dz * dz
    scale = 1.0 / math.sqrt(squared)
    return (dx * scale, dy * scale, dz * scale), squared


@njit(cache=True, nogil=True)
def full_pixels(solids_PC: Table, object_9: Table, x: float, y: float, focal: float) -> float:
    """Return about how many pixels an object covers if nothing hides it."""
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
    packed: PackedScene, object_9: Table, near: NDArray[np.int64], x: float, y: float, view: View
) -> float:
    """Return about how many pixels of an object are seen from a position.

    Args:
        packed: The scene.
        object_9: A row of `packed.objects_O9`.
        near: What could hide it, from `solids_near`.
        x: Position of the eye, with `y`.
        y: See `x`.
        view: The camera.
    """
    way = _in_the_way(packed.solids_PC, near, object_9, x, y)
    toward, _ = _toward(object_9, x, y)
    first, each = int(object_9[7]), int(object_9[8])
    area = seen_area = 0.0
    for part in range(int(object_9[5]), int(object_9[6])):
        seen = 0
        for q in range(first, first + each):
            point = packed.points_Q3[q]
            along = (point[0] - x, point[1] - y, point[2] - EYE_HEIGHT)
            hidden = not _in_view(along, view)
            for p in way:
                if hidden:
                    break
                hidden = blocks(packed.solids_PC[p], (x, y, EYE_HEIGHT), along)
            seen += not hidden
        first += each
        part_area = silhouette(packed.solids_PC[part], toward)
        area += part_area
        seen_area += part_area * seen / each
    return full_pixels(packed.solids_PC, object_9, x, y, view.focal) * seen_area / area


@njit(cache=True, nogil=True)
def _object_viewpoints(
    packed: PackedScene,
    which: int,
    free_YX: NDArray[np.bool_],
    cell: float,
    distance: float,
    min_pixels: float,
) -> NDArray[np.float32]:
    """List the viewpoints of one object."""
    rows, columns = free_YX.shape
    object_9 = packed.objects_O9[which]
    near = solids_near(packed.solids_PC, object_9, distance)
    view = view_of(_FOCAL, 0.0, 0.0, 0.0)
    ox, oy = object_9[0], object_9[1]
    first_x = max(math.ceil((ox - distance) / cell - 0.5), 0)
    last_x = min(math.floor((ox + distance) / cell - 0.5), columns - 1)
    first_y = max(math.ceil((oy - distance) / cell - 0.5), 0)
    last_y = min(math.floor((oy + distance) / cell - 0.5), rows - 1)
    found = np.empty(((last_x - first_x + 1) * max(last_y - first_y + 1, 0), 2), np.float32)
    count = 0
    for iy in range(first_y, last_y + 1):
        y = (iy + 0.5) * cell
        for ix in range(first_x, last_x + 1):
            x = (ix + 0.5) * cell
            if not free_YX[iy, ix] or (x - ox) ** 2 + (y - oy) ** 2 > distance * distance:
                continue
            if full_pixels(packed.solids_PC, object_9, x, y, _FOCAL) < min_pixels:
                continue  # too far even if nothing hides it, which is cheap to tell
            pixels = seen_pixels(packed, object_9, near, x, y, view)
            if pixels >= min_pixels:
                found[count] = x, y
                count += 1
    return found[:count].copy()


def scene_viewpoints(
    scene: Scene,
    grid: NavGrid,
    max_distance: float = MAX_DISTANCE,
    *,
    min_pixels: float = MIN_PIXELS,
    packed: PackedScene | None = None,
) -> list[NDArray[np.float32]]:
    """Return the viewpoints (V, 2) of each of a scene's goal objects, in the scene's order.

    Args:
        scene: The scene.
        grid: The free space of its house.
        max_distance: Horizontal distance from the object's centre.
        min_pixels: Pixels of the object, by estimate, in a square image of 256 x 256 with a view
            of 90 degrees that faces it.
        packed: The scene as packed by `pack_scene`, if the caller has it.
    """
    packed = pack_scene(scene) if packed is None else packed
    return [
        viewpoints(scene, grid, obj, max_distance, min_pixels=min_pixels, packed=packed)
        for obj in scene.objects
    ]


def viewpoints(
    scene: Scene,
    grid: NavGrid,
    obj: GoalObject,
    max_distance: float = MAX_DISTANCE,
    *,
    min_pixels: float = MIN_PIXELS,
    packed: PackedScene | None = None,
) -> NDArray[np.float32]:
    """Return the viewpoints (V, 2) of one goal object; see `scene_viewpoints`.

    Raises:
        ValueError: If the object is not in the scene.
    """
    packed = pack_scene(scene) if packed is None else packed
    distance = max_distance * math.sqrt(_INSIDE)
    for i, other in enumerate(scene.objects):
        if other.instance == obj.instance:
            return _object_viewpoints(packed, i, grid.free_YX, grid.cell, distance, min_pixels)
    raise ValueError(
        f"viewpoints: obj must be one of the scene's objects, got instance {obj.instance}. "
        f"Take it from scene.objects (instances {[o.instance for o in scene.objects]})."
    )
