"""Pieces of furniture that belong together, and how they are placed in a room.

What stands in which kind of room.

Each programme places the pieces that make the kind recognisable first and extras while there is
room. `furnish` runs the programme of a room's kind and then hangs things on its walls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from envs.houses.furniture import household as pieces_wet
from envs.houses.furniture import living as pieces_decor
from envs.houses.furniture.catalogue import make
from envs.houses.generation.floorplan import Rect
from envs.houses.generation.room_layout import (
    Member,
    Space,
    Spot,
    hang_on_walls,
    hang_windows,
    turned,
)

if TYPE_CHECKING:
    from envs.houses.furniture.piece import Model
    from envs.houses.textures.palette import Palette


def add_piece(
    name: str, space: Space, palette: Palette, *, front: float = 0.5, corner: bool = False
) -> Spot | None:
    """Make one piece and place it against a wall."""
    model = make(name, space.draws, palette)
    member = [Member(model, 0.0, 0.0)]
    return space.against_wall(member, model.width, model.depth, front=front, corner=corner)


def maybe_add(
    name: str,
    probability: float,
    space: Space,
    palette: Palette,
    *,
    front: float = 0.5,
    corner: bool = False,
) -> None:
    """Place one piece with some probability."""
    if space.draws.chance(probability):
        add_piece(name, space, palette, front=front, corner=corner)


def before_sofa(space: Space, palette: Palette, spot: Spot, sofa: Model) -> None:
    """Put a coffee table, a rug and armchairs on the ground that the sofa looks at."""
    draws = space.draws
    quarter = int(spot.side)
    place = space.strip(spot.side, spot.low, spot.high, 0.0, sofa.depth)
    middle = ((place.x0 + place.x1) / 2, (place.y0 + place.y1) / 2)
    low_table = make("coffee_table", draws, palette)
    ahead = sofa.depth / 2 + 0.35 + low_table.depth / 2

    def before(x: float, y: float) -> tuple[float, float]:
        dx, dy = turned(x, y, quarter)
        return middle[0] + dx, middle[1] + dy

    centre = before(0.0, ahead)
    if not space.try_put(Member(low_table, 0.0, 0.0), centre, quarter):
        return
    wide, deep = (2.4, 1.7) if quarter % 2 == 0 else (1.7, 2.4)
    inner = space.inner
    rug = Rect(
        max(inner.x0 + 0.05, centre[0] - wide / 2),
        max(inner.y0 + 0.05, centre[1] - deep / 2),
        min(inner.x1 - 0.05, centre[0] + wide / 2),
        min(inner.y1 - 0.05, centre[1] + deep / 2),
    )
    model = pieces_decor.rug(draws, palette, rug.width, rug.depth)
    space.lay(model, ((rug.x0 + rug.x1) / 2, (rug.y0 + rug.y1) / 2), 0)
    for side in draws.shuffled((-1, 1)):
        if draws.chance(0.6):
            seat = make("armchair", draws, palette)
            beside = side * (low_table.width / 2 + 0.35 + seat.depth / 2)
            turn = 1 if side > 0 else 3
            tilt = draws.uniform(-0.3, 0.3)
            member = Member(seat, 0.0, 0.0, turn, tilt)
            space.try_put(member, before(beside, ahead + draws.uniform(-0.1, 0.3)), quarter)


def kitchen_run(space: Space, palette: Palette, spot: Spot, needed: list[str]) -> list[str]:
    """Fill a stretch of wall; return which needed modules did not fit."""
    draws = space.draws
    length = min(spot.high - spot.low, draws.uniform(3.2, 4.4))
    low = spot.low if draws.chance(0.5) else spot.high - length
    modules = [make(name, draws, palette) for name in needed]
    left: list[str] = []
    kept: list[Model] = []
    free = length
    for name, model in zip(needed, modules, strict=True):
        if model.width <= free:
            kept.append(model)
            free -= model.width
        else:
            left.append(name)
    slots = min(len(kept), int(free / 0.45))
    # Worktops between the appliances: each takes its share of what is left.
    for i in range(slots):
        kept.insert(2 * i + 1, pieces_wet.counter(draws, palette, free / slots))
    if not kept:
        width = min(length, 2.4)
        kept.append(pieces_wet.counter(draws, palette, width))
    at = low
    for model in kept:
        stretch = Spot(spot.side, at, at + model.width)
        space.put_on_wall([Member(model, 0.0, 0.0)], stretch, model.depth)
        at += model.width
    space.zones.append(space.strip(spot.side, low, at, 0.63, 1.35))
    return left


def dining_set(space: Space, palette: Palette, *, seats: tuple[int, ...], margin: float) -> None:
    """A table with as many chairs around it as fit, else one at a wall with a single chair."""
    for count in seats:
        group, width, depth = _seated_table(space, palette, count)
        if space.in_middle(group, width, depth, margin=margin) is not None:
            return
    small = make("table", space.draws, palette)
    chair = _chair_at(space, palette, 0.0, 0.0, 2)
    group = [
        Member(small, 0.0, -0.17),
        Member(chair.model, 0.0, small.depth / 2 - 0.05, 2, chair.tilt),
    ]
    space.against_wall(group, small.width, small.depth + 0.34, front=0.4)


def _seated_table(space: Space, palette: Palette, seats: int) -> tuple[list[Member], float, float]:
    """Group a table with 2, 4 or 6 chairs; return the group's width and depth too."""
    table = make("table", space.draws, palette)
    group = [Member(table, 0.0, 0.0)]
    out = 0.12  # from the table's edge to the middle of a chair that is pushed in
    per_side = 2 if seats >= 4 and table.width > 1.1 and table.depth < 1.0 else 1
    for side, quarter in ((-1, 0), (1, 2)):
        for i in range(per_side):
            # Pushed-in seats must clear each other and the table's legs.
            x = (i - (per_side - 1) / 2) * 2 * max(0.26, table.width / 4 - 0.04)
            group.append(_chair_at(space, palette, x, side * (table.depth / 2 + out), quarter))
    ends = seats > 2 * per_side
    if ends:
        for side, quarter in ((-1, 3), (1, 1)):
            group.append(_chair_at(space, palette, side * (table.width / 2 + out), 0.0, quarter))
    return group, table.width + (0.7 if ends else 0.0), table.depth + 0.7


def _chair_at(space: Space, palette: Palette, x: float, y: float, quarter: int) -> Member:
    tilt = space.draws.uniform(-0.15, 0.15) if space.draws.chance(0.4) else 0.0
    return Member(make("chair", space.draws, palette), x, y, quarter, tilt)


def desk_set(space: Space, palette: Palette) -> None:
    """Place a desk against a wall with an office chair before it."""
    draws = space.draws
    desk = make("desk", draws, palette)
    chair = make("office_chair", draws, palette)
    depth = desk.depth + 0.35
    group = [
        Member(desk, 0.0, (desk.depth - depth) / 2),
        Member(chair, -0.12 * desk.width, (depth - chair.depth) / 2, 2, draws.uniform(-0.3, 0.3)),
    ]
    space.against_wall(group, desk.width, depth, front=0.45)


def rug_in_middle(space: Space, palette: Palette, share: float) -> None:
    """Lay a rug that takes this share of both sides of the room."""
    inner = space.inner
    centre = ((inner.x0 + inner.x1) / 2, (inner.y0 + inner.y1) / 2)
    model = pieces_decor.rug(space.draws, palette, inner.width * share, inner.depth * share)
    space.lay(model, centre, 0)


def runner(space: Space, palette: Palette) -> None:
    """Lay a narrow rug along a hall."""
    inner = space.inner
    centre = ((inner.x0 + inner.x1) / 2, (inner.y0 + inner.y1) / 2)
    lying = inner.width >= inner.depth
    length = min(0.7 * max(inner.width, inner.depth), 3.2)
    model = pieces_decor.rug(space.draws, palette, length, 0.75)
    space.lay(model, centre, 0 if lying else 1)


if TYPE_CHECKING:
    from collections.abc import Callable

    from envs.houses.textures.palette import Palette


def furnish(kind: str, space: Space, palette: Palette) -> None:
    """Fill a room in place."""
    _PROGRAMMES[kind](space, palette)
    hang_windows(space, palette)
    hang_on_walls(kind, space, palette)


def _plants_and_lamps(space: Space, palette: Palette, *, plants: float, lamps: float) -> None:
    maybe_add("plant", plants, space, palette, front=0.0, corner=True)
    maybe_add("floor_lamp", lamps, space, palette, front=0.0, corner=True)


def living_room(space: Space, palette: Palette) -> None:
    """A sofa that faces a television, with a table between them."""
    draws = space.draws
    sofa = make("sofa", draws, palette)
    spot = space.against_wall([Member(sofa, 0.0, 0.0)], sofa.width, sofa.depth, front=1.2)
    if spot is not None:
        before_sofa(space, palette, spot, sofa)
    stand = make("tv_stand", draws, palette)
    facing = None if spot is None else (spot.side, (spot.low + spot.high) / 2)
    space.against_wall(
        [Member(stand, 0.0, 0.0)], stand.width, stand.depth, front=0.6, facing=facing
    )
    maybe_add("fireplace", 0.35, space, palette, front=0.8)
    add_piece("bookshelf", space, palette, corner=True)
    _plants_and_lamps(space, palette, plants=0.9, lamps=0.8)
    maybe_add("piano", 0.3, space, palette, front=0.7)
    maybe_add("sideboard", 0.5, space, palette)
    maybe_add("armchair", 0.7, space, palette, corner=True)
    maybe_add("bookshelf", 0.4, space, palette)
    maybe_add("plant", 0.6, space, palette, front=0.0, corner=True)


def kitchen(space: Space, palette: Palette) -> None:
    """Runs of cupboards with a sink, a stove and a fridge; a table where there is room."""
    needed = ["fridge", "kitchen_sink", "stove"]
    for run in range(2):
        spots = list(space.spots(1.3, 0.63, front=0.75, gap=0.02))
        if not spots or (run == 1 and not needed and space.draws.chance(0.3)):
            break
        spot = max(spots, key=lambda s: s.high - s.low)
        needed = kitchen_run(space, palette, spot, needed)
    for name in needed:
        add_piece(name, space, palette, front=0.6)
    if space.inner.width * space.inner.depth > 11.0 and space.draws.chance(0.7):
        dining_set(space, palette, seats=(4, 2), margin=0.5)
    maybe_add("washing_machine", 0.25, space, palette, corner=True)
    maybe_add("trash_bin", 0.8, space, palette, front=0.0, corner=True)
    _plants_and_lamps(space, palette, plants=0.4, lamps=0.0)


def dining_room(space: Space, palette: Palette) -> None:
    """A large table with chairs."""
    if space.draws.chance(0.5):
        rug_in_middle(space, palette, 0.6)
    dining_set(space, palette, seats=(6, 4, 4, 2), margin=0.45)
    add_piece("sideboard", space, palette)
    _plants_and_lamps(space, palette, plants=0.8, lamps=0.3)
    maybe_add("fireplace", 0.15, space, palette, front=0.7)
    maybe_add("console", 0.4, space, palette)
    maybe_add("piano", 0.15, space, palette, front=0.6)
    maybe_add("radiator", 0.4, space, palette, front=0.3)


def bedroom(space: Space, palette: Palette) -> None:
    """A bed between nightstands, and a wardrobe."""
    draws = space.draws
    bed = make("bed", draws, palette)
    group, width = [Member(bed, 0.0, 0.0)], bed.width
    stands = draws.integer(1, 2) if bed.width < 1.3 else 2
    for i in range(stands):
        stand = make("nightstand", draws, palette)
        side = -1 if i == 0 else 1
        x = side * (bed.width + stand.width + 0.06) / 2
        group.append(Member(stand, x, (stand.depth - bed.depth) / 2))
        width = max(width, 2 * abs(x) + stand.width)
    if space.against_wall(group, width, bed.depth, front=0.55) is None:
        space.against_wall(group[:1], bed.width, bed.depth, front=0.5, corner=True)
    add_piece("wardrobe", space, palette, front=0.6, corner=True)
    maybe_add("dresser", 0.75, space, palette)
    if draws.chance(0.45):
        desk_set(space, palette)
    maybe_add("armchair", 0.3, space, palette, corner=True)
    _plants_and_lamps(space, palette, plants=0.5, lamps=0.4)
    maybe_add("bookshelf", 0.25, space, palette)
    maybe_add("bench", 0.2, space, palette)
    maybe_add("basket", 0.3, space, palette, front=0.0, corner=True)
    if draws.chance(0.6):
        rug_in_middle(space, palette, draws.uniform(0.4, 0.55))


def bathroom(space: Space, palette: Palette) -> None:
    """A tub or a shower, a toilet and a washbasin."""
    draws = space.draws
    tub = "bathtub" if draws.chance(0.6) else "shower"
    if add_piece(tub, space, palette, front=0.5, corner=True) is None and tub == "bathtub":
        add_piece("shower", space, palette, front=0.5, corner=True)
    add_piece("toilet", space, palette, front=0.5)
    add_piece("vanity", space, palette, front=0.55)
    maybe_add("washing_machine", 0.35, space, palette, front=0.5)
    if space.inner.area > 10.0:
        maybe_add("shower" if tub == "bathtub" else "bathtub", 0.7, space, palette, corner=True)
        maybe_add("dresser", 0.4, space, palette)
        maybe_add("plant", 0.6, space, palette, front=0.0, corner=True)
    maybe_add("basket", 0.5, space, palette, front=0.0, corner=True)
    maybe_add("radiator", 0.4, space, palette, front=0.3)
    maybe_add("stool", 0.3, space, palette, front=0.0)
    if draws.chance(0.6):
        rug_in_middle(space, palette, 0.35)


def study(space: Space, palette: Palette) -> None:
    """A desk and walls of books."""
    draws = space.draws
    desk_set(space, palette)
    for _ in range(draws.integer(2, 3)):
        add_piece("bookshelf", space, palette, front=0.5, corner=True)
    maybe_add("armchair", 0.6, space, palette, corner=True)
    _plants_and_lamps(space, palette, plants=0.7, lamps=0.7)
    maybe_add("sideboard", 0.3, space, palette)
    maybe_add("piano", 0.12, space, palette)
    if draws.chance(0.6):
        rug_in_middle(space, palette, 0.5)


def hallway(space: Space, palette: Palette) -> None:
    """Narrow things along the walls; always wide enough to pass."""
    clear = 0.85
    maybe_add("console", 0.8, space, palette, front=clear)
    maybe_add("bench", 0.5, space, palette, front=clear)
    maybe_add("coat_rack", 0.5, space, palette, front=clear, corner=True)
    maybe_add("plant", 0.6, space, palette, front=clear, corner=True)
    if space.inner.area > 9.0:
        maybe_add("console", 0.4, space, palette, front=clear)
        maybe_add("plant", 0.4, space, palette, front=clear)
    if space.draws.chance(0.7):
        runner(space, palette)


def laundry(space: Space, palette: Palette) -> None:
    """Washing machines, a counter and baskets."""
    draws = space.draws
    for _ in range(draws.integer(1, 2)):
        add_piece("washing_machine", space, palette, front=0.6, corner=True)
    width = draws.uniform(0.9, 1.5)
    counter = pieces_wet.counter(draws, palette, width)
    space.against_wall([Member(counter, 0.0, 0.0)], width, counter.depth, front=0.6)
    add_piece("basket", space, palette, front=0.0, corner=True)
    maybe_add("kitchen_sink", 0.5, space, palette, front=0.6)
    maybe_add("basket", 0.5, space, palette, front=0.0)
    maybe_add("trash_bin", 0.5, space, palette, front=0.0, corner=True)
    maybe_add("radiator", 0.5, space, palette, front=0.3)


def playroom(space: Space, palette: Palette) -> None:
    """Toys, stools around a low table, shelves."""
    draws = space.draws
    rug_in_middle(space, palette, draws.uniform(0.5, 0.65))
    for _ in range(draws.integer(1, 2)):
        add_piece("toy_box", space, palette)
    add_piece("bookshelf", space, palette)
    low_table = make("coffee_table", draws, palette)
    group = [Member(low_table, 0.0, 0.0)]
    for x, y in ((0.0, -1.0), (0.0, 1.0)):
        seat = make("stool", draws, palette)
        group.append(Member(seat, x, y * (low_table.depth / 2 + seat.depth / 2 + 0.05)))
    space.in_middle(group, low_table.width, low_table.depth + 0.9, margin=0.5)
    maybe_add("sofa", 0.4, space, palette, front=0.6)
    maybe_add("piano", 0.25, space, palette, front=0.6)
    maybe_add("dresser", 0.4, space, palette)
    _plants_and_lamps(space, palette, plants=0.5, lamps=0.4)


_PROGRAMMES: Final[dict[str, Callable[[Space, Palette], None]]] = {
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
