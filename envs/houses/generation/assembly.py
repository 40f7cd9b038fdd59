"""Turns placed furniture and stretches of wall into the packed arrays of a house.

Coordinates are rounded to a tenth of a millimetre before they become float32, so that the last
bits of sine and cosine, which differ between machines, never show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.houses.furniture.catalogue import CATEGORY_INDEX
from envs.houses.furniture.piece import Part, Piece, Surface
from envs.houses.generation.blockers import Obstacles
from envs.houses.generation.doorways import OUTSIDE, WallPiece
from envs.houses.generation.room_layout import Placed
from envs.houses.navigation.grid import OBSTACLE_Z
from envs.houses.scene import (
    FURNITURE_SEMANTIC,
    Furniture,
    Kind,
    Primitives,
    Receptacle,
    Semantic,
)

_HALF_PI: Final = math.pi / 2
_COS: Final = (1.0, 0.0, -1.0, 0.0)
_SIN: Final = (0.0, 1.0, 0.0, -1.0)
_FACE_ORDER: Final = ((0, 1, 2, 3), (3, 2, 0, 1), (1, 0, 3, 2), (2, 3, 1, 0))
"""Which of a piece's upright faces looks along +x, -x, +y, -y after n quarter turns."""


class Frame(NamedTuple):
    """Where the frame of a piece lies in the house. Exact for quarter turns."""

    x: float
    y: float
    quarter: int
    tilt: float
    cos: float
    sin: float

    @classmethod
    def of(cls, placed: Placed) -> Frame:
        """Compute the frame of a placed piece."""
        # From a table, as `math.cos` of a quarter turn is not 0.
        cos, sin = _COS[placed.quarter], _SIN[placed.quarter]
        if placed.tilt:
            angle = placed.quarter * _HALF_PI + placed.tilt
            cos, sin = math.cos(angle), math.sin(angle)
        return cls(placed.x, placed.y, placed.quarter, placed.tilt, cos, sin)

    def apply(self, x: float, y: float) -> tuple[float, float]:
        """Take a point from the piece's frame to the house's."""
        return self.x + self.cos * x - self.sin * y, self.y + self.sin * x + self.cos * y


class Solid(NamedTuple):
    """One primitive on its way into the arrays."""

    x: float
    y: float
    z: float
    half_x: float
    half_y: float
    half_z: float
    yaw: float
    kind: int
    semantic: int
    faces: tuple[int, ...]


def wall_solids(
    pieces: Sequence[WallPiece],
    *,
    thickness: float,
    height: float,
    papers: Sequence[int],
    trim: int,
) -> list[Solid]:
    """Make a box of every piece of wall.

    Args:
        pieces: from `doorways.wall_pieces`.
        thickness: of all walls.
        height: of the rooms.
        papers: wall material by room.
        trim: material of the outside, and of the ends and undersides that show in doorways.
    """
    solids: list[Solid] = []
    for wall, low, high, bottom in pieces:
        below = trim if wall.below == OUTSIDE else papers[wall.below]
        above = trim if wall.above == OUTSIDE else papers[wall.above]
        middle, half = (low + high) / 2, (high - low) / 2
        z, half_z = (bottom + height) / 2, (height - bottom) / 2
        if wall.along_x:
            faces = (trim, trim, above, below, trim, trim)
            box = (middle, wall.at, z, half, thickness / 2, half_z)
        else:
            faces = (above, below, trim, trim, trim, trim)
            box = (wall.at, middle, z, thickness / 2, half, half_z)
        solids.append(Solid(*box, 0.0, Kind.BOX, Semantic.WALL, faces))
    return solids


def part_solid(part: Part, frame: Frame, semantic: int, *, keeps_yaw: bool) -> Solid:
    """Place one part.

    Quarter turns become an exchange of sides where no pattern on top would be lost, because
    unturned boxes are the cheapest to draw.
    """
    x, y = frame.apply(part.x, part.y)
    if keeps_yaw:
        yaw = frame.quarter * _HALF_PI + frame.tilt
        return Solid(
            x, y, part.z, part.half_x, part.half_y, part.half_z, yaw, part.kind, semantic,
            part.faces,
        )  # fmt: skip
    half_x, half_y, faces = part.half_x, part.half_y, part.faces
    if frame.quarter:
        order = _FACE_ORDER[frame.quarter]
        faces = (*(faces[i] for i in order), faces[4], faces[5])
        if frame.quarter % 2:
            half_x, half_y = half_y, half_x
    return Solid(
        x, y, part.z, half_x, half_y, part.half_z, frame.tilt, part.kind, semantic, faces
    )  # fmt: skip


def piece_solids(piece: Piece, frame: Frame) -> list[Solid]:
    """Place the parts of one piece, without its riders."""
    semantic = FURNITURE_SEMANTIC + CATEGORY_INDEX[piece.category]
    return [part_solid(part, frame, semantic, keeps_yaw=piece.keeps_yaw) for part in piece.parts]


def furniture_record(piece: Piece, frame: Frame, start: int) -> Furniture:
    """Describe a placed piece by the box around its parts, in its own frame."""
    parts = piece.parts
    x0, x1 = min(p.x - p.half_x for p in parts), max(p.x + p.half_x for p in parts)
    y0, y1 = min(p.y - p.half_y for p in parts), max(p.y + p.half_y for p in parts)
    x, y = frame.apply((x0 + x1) / 2, (y0 + y1) / 2)
    return Furniture(
        category=CATEGORY_INDEX[piece.category],
        x=round(x, 4),
        y=round(y, 4),
        yaw=round(frame.quarter * _HALF_PI + frame.tilt, 6),
        half_x=round((x1 - x0) / 2, 4),
        half_y=round((y1 - y0) / 2, 4),
        start=start,
        stop=start + len(parts),
    )


def receptacle(surface: Surface, category: str, frame: Frame) -> Receptacle:
    """Place a surface for small objects."""
    x, y = frame.apply(surface.x, surface.y)
    half_x, half_y = surface.half_x, surface.half_y
    if frame.quarter % 2:
        half_x, half_y = half_y, half_x
    return Receptacle(
        furniture=category,
        x=round(x, 4),
        y=round(y, 4),
        z=round(surface.z, 4),
        half_x=round(half_x, 4),
        half_y=round(half_y, 4),
        yaw=round(frame.tilt, 6),
        clearance=round(surface.clearance, 4),
    )


def pack_primitives(solids: Sequence[Solid]) -> Primitives:
    """Pack primitives into arrays."""
    # Rounded in float64: the last bits of sine and cosine differ between machines.
    geometry = np.round(np.array([solid[:7] for solid in solids], np.float64).reshape(-1, 7), 4)
    geometry = geometry.astype(np.float32)
    return Primitives(
        center_P3=geometry[:, 0:3].copy(),
        half_P3=geometry[:, 3:6].copy(),
        yaw_P=geometry[:, 6].copy(),
        kind_P=np.array([solid.kind for solid in solids], np.uint8),
        material_PF=np.array([solid.faces for solid in solids], np.int16).reshape(-1, 6),
        semantic_P=np.array([solid.semantic for solid in solids], np.int16),
        instance_P=np.zeros(len(solids), np.int16),
    )


def obstacles_of(solids: Sequence[Solid], piece_P: NDArray[np.int64]) -> Obstacles:
    """Take the primitives at the agent's height, each with the number of its piece or -1."""
    geometry = np.array([solid[:7] for solid in solids], np.float64)
    bottom, top = geometry[:, 2] - geometry[:, 5], geometry[:, 2] + geometry[:, 5]
    low = (bottom < OBSTACLE_Z[1]) & (top > OBSTACLE_Z[0])
    geometry = geometry[low]
    kinds = np.array([solid.kind for solid in solids])[low]
    yaw_B: NDArray[np.float64] = geometry[:, 6]
    return Obstacles(
        x_B=geometry[:, 0].copy(),
        y_B=geometry[:, 1].copy(),
        half_x_B=geometry[:, 3].copy(),
        half_y_B=geometry[:, 4].copy(),
        cos_B=np.cos(yaw_B).round(6),
        sin_B=np.sin(yaw_B).round(6),
        round_B=kinds == Kind.CYLINDER,
        piece_B=piece_P[low],
    )
