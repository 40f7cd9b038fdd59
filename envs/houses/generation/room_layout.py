"""Finds places for furniture in one room: along walls, in corners, in the middle, on walls.

Bodies of furniture never overlap each other or a zone that is kept clear. Zones are the ground
before doors, and the ground before furniture that people stand at; zones may overlap each other.
Nothing here knows categories of furniture; `rooms.py` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from envs.houses.draws import Draws
from envs.houses.furniture.piece import Piece
from envs.houses.generation.floorplan import Rect

_EDGE: Final = 1e-6
"""Rectangles that meet by less do not overlap."""


class Side(IntEnum):
    """A wall of the room, numbered by the quarter turns of what stands against it."""

    SOUTH = 0
    EAST = 1
    NORTH = 2
    WEST = 3


class Placed(NamedTuple):
    """A piece at its place."""

    piece: Piece
    x: float
    y: float
    quarter: int
    """Quarter turns counter-clockwise."""
    tilt: float
    """Radians on top of the quarter turns."""
    rect: Rect


class Stretch(NamedTuple):
    """A part of a wall, by its ends along it."""

    side: Side
    low: float
    high: float

    @property
    def length(self) -> float:
        """In metres."""
        return self.high - self.low

    @property
    def middle(self) -> float:
        """Its coordinate along the wall."""
        return (self.low + self.high) / 2


class Member(NamedTuple):
    """A piece in the frame of a group."""

    piece: Piece
    x: float = 0.0
    y: float = 0.0
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


def top_of(piece: Piece) -> float:
    """Return the height of a piece with all that rides on it."""
    own = max(part.z + part.half_z for part in piece.parts)
    return max([own, *(top_of(rider) for rider in piece.riders)])


WALL_GAP: Final = 0.01
"""Furniture keeps this off the walls, so that no two faces coincide."""
DOOR_ZONE_DEPTH: Final = 0.85
DOOR_ZONE_MARGIN: Final = 0.04
_DECOR_REACH: Final = 0.25


@dataclass(slots=True)
class RoomLayout:
    """One room while it is being furnished."""

    inner: Rect
    """Free of the walls."""
    openings: list[Stretch]
    """Doors, as this one of their two rooms sees them."""
    outer: list[Stretch]
    """Walls towards the outside, where windows go."""
    draws: Draws
    bodies: list[Rect] = field(default_factory=list)
    """Ground that furniture covers."""
    zones: list[Rect] = field(default_factory=list)
    """Ground to keep clear, before the doors first."""
    placed: list[Placed] = field(default_factory=list)
    hung: list[Stretch] = field(default_factory=list)
    """Parts of walls that something hangs on."""

    def __post_init__(self) -> None:
        for side, low, high in self.openings:
            margin = DOOR_ZONE_MARGIN
            self.zones.append(self.strip(side, low - margin, high + margin, 0.0, DOOR_ZONE_DEPTH))

    def strip(self, side: Side, low: float, high: float, near: float, far: float) -> Rect:
        """Return the rectangle along a wall between two distances from it."""
        x0, y0, x1, y1 = self.inner
        if side == Side.SOUTH:
            return Rect(low, y0 + near, high, y0 + far)
        if side == Side.NORTH:
            return Rect(low, y1 - far, high, y1 - near)
        if side == Side.WEST:
            return Rect(x0 + near, low, x0 + far, high)
        return Rect(x1 - far, low, x1 - near, high)

    def span(self, side: Side) -> tuple[float, float]:
        """Return where a wall begins and ends."""
        x0, y0, x1, y1 = self.inner
        return (x0, x1) if side in (Side.SOUTH, Side.NORTH) else (y0, y1)

    def _across(self, side: Side) -> float:
        return self.inner.depth if side in (Side.SOUTH, Side.NORTH) else self.inner.width

    def spots(
        self, width: float, depth: float, *, front: float = 0.0, gap: float = 0.03
    ) -> Iterator[Stretch]:
        """Find stretches of wall where something of this size fits.

        Args:
            width: along the wall.
            depth: away from the wall.
            front: ground before it that must be free of bodies.
            gap: distance to neighbours.
        """
        for side in Side:
            if self._across(side) < depth + front:
                continue
            low, high = self.span(side)
            body = self.strip(side, low, high, 0.0, depth)
            blocked = [r for r in (*self.bodies, *self.zones) if overlap(r, body)]
            if front > 0.0:
                # Zones may overlap each other, so only bodies are in the way of one.
                ahead = self.strip(side, low, high, depth, depth + front)
                blocked += [r for r in self.bodies if overlap(r, ahead)]
            along_x = side in (Side.SOUTH, Side.NORTH)
            taken = [(r.x0, r.x1) if along_x else (r.y0, r.y1) for r in blocked]
            start = low + WALL_GAP
            for first, last in sorted(taken):
                if first - gap - start >= width:
                    yield Stretch(side, start, first - gap)
                # Blocked stretches may overlap, and a shorter one end before the one in hand.
                start = max(start, last + gap)
            if high - WALL_GAP - start >= width:
                yield Stretch(side, start, high - WALL_GAP)

    def against_wall(
        self,
        group: list[Member],
        width: float,
        depth: float,
        *,
        front: float = 0.5,
        corner: bool = False,
        facing: tuple[Side, float] | None = None,
    ) -> Stretch | None:
        """Place a group with its back to a wall; its frame's origin is the middle of its size.

        Args:
            group: what to place.
            width: of the whole group.
            depth: of the whole group.
            front: ground to keep clear before it.
            corner: prefer the ends of walls.
            facing: prefer the wall across from this side, near this coordinate along it.

        Returns:
            The stretch of wall that it fills, or None if it fits nowhere.
        """
        spots = list(self.spots(width, depth + WALL_GAP, front=front))
        if not spots:
            return None
        spot = self._choose(spots, width, facing)
        slack = spot.length - width
        if facing is not None and spot.side == (facing[0] + 2) % 4:
            offset = min(max(facing[1] - width / 2 - spot.low, 0.0), slack)
        elif corner or self.draws.chance(0.4):
            offset = slack if self.draws.chance(0.5) else 0.0
        else:
            offset = self.draws.uniform(0.0, slack)
        low = spot.low + offset
        self.put_on_wall(group, Stretch(spot.side, low, low + width), depth)
        if front > 0.0:
            near = depth + WALL_GAP
            self.zones.append(self.strip(spot.side, low, low + width, near, near + front))
        return Stretch(spot.side, low, low + width)

    def add(
        self,
        piece: Piece,
        *,
        front: float = 0.5,
        corner: bool = False,
        facing: tuple[Side, float] | None = None,
    ) -> Stretch | None:
        """Place a single piece with its back to a wall; see `against_wall`."""
        group = [Member(piece)]
        return self.against_wall(
            group, piece.width, piece.depth, front=front, corner=corner, facing=facing
        )

    def _choose(
        self, spots: list[Stretch], width: float, facing: tuple[Side, float] | None
    ) -> Stretch:
        if facing is not None:
            opposite = [s for s in spots if s.side == (facing[0] + 2) % 4]
            if opposite:
                return min(opposite, key=lambda s: abs(s.middle - facing[1]))
        # No spot is shorter than the width, so all weights are above 0.
        return spots[self.draws.weighted([s.length - 0.6 * width for s in spots])]

    def put_on_wall(self, group: list[Member], spot: Stretch, depth: float) -> None:
        """Place a group whose middle is that of a stretch of wall that it fits."""
        place = self.strip(spot.side, spot.low, spot.high, WALL_GAP, WALL_GAP + depth)
        for member in group:
            self.put(member, place.centre, int(spot.side))

    def put(self, member: Member, centre: tuple[float, float], quarter: int) -> None:
        """Place a member of a group whose frame has this centre and turn."""
        placed = self.resolve(member, centre, quarter)
        self.placed.append(placed)
        self.bodies.append(placed.rect)

    def resolve(self, member: Member, centre: tuple[float, float], quarter: int) -> Placed:
        """Say where a member of a group would stand."""
        dx, dy = turned(member.x, member.y, quarter)
        x, y = centre[0] + dx, centre[1] + dy
        total = (member.quarter + quarter) % 4
        tilt = abs(member.tilt)
        half_x, half_y = member.piece.width / 2, member.piece.depth / 2
        # A bound without sine and cosine: |sin a| <= |a| and |cos a| <= 1.
        half_x, half_y = half_x + tilt * half_y, half_y + tilt * half_x
        if total % 2:
            half_x, half_y = half_y, half_x
        rect = Rect(x - half_x, y - half_y, x + half_x, y + half_y)
        return Placed(member.piece, x, y, total, member.tilt, rect)

    def fits(self, rect: Rect, *, margin: float = 0.0) -> bool:
        """Return whether a body may fill this rectangle."""
        x0, y0, x1, y1 = self.inner
        wide = Rect(rect.x0 - margin, rect.y0 - margin, rect.x1 + margin, rect.y1 + margin)
        if wide.x0 < x0 or wide.y0 < y0 or wide.x1 > x1 or wide.y1 > y1:
            return False
        return not any(overlap(wide, other) for other in (*self.bodies, *self.zones))

    def try_put(self, member: Member, centre: tuple[float, float], quarter: int) -> bool:
        """Place a member unless it is in the way; zones before furniture do not hinder it."""
        rect = self.resolve(member, centre, quarter).rect
        x0, y0, x1, y1 = self.inner
        doors = self.zones[: len(self.openings)]  # which `__post_init__` put first
        if rect.x0 < x0 or rect.y0 < y0 or rect.x1 > x1 or rect.y1 > y1:
            return False
        if any(overlap(rect, other) for other in (*self.bodies, *doors)):
            return False
        self.put(member, centre, quarter)
        return True

    def in_middle(
        self, group: list[Member], width: float, depth: float, *, margin: float
    ) -> tuple[float, float] | None:
        """Place a group away from the walls, as near to the room's middle as it fits."""
        middle_x, middle_y = self.inner.centre
        quarter = 0 if (self.inner.width > self.inner.depth) == (width > depth) else 1
        for attempt in range(16):
            # 0 at first: the very middle is tried before all else.
            spread = 0.06 * attempt
            turn = quarter + (attempt % 4 == 3)
            half_x, half_y = (width / 2, depth / 2) if turn % 2 == 0 else (depth / 2, width / 2)
            x = middle_x + self.draws.uniform(-spread, spread) * self.inner.width
            y = middle_y + self.draws.uniform(-spread, spread) * self.inner.depth
            if self.fits(Rect(x - half_x, y - half_y, x + half_x, y + half_y), margin=margin):
                for member in group:
                    self.put(member, (x, y), turn)
                return x, y
        return None

    def wall_stretch(self, side: Side, bottom: float) -> list[Stretch]:
        """List where something may hang whose lower edge is at this height."""
        low, high = self.span(side)
        reach = self.strip(side, low, high, 0.0, _DECOR_REACH)
        along_x = side in (Side.SOUTH, Side.NORTH)
        taken = [(o.low - 0.12, o.high + 0.12) for o in self.openings if o.side == side]
        taken += [(first, last) for wall, first, last in self.hung if wall == side]
        for placed in self.placed:
            if overlap(placed.rect, reach) and top_of(placed.piece) > bottom:
                rect = placed.rect
                taken.append((rect.x0, rect.x1) if along_x else (rect.y0, rect.y1))
        stretches: list[Stretch] = []
        start = low + 0.05
        for first, last in sorted(taken):
            if first - start > 0.3:
                stretches.append(Stretch(side, start, first))
            start = max(start, last)
        if high - 0.05 - start > 0.3:
            stretches.append(Stretch(side, start, high - 0.05))
        return stretches

    def hang(self, piece: Piece, spot: Stretch, *, margin: float = 0.1) -> None:
        """Hang a piece in the middle of a stretch of wall; it takes no ground."""
        middle = spot.middle
        half = piece.width / 2
        place = self.strip(spot.side, middle - half, middle + half, 0.0, piece.depth)
        self.lay(piece, place.centre, int(spot.side))
        self.hung.append(Stretch(spot.side, middle - half - margin, middle + half + margin))

    def lay(self, piece: Piece, centre: tuple[float, float], quarter: int) -> None:
        """Lay something flat on the floor, where it takes no ground."""
        self.placed.append(self.resolve(Member(piece), centre, quarter))
