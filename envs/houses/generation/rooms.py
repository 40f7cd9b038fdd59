"""The furniture of each kind of room, and the pieces that belong together.

A room's programme places the pieces that make its kind recognisable first, and extras while there
is room. `furnish` runs the programme of a room's kind and then hangs things on its walls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from envs.houses.furniture import household, living
from envs.houses.furniture.catalogue import make
from envs.houses.furniture.piece import Piece
from envs.houses.generation.floorplan import Rect
from envs.houses.generation.room_layout import Member, RoomLayout, Side, Stretch, turned
from envs.houses.textures.palette import Palette

_WALL_THINGS: Final[dict[str, tuple[str, ...]]] = {
    "living_room": ("picture", "picture", "clock", "wall_shelf"),
    "kitchen": ("clock", "picture", "wall_shelf"),
    "dining_room": ("picture", "picture", "clock"),
    "bedroom": ("picture", "standing_mirror", "wall_shelf"),
    "bathroom": ("towel_rail", "towel_rail", "standing_mirror"),
    "study": ("picture", "clock", "wall_shelf"),
    "hallway": ("picture", "standing_mirror", "picture", "clock"),
    "laundry": ("wall_shelf", "clock"),
    "playroom": ("picture", "wall_shelf", "picture"),
}
_LOW_EDGE: Final = {"standing_mirror": 0.3, "towel_rail": 0.7, "wall_shelf": 1.4}


def add_piece(
    name: str, room: RoomLayout, palette: Palette, *, front: float = 0.5, corner: bool = False
) -> Stretch | None:
    """Make one piece and place it against a wall."""
    return room.add(make(name, room.draws, palette), front=front, corner=corner)


def maybe_add(
    name: str,
    probability: float,
    room: RoomLayout,
    palette: Palette,
    *,
    front: float = 0.5,
    corner: bool = False,
) -> None:
    """Place one piece with some probability."""
    if room.draws.chance(probability):
        add_piece(name, room, palette, front=front, corner=corner)


def before_sofa(room: RoomLayout, palette: Palette, spot: Stretch, sofa: Piece) -> None:
    """Put a coffee table, a rug and armchairs on the ground that the sofa looks at."""
    draws = room.draws
    quarter = int(spot.side)
    middle = room.strip(spot.side, spot.low, spot.high, 0.0, sofa.depth).centre
    low_table = make("coffee_table", draws, palette)
    ahead = sofa.depth / 2 + 0.35 + low_table.depth / 2

    def before(x: float, y: float) -> tuple[float, float]:
        dx, dy = turned(x, y, quarter)
        return middle[0] + dx, middle[1] + dy

    centre = before(0.0, ahead)
    if not room.try_put(Member(low_table), centre, quarter):
        return
    wide, deep = (2.4, 1.7) if quarter % 2 == 0 else (1.7, 2.4)
    inner = room.inner
    rug = Rect(
        max(inner.x0 + 0.05, centre[0] - wide / 2),
        max(inner.y0 + 0.05, centre[1] - deep / 2),
        min(inner.x1 - 0.05, centre[0] + wide / 2),
        min(inner.y1 - 0.05, centre[1] + deep / 2),
    )
    piece = living.rug(draws, palette, rug.width, rug.depth)
    room.lay(piece, rug.centre, 0)
    for side in draws.shuffled((-1, 1)):
        if draws.chance(0.6):
            seat = make("armchair", draws, palette)
            beside = side * (low_table.width / 2 + 0.35 + seat.depth / 2)
            turn = 1 if side > 0 else 3
            tilt = draws.uniform(-0.3, 0.3)
            member = Member(seat, 0.0, 0.0, turn, tilt)
            room.try_put(member, before(beside, ahead + draws.uniform(-0.1, 0.3)), quarter)


def kitchen_run(room: RoomLayout, palette: Palette, spot: Stretch, needed: list[str]) -> list[str]:
    """Fill a stretch of wall; return which needed modules did not fit."""
    draws = room.draws
    length = min(spot.length, draws.uniform(3.2, 4.4))
    low = spot.low if draws.chance(0.5) else spot.high - length
    modules = [make(name, draws, palette) for name in needed]
    left: list[str] = []
    kept: list[Piece] = []
    free = length
    for name, piece in zip(needed, modules, strict=True):
        if piece.width <= free:
            kept.append(piece)
            free -= piece.width
        else:
            left.append(name)
    slots = min(len(kept), int(free / 0.45))
    # Worktops between the appliances: each takes its share of what is left.
    for i in range(slots):
        kept.insert(2 * i + 1, household.counter(draws, palette, free / slots))
    if not kept:
        kept.append(household.counter(draws, palette, min(length, 2.4)))
    at = low
    for piece in kept:
        stretch = Stretch(spot.side, at, at + piece.width)
        room.put_on_wall([Member(piece)], stretch, piece.depth)
        at += piece.width
    room.zones.append(room.strip(spot.side, low, at, 0.63, 1.35))
    return left


def dining_set(
    room: RoomLayout, palette: Palette, *, seats: tuple[int, ...], margin: float
) -> None:
    """A table with as many chairs around it as fit, else one at a wall with a single chair."""
    for count in seats:
        group, width, depth = _seated_table(room, palette, count)
        if room.in_middle(group, width, depth, margin=margin) is not None:
            return
    small = make("table", room.draws, palette)
    chair = _chair_at(room, palette, 0.0, small.depth / 2 - 0.05, 2)
    group = [Member(small, 0.0, -0.17), chair]
    room.against_wall(group, small.width, small.depth + 0.34, front=0.4)


def _seated_table(
    room: RoomLayout, palette: Palette, seats: int
) -> tuple[list[Member], float, float]:
    """Group a table with 2, 4 or 6 chairs; return the group's width and depth too."""
    table = make("table", room.draws, palette)
    group = [Member(table)]
    out = 0.12  # from the table's edge to the middle of a chair that is pushed in
    per_side = 2 if seats >= 4 and table.width > 1.1 and table.depth < 1.0 else 1
    for side, quarter in ((-1, 0), (1, 2)):
        for i in range(per_side):
            # Pushed-in seats must clear each other and the table's legs.
            x = (i - (per_side - 1) / 2) * 2 * max(0.26, table.width / 4 - 0.04)
            group.append(_chair_at(room, palette, x, side * (table.depth / 2 + out), quarter))
    ends = seats > 2 * per_side
    if ends:
        for side, quarter in ((-1, 3), (1, 1)):
            group.append(_chair_at(room, palette, side * (table.width / 2 + out), 0.0, quarter))
    return group, table.width + (0.7 if ends else 0.0), table.depth + 0.7


def _chair_at(room: RoomLayout, palette: Palette, x: float, y: float, quarter: int) -> Member:
    tilt = room.draws.uniform(-0.15, 0.15) if room.draws.chance(0.4) else 0.0
    return Member(make("chair", room.draws, palette), x, y, quarter, tilt)


def desk_set(room: RoomLayout, palette: Palette) -> None:
    """Place a desk against a wall with an office chair before it."""
    draws = room.draws
    desk = make("desk", draws, palette)
    chair = make("office_chair", draws, palette)
    depth = desk.depth + 0.35
    group = [
        Member(desk, 0.0, (desk.depth - depth) / 2),
        Member(chair, -0.12 * desk.width, (depth - chair.depth) / 2, 2, draws.uniform(-0.3, 0.3)),
    ]
    room.against_wall(group, desk.width, depth, front=0.45)


def rug_in_middle(room: RoomLayout, palette: Palette, share: float) -> None:
    """Lay a rug that takes this share of both sides of the room."""
    width, depth = room.inner.width * share, room.inner.depth * share
    room.lay(living.rug(room.draws, palette, width, depth), room.inner.centre, 0)


def runner(room: RoomLayout, palette: Palette) -> None:
    """Lay a narrow rug along a hall."""
    width, depth = room.inner.width, room.inner.depth
    piece = living.rug(room.draws, palette, min(0.7 * max(width, depth), 3.2), 0.75)
    room.lay(piece, room.inner.centre, 0 if width >= depth else 1)


def _plants_and_lamps(room: RoomLayout, palette: Palette, *, plants: float, lamps: float) -> None:
    maybe_add("plant", plants, room, palette, front=0.0, corner=True)
    maybe_add("floor_lamp", lamps, room, palette, front=0.0, corner=True)


def living_room(room: RoomLayout, palette: Palette) -> None:
    """A sofa that faces a television, with a table between them."""
    draws = room.draws
    sofa = make("sofa", draws, palette)
    spot = room.add(sofa, front=1.2)
    if spot is not None:
        before_sofa(room, palette, spot, sofa)
    facing = None if spot is None else (spot.side, spot.middle)
    room.add(make("tv_stand", draws, palette), front=0.6, facing=facing)
    maybe_add("fireplace", 0.35, room, palette, front=0.8)
    add_piece("bookshelf", room, palette, corner=True)
    _plants_and_lamps(room, palette, plants=0.9, lamps=0.8)
    maybe_add("piano", 0.3, room, palette, front=0.7)
    maybe_add("sideboard", 0.5, room, palette)
    maybe_add("armchair", 0.7, room, palette, corner=True)
    maybe_add("bookshelf", 0.4, room, palette)
    maybe_add("plant", 0.6, room, palette, front=0.0, corner=True)


def kitchen(room: RoomLayout, palette: Palette) -> None:
    """Runs of cupboards with a sink, a stove and a fridge; a table where there is room."""
    needed = ["fridge", "kitchen_sink", "stove"]
    for run in range(2):
        spots = list(room.spots(1.3, 0.63, front=0.75, gap=0.02))
        if not spots or (run == 1 and not needed and room.draws.chance(0.3)):
            break
        spot = max(spots, key=lambda s: s.length)
        needed = kitchen_run(room, palette, spot, needed)
    for name in needed:
        add_piece(name, room, palette, front=0.6)
    if room.inner.width * room.inner.depth > 11.0 and room.draws.chance(0.7):
        dining_set(room, palette, seats=(4, 2), margin=0.5)
    maybe_add("washing_machine", 0.25, room, palette, corner=True)
    maybe_add("trash_bin", 0.8, room, palette, front=0.0, corner=True)
    _plants_and_lamps(room, palette, plants=0.4, lamps=0.0)


def dining_room(room: RoomLayout, palette: Palette) -> None:
    """A large table with chairs."""
    if room.draws.chance(0.5):
        rug_in_middle(room, palette, 0.6)
    dining_set(room, palette, seats=(6, 4, 4, 2), margin=0.45)
    add_piece("sideboard", room, palette)
    _plants_and_lamps(room, palette, plants=0.8, lamps=0.3)
    maybe_add("fireplace", 0.15, room, palette, front=0.7)
    maybe_add("console", 0.4, room, palette)
    maybe_add("piano", 0.15, room, palette, front=0.6)
    maybe_add("radiator", 0.4, room, palette, front=0.3)


def bedroom(room: RoomLayout, palette: Palette) -> None:
    """A bed between nightstands, and a wardrobe."""
    draws = room.draws
    bed = make("bed", draws, palette)
    group, width = [Member(bed)], bed.width
    stands = draws.integer(1, 2) if bed.width < 1.3 else 2
    for side in (-1, 1)[:stands]:
        stand = make("nightstand", draws, palette)
        x = side * (bed.width + stand.width + 0.06) / 2
        group.append(Member(stand, x, (stand.depth - bed.depth) / 2))
        width = max(width, 2 * abs(x) + stand.width)
    if room.against_wall(group, width, bed.depth, front=0.55) is None:  # nightstands do not fit
        room.against_wall(group[:1], bed.width, bed.depth, front=0.5, corner=True)
    add_piece("wardrobe", room, palette, front=0.6, corner=True)
    maybe_add("dresser", 0.75, room, palette)
    if draws.chance(0.45):
        desk_set(room, palette)
    maybe_add("armchair", 0.3, room, palette, corner=True)
    _plants_and_lamps(room, palette, plants=0.5, lamps=0.4)
    maybe_add("bookshelf", 0.25, room, palette)
    maybe_add("bench", 0.2, room, palette)
    maybe_add("basket", 0.3, room, palette, front=0.0, corner=True)
    if draws.chance(0.6):
        rug_in_middle(room, palette, draws.uniform(0.4, 0.55))


def bathroom(room: RoomLayout, palette: Palette) -> None:
    """A tub or a shower, a toilet and a washbasin."""
    draws = room.draws
    tub = "bathtub" if draws.chance(0.6) else "shower"
    if add_piece(tub, room, palette, front=0.5, corner=True) is None and tub == "bathtub":
        add_piece("shower", room, palette, front=0.5, corner=True)
    add_piece("toilet", room, palette, front=0.5)
    add_piece("vanity", room, palette, front=0.55)
    maybe_add("washing_machine", 0.35, room, palette, front=0.5)
    if room.inner.area > 10.0:
        maybe_add("shower" if tub == "bathtub" else "bathtub", 0.7, room, palette, corner=True)
        maybe_add("dresser", 0.4, room, palette)
        maybe_add("plant", 0.6, room, palette, front=0.0, corner=True)
    maybe_add("basket", 0.5, room, palette, front=0.0, corner=True)
    maybe_add("radiator", 0.4, room, palette, front=0.3)
    maybe_add("stool", 0.3, room, palette, front=0.0)
    if draws.chance(0.6):
        rug_in_middle(room, palette, 0.35)


def study(room: RoomLayout, palette: Palette) -> None:
    """A desk and walls of books."""
    draws = room.draws
    desk_set(room, palette)
    for _ in range(draws.integer(2, 3)):
        add_piece("bookshelf", room, palette, front=0.5, corner=True)
    maybe_add("armchair", 0.6, room, palette, corner=True)
    _plants_and_lamps(room, palette, plants=0.7, lamps=0.7)
    maybe_add("sideboard", 0.3, room, palette)
    maybe_add("piano", 0.12, room, palette)
    if draws.chance(0.6):
        rug_in_middle(room, palette, 0.5)


def hallway(room: RoomLayout, palette: Palette) -> None:
    """Narrow things along the walls; always wide enough to pass."""
    clear = 0.85
    maybe_add("console", 0.8, room, palette, front=clear)
    maybe_add("bench", 0.5, room, palette, front=clear)
    maybe_add("coat_rack", 0.5, room, palette, front=clear, corner=True)
    maybe_add("plant", 0.6, room, palette, front=clear, corner=True)
    if room.inner.area > 9.0:
        maybe_add("console", 0.4, room, palette, front=clear)
        maybe_add("plant", 0.4, room, palette, front=clear)
    if room.draws.chance(0.7):
        runner(room, palette)


def laundry(room: RoomLayout, palette: Palette) -> None:
    """Washing machines, a counter and baskets."""
    draws = room.draws
    for _ in range(draws.integer(1, 2)):
        add_piece("washing_machine", room, palette, front=0.6, corner=True)
    room.add(household.counter(draws, palette, draws.uniform(0.9, 1.5)), front=0.6)
    add_piece("basket", room, palette, front=0.0, corner=True)
    maybe_add("kitchen_sink", 0.5, room, palette, front=0.6)
    maybe_add("basket", 0.5, room, palette, front=0.0)
    maybe_add("trash_bin", 0.5, room, palette, front=0.0, corner=True)
    maybe_add("radiator", 0.5, room, palette, front=0.3)


def playroom(room: RoomLayout, palette: Palette) -> None:
    """Toys, stools around a low table, shelves."""
    draws = room.draws
    rug_in_middle(room, palette, draws.uniform(0.5, 0.65))
    for _ in range(draws.integer(1, 2)):
        add_piece("toy_box", room, palette)
    add_piece("bookshelf", room, palette)
    low_table = make("coffee_table", draws, palette)
    group = [Member(low_table)]
    for side in (-1, 1):
        seat = make("stool", draws, palette)
        group.append(Member(seat, 0.0, side * (low_table.depth / 2 + seat.depth / 2 + 0.05)))
    room.in_middle(group, low_table.width, low_table.depth + 0.9, margin=0.5)
    maybe_add("sofa", 0.4, room, palette, front=0.6)
    maybe_add("piano", 0.25, room, palette, front=0.6)
    maybe_add("dresser", 0.4, room, palette)
    _plants_and_lamps(room, palette, plants=0.5, lamps=0.4)


def _hang_windows(room: RoomLayout, palette: Palette) -> None:
    """Put a window into outer walls, where no tall furniture stands."""
    draws = room.draws
    for outer in room.outer:
        if not draws.chance(0.85):
            continue
        stretches = []
        for spot in room.wall_stretch(outer.side, 0.75):
            low, high = max(spot.low, outer.low), min(spot.high, outer.high)
            if high - low > 1.35:
                stretches.append(Stretch(spot.side, low, high))
        if stretches:
            spot = max(stretches, key=lambda s: s.length)
            width = min(draws.uniform(0.9, 1.7), spot.length - 0.5)
            room.hang(living.window(draws, palette, width), spot, margin=0.35)


def _hang_on_walls(kind: str, room: RoomLayout, palette: Palette) -> None:
    """Hang up some of what suits a kind of room, each thing on another wall."""
    draws = room.draws
    count = draws.integer(2, 4)
    things = draws.shuffled(_WALL_THINGS[kind])[:count]
    sides = draws.shuffled(list(Side))
    for thing, side in zip(things, (*sides, *sides), strict=False):
        piece = make(thing, draws, palette)
        for spot in room.wall_stretch(side, _LOW_EDGE.get(thing, 1.25)):
            slack = spot.length - piece.width - 0.1
            if slack > 0.0:
                low = spot.low + draws.uniform(0.0, slack)
                room.hang(piece, Stretch(side, low, low + piece.width + 0.1))
                break


_PROGRAMMES: Final[dict[str, Callable[[RoomLayout, Palette], None]]] = {
    programme.__name__: programme
    for programme in (
        living_room,
        kitchen,
        dining_room,
        bedroom,
        bathroom,
        study,
        hallway,
        laundry,
        playroom,
    )
}


def furnish(kind: str, room: RoomLayout, palette: Palette) -> None:
    """Fill a room in place."""
    _PROGRAMMES[kind](room, palette)
    _hang_windows(room, palette)
    _hang_on_walls(kind, room, palette)
