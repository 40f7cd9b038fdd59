"""What hangs on the walls of a room: windows, pictures, mirrors, shelves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from envs.houses import pieces_decor
from envs.houses.furniture import make
from envs.houses.placing import Side, Spot
from envs.houses.space import Space

if TYPE_CHECKING:
    from envs.houses.palette import Palette


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


def hang_windows(space: Space, palette: Palette) -> None:
    """Put a window into outer walls, where no tall furniture stands."""
    draws = space.draws
    for outer in space.outer_spans:
        if not draws.chance(0.85):
            continue
        stretches = []
        for spot in space.wall_stretch(outer.side, 0.75):
            low, high = max(spot.low, outer.low), min(spot.high, outer.high)
            if high - low > 1.35:
                stretches.append(Spot(spot.side, low, high))
        if stretches:
            spot = max(stretches, key=lambda s: s.high - s.low)
            width = min(draws.uniform(0.9, 1.7), spot.high - spot.low - 0.5)
            space.hang(pieces_decor.window(draws, palette, width), spot, margin=0.35)


def hang_on_walls(kind: str, space: Space, palette: Palette) -> None:
    """Hang up some of what suits a kind of room, each thing on another wall."""
    draws = space.draws
    count = draws.integer(2, 4)
    things = draws.shuffled(_WALL_THINGS[kind])[:count]
    sides = draws.shuffled(list(Side))
    for thing, side in zip(things, (*sides, *sides), strict=False):
        model = make(thing, draws, palette)
        for spot in space.wall_stretch(side, _LOW_EDGE.get(thing, 1.25)):
            slack = spot.high - spot.low - model.width - 0.1
            if slack > 0.0:
                low = spot.low + draws.uniform(0.0, slack)
                space.hang(model, Spot(side, low, low + model.width + 0.1))
                break
