"""Generates a furnished house from a seed: plan, doors, furniture, colours.

`generate_house` is a pure function of (GENERATOR_VERSION, seed, size): the same bits in every
process and on every machine. The remainder of the seed by three is the house's split; sides and
hues of the house leave the same remainder, so that splits share neither plans nor colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.core.validation import unknown_name
from envs.houses.draws import Draws
from envs.houses.furniture.piece import Piece
from envs.houses.generation.assembly import (
    Frame,
    Solid,
    furniture_record,
    obstacles_of,
    pack_primitives,
    piece_solids,
    receptacle,
    wall_solids,
)
from envs.houses.generation.blockers import pieces_in_the_way, reachable_slots
from envs.houses.generation.doorways import (
    OUTSIDE,
    Shared,
    adjacent_rooms,
    cut_doors,
    shared_walls,
    wall_pieces,
)
from envs.houses.generation.floorplan import (
    CELL,
    SIZES,
    Rect,
    assign_kinds,
    extent_cells,
    partition,
)
from envs.houses.generation.room_layout import Placed, RoomLayout, Side, Stretch
from envs.houses.generation.rooms import furnish
from envs.houses.scene import (
    GENERATOR_VERSION,
    Door,
    Furniture,
    House,
    Receptacle,
    Room,
)
from envs.houses.textures.palette import Palette

SPLITS: Final[tuple[str, ...]] = ("train", "val", "test")
"""Names of the splits by the remainder of a house seed divided by three."""

LARGEST_SEED: Final = 2**62

_PLAN_STREAM: Final = 1
_COLOUR_STREAM: Final = 2
"""Draws of their own, so that a change of the one leaves the other as it is."""
_ATTEMPTS: Final = 50
_LEAST_SLOTS: Final = 24
"""Places for objects that a house must offer, so that every arrangement finds enough."""


def generate_house(seed: int, size: str) -> House:
    """Make a house.

    Args:
        seed: names the house; its remainder by three is the split (train, val, test).
        size: "small" (3-5 rooms), "medium" (8-10 rooms) or "large" (13-18 rooms).

    Returns:
        The house, with all free floor connected for an agent of radius 0.25 m.

    Raises:
        ValueError: The seed or the size is not valid.
    """
    check_size(size, "generate_house")
    check_seed(seed, "generate_house: seed")
    for attempt in range(_ATTEMPTS):
        house = _draft(int(seed), size, attempt)
        if house is not None:
            return house
    raise RuntimeError(f"generate_house: no house {seed} of size {size!r} in {_ATTEMPTS} tries.")


def _draft(seed: int, size: str, attempt: int) -> House | None:
    """Make a house, or None if a door is blocked or too few objects would find a place."""
    # With the attempt, so that what a refused draft drew changes nothing later.
    key = (GENERATOR_VERSION, tuple(SIZES).index(size), seed, attempt)
    draws = Draws(_PLAN_STREAM, *key)
    code = seed % len(SPLITS)
    palette = Palette(Draws(_COLOUR_STREAM, *key), code)
    plan = _plan(size, draws, code)
    rooms = tuple(
        Room(
            kind,
            *rect,
            floor_material=palette.floor(kind),
            wall_material=palette.wall(kind),
            ceiling_material=palette.ceiling(),
        )
        for kind, rect in zip(plan.kinds, plan.rects, strict=True)
    )
    height = round(draws.uniform(2.5, 2.75), 2)
    solids = wall_solids(
        wall_pieces(plan.walls, plan.doors),
        thickness=plan.thickness,
        height=height,
        papers=[room.wall_material for room in rooms],
        trim=palette.trim,
    )
    placed: list[Placed] = []
    for index, kind in enumerate(plan.kinds):
        layout = _room_layout(index, plan, draws)
        furnish(kind, layout, palette)
        placed += layout.placed
    pieces, free_YX = _without_blockers(plan.extent, solids, placed)
    if not all(free_YX[int(door.y / CELL), int(door.x / CELL)] for door in plan.doors):
        return None
    furniture, receptacles = _add_furniture(solids, pieces)
    if reachable_slots(receptacles, free_YX) < _LEAST_SLOTS:
        return None
    return House(
        seed=seed,
        size=size,
        extent=plan.extent,
        wall_height=height,
        rooms=rooms,
        doors=tuple(plan.doors),
        furniture=tuple(furniture),
        receptacles=tuple(receptacles),
        primitives=pack_primitives(solids),
        materials=palette.table.pack(),
    )


def split_of(seed: int) -> str:
    """Return the split that a house belongs to."""
    return SPLITS[seed % len(SPLITS)]


def check_seed(seed: object, what: str) -> None:
    """Raise unless a house's seed is an integer in range.

    Raises:
        TypeError: It is no integer.
        ValueError: It is out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"{what} must be an integer, got {seed!r}. Use 0, 1, 2, ...")
    if not 0 <= seed < LARGEST_SEED:
        raise ValueError(f"{what} must lie in [0, 2**62), got {seed}. Use HouseDataset.house_seed.")


def check_size(size: str, caller: str) -> None:
    """Raise a ValueError that names the nearest size unless the size exists."""
    if size not in tuple(SIZES):  # a tuple, as anything may be looked for in it
        raise unknown_name(caller, "size", size, SIZES)


class _Plan(NamedTuple):
    """Rooms and doors before there is furniture."""

    extent: tuple[float, float]
    thickness: float
    rects: list[Rect]
    walls: list[Shared]
    kinds: list[str]
    doors: list[Door]


def _plan(size: str, draws: Draws, code: int) -> _Plan:
    """Draw plans until one lets doors connect all rooms."""
    half_wall = draws.choice((0.04, 0.045, 0.05))
    for _ in range(_ATTEMPTS):
        count = draws.integer(*SIZES[size].rooms)
        columns, lines = extent_cells(size, count, draws, code)
        extent = (round(columns * CELL, 2), round(lines * CELL, 2))
        # Plans are drawn along the middle lines of walls, so outer walls reach to the extent.
        outline = Rect(half_wall, half_wall, extent[0] - half_wall, extent[1] - half_wall)
        zones = partition(size, count, outline, draws)
        rects = [zone.rect for zone in zones]
        walls = shared_walls(rects)
        kinds = assign_kinds(zones, adjacent_rooms(walls), draws)
        doors = cut_doors(walls, kinds, draws)
        if doors is not None:
            return _Plan(extent, 2 * half_wall, rects, walls, kinds, doors)
    raise RuntimeError(f"generate_house: no connected plan of size {size!r} in {_ATTEMPTS} tries.")


def _room_layout(index: int, plan: _Plan, draws: Draws) -> RoomLayout:
    """Describe a room to those who furnish it."""
    rect, half = plan.rects[index], plan.thickness / 2
    inner = Rect(rect.x0 + half, rect.y0 + half, rect.x1 - half, rect.y1 - half)
    openings: list[Stretch] = []
    for door in plan.doors:
        if index not in (door.room_a, door.room_b):
            continue
        # A door's first room lies on the side of lesser y or x.
        side = (
            (Side.NORTH if door.room_a == index else Side.SOUTH)
            if door.along_x
            else (Side.EAST if door.room_a == index else Side.WEST)
        )
        middle = door.x if door.along_x else door.y
        openings.append(Stretch(side, middle - door.width / 2, middle + door.width / 2))
    outer: list[Stretch] = []
    for wall in plan.walls:
        if wall.below == index and wall.above == OUTSIDE:
            outer.append(Stretch(Side.NORTH if wall.along_x else Side.EAST, wall.low, wall.high))
        elif wall.above == index and wall.below == OUTSIDE:
            outer.append(Stretch(Side.SOUTH if wall.along_x else Side.WEST, wall.low, wall.high))
    return RoomLayout(inner, openings, outer, draws)


class _PlacedPiece(NamedTuple):
    """A piece or a rider at its place, with its primitives."""

    piece: Piece
    frame: Frame
    solids: list[Solid]


def _pieces(item: Placed) -> list[_PlacedPiece]:
    """Make the primitives of a placed piece and of what rides on it."""
    frame = Frame.of(item)
    pieces = (item.piece, *item.piece.riders)
    return [_PlacedPiece(piece, frame, piece_solids(piece, frame)) for piece in pieces]


def _without_blockers(
    extent: tuple[float, float], walls: Sequence[Solid], placed: Sequence[Placed]
) -> tuple[list[_PlacedPiece], NDArray[np.bool_]]:
    """Leave out what would cut the free floor in two; also return that floor, (Y, X)."""
    groups = [_pieces(item) for item in placed]
    solids = list(walls)
    owner = [-1] * len(walls)
    for index, group in enumerate(groups):
        for piece in group:
            solids += piece.solids
            owner += [index] * len(piece.solids)
    area_K = np.array([item.rect.area for item in placed], np.float64)
    obstacles = obstacles_of(solids, np.array(owner, np.int64))
    gone_K, free_YX = pieces_in_the_way(extent, obstacles, area_K)
    kept = [
        piece for group, gone in zip(groups, gone_K, strict=True) if not gone for piece in group
    ]
    return kept, free_YX


def _add_furniture(
    solids: list[Solid], pieces: Sequence[_PlacedPiece]
) -> tuple[list[Furniture], list[Receptacle]]:
    """Append the primitives of all pieces to `solids` and describe the pieces."""
    furniture: list[Furniture] = []
    receptacles: list[Receptacle] = []
    for piece, frame, own in pieces:
        furniture.append(furniture_record(piece, frame, len(solids)))
        solids += own
        receptacles += [receptacle(s, piece.category, frame) for s in piece.surfaces]
    return furniture, receptacles
