"""Finds the walls that rooms share, cuts doors into them, and lists the pieces of wall.

Every house is connected: the doors hold a spanning tree of the rooms, cheapest where people
would put a door, plus some more doors that make rounds possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from envs.houses.draws import Draws
from envs.houses.generation.floorplan import Rect
from envs.houses.scene import Door

OUTSIDE: Final = -1
DOOR_WIDTH: Final = (0.86, 1.0)
DOOR_HEIGHT: Final = 2.05
ARCH_HEIGHT: Final = 2.25
JAMB: Final = 0.16
"""Least distance from a door's edge to the middle line of a crossing wall."""
_LEAST_SHARED: Final = DOOR_WIDTH[1] + 2 * JAMB + 0.02

_OPEN: Final = frozenset(("living_room", "dining_room", "kitchen", "hallway"))
_COSTS: Final = {
    frozenset(("living_room", "hallway")): 0.3,
    frozenset(("living_room", "dining_room")): 0.5,
    frozenset(("living_room", "kitchen")): 0.7,
    frozenset(("kitchen", "dining_room")): 0.5,
    frozenset(("kitchen", "laundry")): 1.2,
    frozenset(("bedroom", "bathroom")): 1.6,
    frozenset(("living_room", "study")): 1.4,
    frozenset(("living_room", "playroom")): 1.4,
    frozenset(("living_room", "bedroom")): 1.8,
    frozenset(("hallway",)): 0.1,
    frozenset(("bedroom",)): 4.0,
    frozenset(("bathroom",)): 6.0,
}
_ROOM_COST: Final = {"hallway": -1.4, "living_room": -0.5, "bathroom": 1.2, "laundry": 0.6}


class Shared(NamedTuple):
    """A stretch of wall with one room, or the outside, on each side."""

    along_x: bool
    at: float
    """y of a wall along x, x of a wall along y."""
    low: float
    high: float
    below: int
    """Room on the side of lesser y (or x), or OUTSIDE."""
    above: int


class WallPiece(NamedTuple):
    """A box of wall; it shows each side's room its own wallpaper."""

    shared: Shared
    low: float
    high: float
    bottom: float


def shared_walls(rects: Sequence[Rect]) -> list[Shared]:
    """List all stretches of wall between two rooms and between rooms and the outside."""
    walls: list[Shared] = []
    for along_x in (True, False):
        # Along x: each room's span is its x range, its lower edge y0, its upper edge y1.
        spans = [(r.x0, r.x1, r.y0, r.y1) if along_x else (r.y0, r.y1, r.x0, r.x1) for r in rects]
        for room, (low, high, bottom, top) in enumerate(spans):
            above: list[tuple[float, float]] = []
            below: list[tuple[float, float]] = []
            for other, (low2, high2, bottom2, top2) in enumerate(spans):
                start, stop = max(low, low2), min(high, high2)
                # Rooms that meet at a corner share no wall; what is shorter is rounding.
                if other == room or stop - start < 1e-6:
                    continue
                if abs(bottom2 - top) < 1e-6:
                    walls.append(Shared(along_x, top, start, stop, room, other))
                    above.append((start, stop))
                elif abs(top2 - bottom) < 1e-6:
                    # The room below has listed this wall.
                    below.append((start, stop))
            walls += [
                Shared(along_x, top, start, stop, room, OUTSIDE)
                for start, stop in _gaps(low, high, above)
            ]
            walls += [
                Shared(along_x, bottom, start, stop, OUTSIDE, room)
                for start, stop in _gaps(low, high, below)
            ]
    return walls


def _gaps(low: float, high: float, taken: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return what is left of [low, high] without the taken intervals."""
    free: list[tuple[float, float]] = []
    for start, stop in sorted(taken):
        if start - low > 1e-6:
            free.append((low, start))
        low = max(low, stop)
    if high - low > 1e-6:
        free.append((low, high))
    return free


def adjacent_rooms(walls: Sequence[Shared]) -> list[tuple[int, int]]:
    """List the pairs of rooms between which a door fits."""
    return [(w.below, w.above) for w in walls if _takes_door(w)]


def _takes_door(wall: Shared) -> bool:
    inside = wall.below != OUTSIDE and wall.above != OUTSIDE
    return inside and wall.high - wall.low >= _LEAST_SHARED


def cut_doors(walls: Sequence[Shared], kinds: Sequence[str], draws: Draws) -> list[Door] | None:
    """Choose the walls that get a door and place the doors.

    Returns:
        The doors, or None if no choice connects all rooms.
    """
    candidates = [wall for wall in walls if _takes_door(wall)]
    costs = [_cost(kinds[w.below], kinds[w.above]) + draws.uniform(0.0, 0.8) for w in candidates]
    order = sorted(range(len(candidates)), key=costs.__getitem__)
    group = list(range(len(kinds)))
    chosen: list[Shared] = []
    spare: list[Shared] = []
    for index in order:
        wall = candidates[index]
        # Kruskal's spanning tree: a wall counts if it joins two groups, cheapest first.
        a, b = group[wall.below], group[wall.above]
        if a == b:
            spare.append(wall)
            continue
        group = [a if g == b else g for g in group]
        chosen.append(wall)
    if len(set(group)) > 1:
        return None
    linked = {(wall.below, wall.above) for wall in chosen}
    for wall in spare:
        pair = {kinds[wall.below], kinds[wall.above]}
        probability = 0.6 if pair <= _OPEN else 0.0 if "bathroom" in pair else 0.12
        if (wall.below, wall.above) not in linked and draws.chance(probability):
            chosen.append(wall)
            linked.add((wall.below, wall.above))
    return [_place(wall, kinds, draws) for wall in chosen]


def _cost(kind_a: str, kind_b: str) -> float:
    base = _COSTS.get(frozenset((kind_a, kind_b)), 3.0)
    return base + _ROOM_COST.get(kind_a, 0.0) + _ROOM_COST.get(kind_b, 0.0)


def _place(wall: Shared, kinds: Sequence[str], draws: Draws) -> Door:
    room = wall.high - wall.low - 2 * JAMB
    width, height = min(draws.uniform(*DOOR_WIDTH), room), DOOR_HEIGHT
    if {kinds[wall.below], kinds[wall.above]} <= _OPEN and room > 1.5 and draws.chance(0.5):
        width, height = min(draws.uniform(1.2, 2.0), room - 0.2), ARCH_HEIGHT
    slack = room - width
    # Doors near a corner leave longer walls for furniture.
    place = draws.uniform(0.0, 0.3) if draws.chance(0.7) else draws.uniform(0.0, slack)
    place = min(place, slack)
    if draws.chance(0.5):
        place = slack - place
    middle = round(wall.low + JAMB + place + width / 2, 3)
    x, y = (middle, wall.at) if wall.along_x else (wall.at, middle)
    return Door(wall.below, wall.above, x, y, round(width, 3), height, wall.along_x)


def wall_pieces(walls: Sequence[Shared], doors: Sequence[Door]) -> list[WallPiece]:
    """Cut the walls at the doors; a piece over a door is its lintel."""
    pieces: list[WallPiece] = []
    for wall in walls:
        low = wall.low
        openings = [
            (d.x if d.along_x else d.y, d)
            for d in doors
            if d.along_x == wall.along_x and (d.room_a, d.room_b) == (wall.below, wall.above)
        ]
        for middle, door in openings:
            start, stop = middle - door.width / 2, middle + door.width / 2
            pieces.append(WallPiece(wall, low, start, 0.0))
            pieces.append(WallPiece(wall, start, stop, door.height))
            low = stop
        pieces.append(WallPiece(wall, low, wall.high, 0.0))
    return pieces
