"""Triangles of a house's solids, in the frame that glTF and Habitat use.

Our (x, y, z), z up, becomes (x, z, -y), y up: a rotation by a quarter turn about x, so that a yaw
about our z axis is the same yaw about theirs. Positions are in metres. Boxes are exact; an
ellipsoid or a cylinder is a polyhedron whose corners lie on it and whose faces lie at most 2 % of
a radius inside of it. Faces are seen from outside only. Colours have the light of the embedded
renderer in them, and tile coordinates are those of `scene.Materials`.

Shapes: V vertices, T triangles, C coordinates of solids, S corners of one ring.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.houses.rendering.color import AMBIENT, LIGHT
from envs.houses.scene import Face, Kind, Materials, Primitives, Room, Semantic

SEGMENTS: Final = 24
"""Corners of a circle."""
RINGS: Final = 12
"""Bands of an ellipsoid from pole to pole."""

_LIGHT: Final = np.array(LIGHT, np.float64)
_FACE_AXES: Final = ((1, 2), (1, 2), (0, 2), (0, 2), (0, 1), (0, 1))
"""The axes that a box's face lies along, by `Face`."""
_MIRRORED: Final = (Face.NEG_X, Face.POS_Y)
"""Faces whose first axis points to the left when they are seen from outside."""
_CORNERS: Final = ((0, 0), (1, 0), (1, 1), (0, 1))

FloatArray = NDArray[np.float64]


class Mesh(NamedTuple):
    """Triangles, counter-clockwise as seen from outside."""

    position_V3: FloatArray
    tile_V2: FloatArray
    """Coordinates on the tile, v upwards."""
    rgb_V3: FloatArray
    """Colour times light in [0, 1], before the tile."""
    triangle_T3: NDArray[np.int64]


class Patch(NamedTuple):
    """Triangles of one face with its tile, a row of the atlas."""

    tile: int
    mesh: Mesh


def to_habitat_frame(point_C3: FloatArray) -> FloatArray:
    """Take positions or directions (..., 3) from our frame to Habitat's."""
    return point_C3[..., [0, 2, 1]] * np.array([1.0, 1.0, -1.0])


def solid_patches(
    primitives: Primitives, materials: Materials, indices: Iterable[int]
) -> Iterator[Patch]:
    """Make the faces of some primitives, in our frame."""
    for p in indices:
        half_3 = primitives.half_P3[p].astype(np.float64)
        center_3 = primitives.center_P3[p].astype(np.float64)
        kind, yaw = Kind(primitives.kind_P[p]), float(primitives.yaw_P[p])
        wall = kind is Kind.BOX and yaw == 0.0 and primitives.semantic_P[p] == Semantic.WALL
        for side in Face:
            material = int(primitives.material_PF[p, side])
            repeat = float(materials.repeat_M[material])
            if kind is Kind.BOX:
                on_house_3 = center_3 if wall else None
                local = _flat(_rectangle(half_3, side), half_3, side, repeat, on_house_3)
            elif kind is Kind.CYLINDER and side >= Face.POS_Z:
                local = _flat(_disc(half_3, side), half_3, side, repeat, None)
            elif side is Face.POS_X:
                local = _round(kind, half_3, repeat)
            else:
                continue
            yield _placed(local, center_3, yaw, materials, material)


def room_patch(room: Room, materials: Materials, height: float, side: Face) -> Patch:
    """Make a room's floor (side POS_Z) or ceiling (NEG_Z), in our frame."""
    material = room.floor_material if side is Face.POS_Z else room.ceiling_material
    center_3 = np.array([(room.x0 + room.x1) / 2, (room.y0 + room.y1) / 2, height])
    half_3 = np.array([(room.x1 - room.x0) / 2, (room.y1 - room.y0) / 2, 0.0])
    repeat = float(materials.repeat_M[material])
    local = _flat(_rectangle(half_3, side), half_3, side, repeat, center_3)
    return _placed(local, center_3, 0.0, materials, material)


def by_tile(patches: Iterable[Patch]) -> dict[int, Mesh]:
    """Join patches of the same tile."""
    groups: dict[int, list[Mesh]] = {}
    for tile, mesh in patches:
        groups.setdefault(tile, []).append(mesh)
    return {tile: join(groups[tile]) for tile in sorted(groups)}


def join(meshes: list[Mesh]) -> Mesh:
    """Join meshes in order."""
    first = np.cumsum([0, *(len(m.position_V3) for m in meshes[:-1])])
    return Mesh(
        np.concatenate([m.position_V3 for m in meshes]),
        np.concatenate([m.tile_V2 for m in meshes]),
        np.concatenate([m.rgb_V3 for m in meshes]),
        np.concatenate([m.triangle_T3 + at for m, at in zip(meshes, first, strict=True)]),
    )


class _Local(NamedTuple):
    """A face in its primitive's own frame."""

    position_V3: FloatArray
    normal_V3: FloatArray
    tile_V2: FloatArray
    triangle_T3: NDArray[np.int64]


def _placed(
    local: _Local, center_3: FloatArray, yaw: float, materials: Materials, material: int
) -> Patch:
    """Turn, move and light a face."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    turn_33 = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    light_V = float(AMBIENT) + local.normal_V3 @ turn_33.T @ _LIGHT
    rgb_V3 = light_V[:, None] * materials.rgb_M3[material].astype(np.float64)
    position_V3 = local.position_V3 @ turn_33.T + center_3
    mesh = Mesh(position_V3, local.tile_V2, np.clip(rgb_V3, 0.0, 1.0), local.triangle_T3)
    return Patch(int(materials.tile_M[material]), mesh)


def _rectangle(half_3: FloatArray, side: Face) -> FloatArray:
    """Return the corners of a box's face, counter-clockwise in the face's two axes."""
    a, b = _FACE_AXES[side]
    corner_V3 = np.empty((4, 3))
    for v, (i, j) in enumerate(_CORNERS):
        corner_V3[v, a], corner_V3[v, b] = (2 * i - 1) * half_3[a], (2 * j - 1) * half_3[b]
    corner_V3[:, side // 2] = half_3[side // 2] * (1 if side % 2 == 0 else -1)
    return corner_V3


def _disc(half_3: FloatArray, side: Face) -> FloatArray:
    """Return the corners of a cylinder's cap, counter-clockwise as seen from above."""
    angle_S = np.arange(SEGMENTS) * (2.0 * math.pi / SEGMENTS)
    z = half_3[2] if side is Face.POS_Z else -half_3[2]
    x_S, y_S = half_3[0] * np.cos(angle_S), half_3[1] * np.sin(angle_S)
    return np.stack([x_S, y_S, np.full(SEGMENTS, z)], 1)


def _flat(
    corner_V3: FloatArray,
    half_3: FloatArray,
    side: Face,
    repeat: float,
    center_3: FloatArray | None,
) -> _Local:
    """Make a flat face of its corners.

    Args:
        corner_V3: in the primitive's frame, counter-clockwise in the face's two axes.
        half_3: half extents of the primitive.
        side: which face.
        repeat: metres that a tile spans; 0 stretches one over the face.
        center_3: of the primitive, if tiles lie on the house's coordinates; else they begin at the
            face's corner.
    """
    a, b = _FACE_AXES[side]
    low_3, right = -half_3, 2 * half_3[a]
    if center_3 is not None and repeat != 0.0:
        low_3, right = -center_3, 0.0
    span_a, span_b = (2 * half_3[a], 2 * half_3[b]) if repeat == 0.0 else (repeat, repeat)
    u_V, v_V = (corner_V3[:, a] - low_3[a]) / span_a, (corner_V3[:, b] - low_3[b]) / span_b
    if side in _MIRRORED:
        u_V = right / span_a - u_V
    fan_T = np.arange(1, len(corner_V3) - 1)
    triangle_T3 = np.stack([np.zeros_like(fan_T), fan_T, fan_T + 1], 1)
    if side in (*_MIRRORED, Face.NEG_Z):
        triangle_T3 = triangle_T3[:, ::-1]
    normal_3 = np.zeros(3)
    normal_3[side // 2] = 1.0 if side % 2 == 0 else -1.0
    normal_V3 = np.tile(normal_3, (len(corner_V3), 1))
    return _Local(corner_V3, normal_V3, np.stack([u_V, v_V], 1), triangle_T3)


def _round(kind: Kind, half_3: FloatArray, repeat: float) -> _Local:
    """Make an ellipsoid, or the side of a cylinder."""
    bands = RINGS if kind is Kind.ELLIPSOID else 1
    angle_S = np.linspace(0.0, 2.0 * math.pi, SEGMENTS + 1)
    tilt_R = np.linspace(-0.5, 0.5, bands + 1) * math.pi
    width_R = np.cos(tilt_R) if kind is Kind.ELLIPSOID else np.ones(2)
    height_R = np.sin(tilt_R)
    unit_RS3 = np.stack(
        [
            width_R[:, None] * np.cos(angle_S),
            width_R[:, None] * np.sin(angle_S),
            np.broadcast_to(height_R[:, None], (bands + 1, SEGMENTS + 1)),
        ],
        -1,
    )
    unit_V3 = unit_RS3.reshape(-1, 3)
    normal_V3 = unit_V3 / half_3
    if kind is Kind.CYLINDER:
        normal_V3 = normal_V3 * np.array([1.0, 1.0, 0.0])
    normal_V3 /= np.linalg.norm(normal_V3, axis=1, keepdims=True)
    position_V3 = unit_V3 * half_3
    quarter = math.pi / 4.0 * (half_3[0] + half_3[1])
    span = (4.0 * quarter, 2.0 * half_3[2]) if repeat == 0.0 else (repeat, repeat)
    u_S = _quarter_turns(angle_S, half_3) * quarter / span[0]
    v_V = (position_V3[:, 2] + half_3[2]) / span[1]
    tile_V2 = np.stack([np.tile(u_S, bands + 1), v_V], 1)
    first_T = (np.arange(bands)[:, None] * (SEGMENTS + 1) + np.arange(SEGMENTS)).ravel()
    above_T = first_T + SEGMENTS + 1
    lower = np.stack([first_T, first_T + 1, above_T + 1], 1)
    upper = np.stack([first_T, above_T + 1, above_T], 1)
    if kind is Kind.ELLIPSOID:  # at a pole, one of the two triangles has no area
        lower, upper = lower[SEGMENTS:], upper[: len(upper) - SEGMENTS]
    return _Local(position_V3, normal_V3, tile_V2, np.concatenate([lower, upper]))


def _quarter_turns(angle_S: FloatArray, half_3: FloatArray) -> FloatArray:
    """Return how many sides of the square |x| + |y| = 1 lie between +x and a direction."""
    x_S, y_S = np.abs(half_3[0] * np.cos(angle_S)), np.abs(half_3[1] * np.sin(angle_S))
    quadrant_S = np.floor(np.arange(len(angle_S)) * 4 / SEGMENTS)
    odd_S = quadrant_S % 2 == 1
    return quadrant_S + np.where(odd_S, x_S, y_S) / (x_S + y_S)
