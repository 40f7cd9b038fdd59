"""Words for where furniture stands in a room: walls, openings, stretches of wall, placed models."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from envs.houses.floorplan import Rect
    from envs.houses.model import Model

_EDGE: Final = 1e-6
"""Rectangles that meet by less do not overlap."""


class Side(IntEnum):
    """A wall of the room, numbered by the quarter turns of what stands against it."""

    SOUTH = 0
    EAST = 1
    NORTH = 2
    WEST = 3


class Opening(NamedTuple):
    """A door as one of its two rooms sees it."""

    side: Side
    low: float
    high: float


class Placed(NamedTuple):
    """A model at its place."""

    model: Model
    x: float
    y: float
    quarter: int
    """Quarter turns counter-clockwise."""
    tilt: float
    """Radians on top of the quarter turns."""
    rect: Rect


class Spot(NamedTuple):
    """A stretch of wall that is long enough."""

    side: Side
    low: float
    high: float


class Member(NamedTuple):
    """A model in the frame of a group."""

    model: Model
    x: float
    y: float
    quarter: int = 0
    tilt: float = 0.0


def turned(x: float, y: float, quarter: int) -> tuple[float, float]:
    """Rotate by quarter turns, exactly."""
    return ((x, y), (-y, x), (-x, -y), (y, -x))[quarter % 4]


def overlap(a: Rect, b: Rect) -> bool:
    """Return whether the insides of two rectangles meet."""
    return (
        a.x0 < b.x1 - _EDGE and b.x0 < a.x1 - _EDGE and a.y0 < b.y1 - _EDGE and b.y0 < a.y1 - _EDGE
    )


def top_of(model: Model) -> float:
    """Return the height of a model with all that rides on it."""
    own = max(part.z + part.half_z for part in model.parts)
    return max([own, *(top_of(rider) for rider in model.riders)])
