"""What stands in which kind of room.

Each programme places the pieces that make the kind recognisable first and extras while there is
room. `furnish` runs the programme of a room's kind and then hangs things on its walls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from envs.houses import pieces_wet
from envs.houses.furniture import make
from envs.houses.groups import (
    add_piece,
    before_sofa,
    desk_set,
    dining_set,
    kitchen_run,
    maybe_add,
    rug_in_middle,
    runner,
)
from envs.houses.hangings import hang_on_walls, hang_windows
from envs.houses.placing import Member
from envs.houses.space import Space

if TYPE_CHECKING:
    from collections.abc import Callable

    from envs.houses.palette import Palette


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
