"""Pieces of furniture that belong together, and how they are placed in a room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envs.houses import pieces_decor, pieces_wet
from envs.houses.floorplan import Rect
from envs.houses.furniture import make
from envs.houses.placing import Member, Spot, turned
from envs.houses.space import Space

if TYPE_CHECKING:
    from envs.houses.model import Model
    from envs.houses.palette import Palette


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
