"""The data of a furnished house: packed arrays that the generator fills and the kernels read.

Nothing here draws, plans or generates. Metres and radians throughout. The floor is the plane
z = 0, z points up, x and y span the floor, and a heading of 0 looks along +x and grows
counter-clockwise. A house occupies [0, extent x] x [0, extent y].

Shapes: P primitives, M materials, F faces of a primitive, R rooms, Y and X grid rows
and columns.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

GENERATOR_VERSION: Final = 1
"""Part of every dataset's name; any change to what a house number means raises it."""

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int16]


class Kind(IntEnum):
    """Shape of a primitive."""

    BOX = 0
    ELLIPSOID = 1
    CYLINDER = 2  # upright


class Face(IntEnum):
    """Index of a primitive's face, in the primitive's own frame, for `material_PF`.

    Boxes use all six. A cylinder uses POS_X for its side, POS_Z and NEG_Z for its caps. An
    ellipsoid uses POS_X only.
    """

    POS_X = 0
    NEG_X = 1
    POS_Y = 2
    NEG_Y = 3
    POS_Z = 4
    NEG_Z = 5


class Semantic(IntEnum):
    """Semantic ids below the object categories; 0 means that a ray hit nothing."""

    VOID = 0
    WALL = 1
    FLOOR = 2
    CEILING = 3


FURNITURE_SEMANTIC: Final = 10
"""Semantic id of the first furniture category; the category index is added to it."""

GOAL_INSTANCE: Final = 1
"""Instance id of an arrangement's first object. 0 means "no goal object" in the instance image."""


@dataclass(frozen=True, slots=True)
class Primitives:
    """P solids. Arrays share their first axis."""

    center_P3: FloatArray
    half_P3: FloatArray
    """Half extents of boxes, semi-axes of ellipsoids, (radius, radius, half height) else."""
    yaw_P: FloatArray
    """Rotation about the vertical axis through the centre."""
    kind_P: NDArray[np.uint8]
    material_PF: IntArray
    """Index into `Materials` by `Face`."""
    semantic_P: IntArray
    instance_P: IntArray
    """Goal instance id, 0 for all that is not a goal object."""

    def __len__(self) -> int:
        return len(self.yaw_P)


@dataclass(frozen=True, slots=True)
class Materials:
    """M surfaces: a colour times a tile of the shared pattern atlas.

    Tile coordinates (u, v): u runs to the right and v upwards on a box's upright faces as seen
    from outside, from the face's lower left corner; along the primitive's own x and y on its
    upper and lower faces, from the corner of least x and y. A cylinder's side has u around and v
    up, its caps are as a box's. An ellipsoid has u around and v up too. Floors and ceilings use the
    house's x and y, and walls without yaw the house's coordinates instead of their corner, so that
    a pattern runs on over doors. A tile's first row is its top (v = 1).
    """

    rgb_M3: FloatArray
    """Colour in [0, 1] before the tile and the light."""
    tile_M: IntArray
    """Index of a tile in `textures.atlas()`; 0 is the plain tile."""
    repeat_M: FloatArray
    """Metres of surface that one tile spans; 0 stretches one tile over the whole face, which is how
    pictures, doors and labels are made."""


Arrays = TypeVar("Arrays", Primitives, Materials)


def concatenate(*parts: Arrays) -> Arrays:
    """Join primitives, or materials, in order."""
    names = [field.name for field in fields(parts[0])]
    return type(parts[0])(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


@dataclass(frozen=True, slots=True)
class Room:
    """A rectangular room. Its rectangle reaches to the middle of its walls."""

    kind: str
    x0: float
    y0: float
    x1: float
    y1: float
    floor_material: int
    wall_material: int
    ceiling_material: int


@dataclass(frozen=True, slots=True)
class Door:
    """An opening in the wall between two rooms."""

    room_a: int
    room_b: int
    x: float
    """Centre of the opening."""
    y: float
    width: float
    height: float
    along_x: bool
    """True when the wall that holds the opening runs along x."""


@dataclass(frozen=True, slots=True)
class Receptacle:
    """A flat, horizontal surface that small objects may stand on."""

    furniture: str
    """Furniture category that it belongs to."""
    x: float
    y: float
    z: float
    half_x: float
    half_y: float
    yaw: float
    clearance: float
    """Free height above the surface."""


@dataclass(frozen=True, slots=True)
class Furniture:
    """A piece of furniture: the consecutive primitives [start, stop) of the house."""

    category: int
    x: float
    y: float
    yaw: float
    half_x: float
    half_y: float
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class House:
    """Geometry and furniture, without movable objects. A pure function of its seed and size."""

    seed: int
    size: str
    extent: tuple[float, float]
    wall_height: float
    rooms: tuple[Room, ...]
    doors: tuple[Door, ...]
    furniture: tuple[Furniture, ...]
    receptacles: tuple[Receptacle, ...]
    primitives: Primitives
    """Walls and furniture. Floors and ceilings are planes, drawn from `rooms`."""
    materials: Materials


@dataclass(frozen=True, slots=True)
class GoalObject:
    """One placed goal object: the consecutive primitives [start, stop) of the arrangement."""

    instance: int
    category: int
    x: float
    y: float
    z: float
    """Centre of the object."""
    radius: float
    """Of the upright cylinder about (x, y) that encloses it."""
    half_height: float
    receptacle: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A house with one arrangement of goal objects: what rows of the simulator live in."""

    house: House
    arrangement: int
    objects: tuple[GoalObject, ...]
    primitives: Primitives
    """The house's primitives, then those of the objects."""
    materials: Materials
    """The house's materials, then those of the objects."""
