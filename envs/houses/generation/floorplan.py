"""Cuts a rectangle into rooms and says what kind each room is.

All rooms are rectangles that tile the house; coordinates are those of the walls' middle lines.
Doors and walls between the rooms are cut in `doorways.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from envs.houses.draws import Draws

CELL: Final = 0.05
"""Sides of houses are whole multiples of this."""


class Rect(NamedTuple):
    """An axis-aligned rectangle."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Extent along x."""
        return self.x1 - self.x0

    @property
    def depth(self) -> float:
        """Extent along y."""
        return self.y1 - self.y0

    @property
    def centre(self) -> tuple[float, float]:
        """Its middle."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    @property
    def area(self) -> float:
        """Square metres."""
        return self.width * self.depth

    def cut(self, share: float, *, along_x: bool) -> tuple[Rect, Rect]:
        """Split in two at a share of the extent along x or y, at a whole centimetre."""
        x0, y0, x1, y1 = self
        if along_x:
            at = round(x0 + share * (x1 - x0), 2)
            return Rect(x0, y0, at, y1), Rect(at, y0, x1, y1)
        at = round(y0 + share * (y1 - y0), 2)
        return Rect(x0, y0, x1, at), Rect(x0, at, x1, y1)


class Zone(NamedTuple):
    """A room in the making."""

    rect: Rect
    is_hall: bool


class SizeSpec(NamedTuple):
    """What a size of house means."""

    rooms: tuple[int, int]
    """Least and greatest number of rooms, halls included."""
    room_area: tuple[float, float]
    """Square metres of house per room."""
    side: tuple[float, float]
    """Least and greatest side of the house."""


SIZES: Final[dict[str, SizeSpec]] = {
    "small": SizeSpec((3, 5), (12.5, 15.5), (5.5, 9.5)),
    "medium": SizeSpec((8, 10), (14.5, 17.0), (10.5, 13.5)),
    "large": SizeSpec((13, 18), (17.0, 20.0), (15.0, 20.0)),
}

_LEAST_SIDE: Final = 1.9
_GREATEST_ASPECT: Final = 2.6
_HALL_WIDTH: Final = (1.35, 1.75)
_ATTEMPTS: Final = 200

_TARGET_AREA: Final = {
    "living_room": 24.0,
    "kitchen": 12.5,
    "dining_room": 13.0,
    "bedroom": 14.0,
    "bathroom": 6.0,
    "study": 9.5,
    "laundry": 5.5,
    "playroom": 11.0,
}
_FIRST_KINDS: Final = ("living_room", "bedroom", "kitchen", "bathroom")
_MORE_KINDS: Final = ("dining_room", "study", "bedroom", "bathroom", "playroom", "laundry")
_FURTHER_KINDS: Final = ("bedroom", "study", "bedroom", "bathroom", "living_room", "playroom")
_LIKED_NEIGHBOURS: Final = {
    frozenset(("living_room", "dining_room")): 1.5,
    frozenset(("living_room", "kitchen")): 1.0,
    frozenset(("kitchen", "dining_room")): 2.0,
    frozenset(("kitchen", "laundry")): 0.7,
    frozenset(("bedroom", "bathroom")): 0.7,
    frozenset(("living_room", "bathroom")): -0.5,
    frozenset(("kitchen", "bathroom")): -0.5,
}


def extent_cells(size: str, rooms: int, draws: Draws, split_code: int) -> tuple[int, int]:
    """Draw the house's sides in cells.

    Their sum leaves `split_code` as the remainder of a division by three, so that no two houses
    of different splits have the same plan.
    """
    spec = SIZES[size]
    area = rooms * draws.uniform(*spec.room_area)
    aspect = draws.uniform(0.8, 1.25)
    low, high = spec.side
    width = min(max(math.sqrt(area * aspect), low), high)
    depth = min(max(area / width, low), high)
    # 20 cells to a metre.
    columns, rows = int(width * 20.0), int(depth * 20.0)
    rows -= (columns + rows - split_code) % 3
    return columns, rows


def partition(size: str, rooms: int, outline: Rect, draws: Draws) -> list[Zone]:
    """Tile the outline with rooms and halls.

    Raises:
        RuntimeError: No attempt gave rooms of sound proportions; no drawn outline does this.
    """
    for _ in range(_ATTEMPTS):
        zones = _attempt(size, rooms, outline, draws)
        if zones is not None:
            return zones
    raise RuntimeError(f"floorplan.partition: no plan of {rooms} rooms fits {outline}.")


def _attempt(size: str, rooms: int, outline: Rect, draws: Draws) -> list[Zone] | None:
    if size == "small":
        if rooms == 5 and draws.chance(0.5):
            return _around_hall(outline, rooms, draws)
        return _halves(outline, rooms, draws)
    if size == "large":
        return _wings(outline, rooms, draws, halls=True)
    form = draws.unit()
    if form < 0.5:
        return _around_hall(outline, rooms, draws)
    if form < 0.85:
        return _wings(outline, rooms, draws, halls=False)
    return _halves(outline, rooms, draws)


def _wings(outline: Rect, rooms: int, draws: Draws, *, halls: bool) -> list[Zone] | None:
    """Cut the house in two: one part around a hall, the other with or without one."""
    along_x = outline.width > outline.depth
    share = draws.uniform(0.36, 0.5)
    first_rooms = max(2, round(share * rooms - (0 if halls else 0.5)))
    first, second = outline.cut(share, along_x=along_x)
    if draws.chance(0.5):
        first, second = outline.cut(1.0 - share, along_x=along_x)[::-1]
    plain = _around_hall if halls and first_rooms >= 5 else _halves
    parts = (plain(first, first_rooms, draws), _around_hall(second, rooms - first_rooms, draws))
    if parts[0] is None or parts[1] is None:
        return None
    return parts[0] + parts[1]


def _around_hall(rect: Rect, rooms: int, draws: Draws) -> list[Zone] | None:
    """Lay a hall across the rectangle and rooms on both sides of it."""
    along_x = rect.width > rect.depth if draws.chance(0.75) else rect.width <= rect.depth
    depth = rect.depth if along_x else rect.width
    hall = draws.uniform(*_HALL_WIDTH)
    share = draws.uniform(0.38, 0.62) * (depth - hall) / depth
    below, rest = rect.cut(share, along_x=not along_x)
    rest_depth = rest.depth if along_x else rest.width
    middle, above = rest.cut(hall / rest_depth, along_x=not along_x)
    below_rooms = round((rooms - 1) * below.area / (below.area + above.area))
    counts = (below_rooms, rooms - 1 - below_rooms)
    zones = [Zone(middle, True)]
    for side, count in zip((below, above), counts, strict=True):
        part = _row(side, count, draws, along_x=along_x)
        if part is None:
            return None
        zones += part
    return zones


def _row(rect: Rect, rooms: int, draws: Draws, *, along_x: bool) -> list[Zone] | None:
    """Divide a strip beside a hall into columns, some of which are cut once more."""
    if rooms < 1:
        return None
    length, depth = (rect.width, rect.depth) if along_x else (rect.depth, rect.width)
    columns = rooms
    while columns > 1 and (length / columns < 2.7 or length / columns < 0.62 * depth):
        columns -= 1
    twice = rooms - columns
    if twice > columns or (twice and depth < 2 * _LEAST_SIDE + 0.4):
        return None
    doubled = set(draws.shuffled(range(columns))[:twice])
    weights = [draws.uniform(0.65, 1.4) * (1.2 if i in doubled else 1.0) for i in range(columns)]
    zones: list[Zone] = []
    rest = rect
    for i in range(columns):
        if i + 1 < columns:
            piece, rest = rest.cut(weights[i] / sum(weights[i:]), along_x=along_x)
        else:
            piece = rest
        parts: tuple[Rect, ...] = (piece,)
        if i in doubled:
            parts = piece.cut(draws.uniform(0.38, 0.62), along_x=not along_x)
        zones += [Zone(part, False) for part in parts]
    return zones if all(_sound(zone.rect) for zone in zones) else None


def _halves(rect: Rect, rooms: int, draws: Draws) -> list[Zone] | None:
    """Cut in two again and again, the longer side first."""
    if rooms == 1:
        return [Zone(rect, False)] if _sound(rect) else None
    few = rooms // 2
    count = few if draws.chance(0.5) else rooms - few
    aspect = rect.width / rect.depth
    along_x = draws.chance(0.5) if 0.85 < aspect < 1.18 else aspect > 1.0
    share = min(max(count / rooms * draws.uniform(0.82, 1.18), 0.25), 0.75)
    first, second = rect.cut(share, along_x=along_x)
    parts = (_halves(first, count, draws), _halves(second, rooms - count, draws))
    if parts[0] is None or parts[1] is None:
        return None
    return parts[0] + parts[1]


def _sound(rect: Rect) -> bool:
    short, long = sorted((rect.width, rect.depth))
    return short >= _LEAST_SIDE and long <= _GREATEST_ASPECT * short


def assign_kinds(
    zones: Sequence[Zone], adjacent: Sequence[tuple[int, int]], draws: Draws
) -> list[str]:
    """Say what each room is: by area first, then swapped until liked rooms are neighbours."""
    rooms = [i for i, zone in enumerate(zones) if not zone.is_hall]
    wanted = list(_FIRST_KINDS)
    if len(rooms) == 3 and draws.chance(0.5):
        wanted.remove(draws.choice(("bedroom", "bathroom")))
    wanted += draws.shuffled(_MORE_KINDS)
    while len(wanted) < len(rooms):
        wanted += draws.shuffled(_FURTHER_KINDS)
    # Cut before sorting by area, as the list begins with what a house needs most.
    wanted = wanted[: len(rooms)]
    wanted.sort(key=lambda kind: -_TARGET_AREA[kind] * draws.uniform(0.8, 1.25))
    rooms.sort(key=lambda i: -zones[i].rect.area)
    kinds = ["hallway"] * len(zones)
    for room, kind in zip(rooms, wanted, strict=True):
        kinds[room] = kind
    _swap_to_liked(kinds, rooms, zones, adjacent, draws)
    return kinds


def _swap_to_liked(
    kinds: list[str],
    rooms: list[int],
    zones: Sequence[Zone],
    adjacent: Sequence[tuple[int, int]],
    draws: Draws,
) -> None:
    """Swap kinds of rooms, in place, where that raises the score of the plan."""

    def score() -> float:
        total = 0.0
        for room in rooms:
            target = _TARGET_AREA[kinds[room]]
            # Half the target costs as much as twice the target.
            ratio = zones[room].rect.area / target
            total -= 2.0 * abs(ratio - 1.0) if ratio >= 1.0 else 2.0 * (1.0 / ratio - 1.0)
        for a, b in adjacent:
            total += _LIKED_NEIGHBOURS.get(frozenset((kinds[a], kinds[b])), 0.0)
        return total

    best = score()
    for _ in range(3 * len(rooms)):
        a, b = draws.choice(rooms), draws.choice(rooms)
        if kinds[a] == kinds[b]:
            continue
        kinds[a], kinds[b] = kinds[b], kinds[a]
        new = score()
        if new > best:
            best = new
        else:
            kinds[a], kinds[b] = kinds[b], kinds[a]
