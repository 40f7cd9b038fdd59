"""Puts goal objects on the furniture of a house.

As in the paper: 30 to 40 instances are drawn and put on random receptacles, then those that an
agent cannot walk up to and see are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from envs.core.validation import unknown_name
from envs.houses.draws import Draws
from envs.houses.furniture.goal_objects import SCALES, enclosing_radius, height_of, make_goal
from envs.houses.furniture.piece import Piece
from envs.houses.generation.assembly import Frame, Solid, pack_primitives, part_solid
from envs.houses.generation.floorplan import SIZES
from envs.houses.navigation.grid import NavGrid, build_grid
from envs.houses.navigation.visibility import scene_viewpoints
from envs.houses.scene import (
    GENERATOR_VERSION,
    GOAL_INSTANCE,
    FloatArray,
    GoalObject,
    House,
    Primitives,
    Receptacle,
    Scene,
    concatenate,
)
from envs.houses.textures.palette import MaterialTable
from envs.objectnav.goals import GOAL_CATEGORIES, GOAL_SEMANTIC

LEAST_OBJECTS: Final = 15
KEPT: Final = (16, 30)
"""How many instances are kept at most, drawn anew for each arrangement; the paper has 23 on average
and from 13 to 33."""
DRAWN: Final = (30, 40)
"""How many instances are drawn at first, both ends included."""
LEAST_VIEWPOINTS: Final = 4
"""An object with fewer free nodes to be seen from is left out: an agent cannot stand on a point."""

_STREAM: Final = 3
"""Tells the draws of an arrangement from those of a house's plan (1) and colours (2)."""
_TRIES: Final = 10
_ROUNDS: Final = 30
_OVERHANG: Final = 0.03
"""Metres by which an object may reach over the edge of what it stands on."""
_GAP: Final = 0.02
_TOUCH: Final = 0.002
"""Metres above the surface below which an object may meet it, by rounding."""


class Placement(NamedTuple):
    """One object on its receptacle."""

    category: int
    piece: Piece
    receptacle: int
    x: float
    y: float
    yaw: float
    radius: float


def arrange(
    house: House, seed: int, *, scale: str = "readable", grid: NavGrid | None = None
) -> Scene:
    """Arrange goal objects in a house.

    Args:
        house: from `generate_house`.
        seed: number of the arrangement.
        scale: "readable" or "real".
        grid: the house's navigation grid, if it is at hand.

    Returns:
        The scene, with 15 to 30 instances, each of which can be seen from where an agent can stand.

    Raises:
        ValueError: The scale or the seed is not valid, or the house has too little furniture.
    """
    check_scale(scale, "arrange")
    if not 0 <= seed < 2**62:
        raise ValueError(f"arrange: seed must lie in [0, 2**62), got {seed}. Use 0, 1, 2, ...")
    size_index = tuple(SIZES).index(house.size)
    key = (GENERATOR_VERSION, size_index, house.seed, int(seed), SCALES.index(scale))
    draws = Draws(_STREAM, *key)
    grid = build_grid(house) if grid is None else grid
    table = MaterialTable()
    kept: list[Placement] = []
    wanted, most = draws.integer(*DRAWN), draws.integer(*KEPT)
    for _ in range(_ROUNDS):
        candidates = [*kept, *_put(house, wanted, kept, scale, draws, table)]
        # New objects may hide older ones, so all of them are looked at once more.
        points = scene_viewpoints(_scene(house, seed, candidates, table), grid)
        kept = [c for c, p in zip(candidates, points, strict=True) if len(p) >= LEAST_VIEWPOINTS]
        if len(kept) >= LEAST_OBJECTS:
            break
        wanted = DRAWN[0]
    else:
        raise ValueError(
            f"arrange: house must have furniture for {LEAST_OBJECTS} objects that can be seen, got "
            f"{len(kept)} in house {house.seed} of size {house.size!r}. Use another house seed."
        )
    # Objects that are left out here hid others at most, so the rest can still be seen.
    return _scene(house, seed, kept[:most], table)


def check_scale(scale: str, caller: str) -> None:
    """Raise a ValueError that names the nearest scale unless the scale exists."""
    if scale not in SCALES:
        raise unknown_name(caller, "scale", scale, SCALES)


def _put(
    house: House,
    count: int,
    before: Sequence[Placement],
    scale: str,
    draws: Draws,
    table: MaterialTable,
) -> list[Placement]:
    """Draw objects and put them where there is room; some find none."""
    if not house.receptacles:
        return []
    weights = [math.sqrt(r.half_x * r.half_y) for r in house.receptacles]
    low_P3, high_P3 = _boxes(house.primitives)
    on: dict[int, list[Placement]] = {}
    for placement in before:
        on.setdefault(placement.receptacle, []).append(placement)
    result: list[Placement] = []
    for _ in range(count):
        category = draws.integer(0, len(GOAL_CATEGORIES) - 1)
        piece = make_goal(category, scale, draws, table)
        radius, height = enclosing_radius(piece), height_of(piece)
        for _ in range(_TRIES):
            index = draws.weighted(weights)
            place = house.receptacles[index]
            spot = _spot(place, radius, height, on.get(index, []), draws)
            if spot is not None and _clear(place.z, spot, radius, height, (low_P3, high_P3)):
                yaw = round(draws.uniform(-math.pi, math.pi), 4)
                placement = Placement(category, piece, index, *spot, yaw, radius)
                on.setdefault(index, []).append(placement)
                result.append(placement)
                break
    return result


def _spot(
    place: Receptacle, radius: float, height: float, others: Sequence[Placement], draws: Draws
) -> tuple[float, float] | None:
    """Draw a free spot on a receptacle, or return None."""
    if height + _GAP > place.clearance:
        return None
    slack_x, slack_y = place.half_x + _OVERHANG - radius, place.half_y + _OVERHANG - radius
    if slack_x < 0.0 or slack_y < 0.0:
        return None
    u, v = draws.uniform(-slack_x, slack_x), draws.uniform(-slack_y, slack_y)
    cos, sin = (math.cos(place.yaw), math.sin(place.yaw)) if place.yaw else (1.0, 0.0)
    # Rounded, as the last bits of sine and cosine differ between machines.
    x, y = round(place.x + cos * u - sin * v, 4), round(place.y + sin * u + cos * v, 4)
    for other in others:
        if (other.x - x) ** 2 + (other.y - y) ** 2 < (other.radius + radius + _GAP) ** 2:
            return None
    return x, y


def _boxes(primitives: Primitives) -> tuple[FloatArray, FloatArray]:
    """Return the corners of the boxes around primitives."""
    half_P3 = primitives.half_P3.copy()
    cos_P, sin_P = np.abs(np.cos(primitives.yaw_P)), np.abs(np.sin(primitives.yaw_P))
    half_P3[:, 0] = cos_P * primitives.half_P3[:, 0] + sin_P * primitives.half_P3[:, 1]
    half_P3[:, 1] = sin_P * primitives.half_P3[:, 0] + cos_P * primitives.half_P3[:, 1]
    return primitives.center_P3 - half_P3, primitives.center_P3 + half_P3


def _clear(
    bottom: float,
    spot: tuple[float, float],
    radius: float,
    height: float,
    boxes: tuple[FloatArray, FloatArray],
) -> bool:
    """Return whether an object meets nothing but what it stands on."""
    low_P3, high_P3 = boxes
    # Against the house only: `_spot` keeps objects of one surface apart.
    low = np.array((spot[0] - radius, spot[1] - radius, bottom + _TOUCH), np.float32)
    high = np.array((spot[0] + radius, spot[1] + radius, bottom + height), np.float32)
    return not bool(((low_P3 < high).all(1) & (high_P3 > low).all(1)).any())


def _scene(house: House, seed: int, placements: Sequence[Placement], table: MaterialTable) -> Scene:
    """Pack a house and its objects."""
    solids: list[Solid] = []
    instances: list[int] = []
    objects: list[GoalObject] = []
    start = len(house.primitives)
    for number, item in enumerate(placements):
        instance = GOAL_INSTANCE + number
        place = house.receptacles[item.receptacle]
        frame = Frame(item.x, item.y, 0, item.yaw, math.cos(item.yaw), math.sin(item.yaw))
        semantic = GOAL_SEMANTIC + item.category
        for part in item.piece.parts:
            lifted = part._replace(z=part.z + place.z)
            solids.append(part_solid(lifted, frame, semantic, keeps_yaw=False))
            instances.append(instance)
        half_height = height_of(item.piece) / 2
        objects.append(
            GoalObject(
                instance=instance,
                category=item.category,
                x=item.x,
                y=item.y,
                z=round(place.z + half_height, 4),
                radius=round(item.radius, 4),
                half_height=round(half_height, 4),
                receptacle=item.receptacle,
                start=start,
                stop=start + len(item.piece.parts),
            )
        )
        start += len(item.piece.parts)
    own = pack_primitives(solids)
    own = replace(
        own,
        # The objects' materials follow those of the house in the joined table.
        material_PF=own.material_PF + np.int16(len(house.materials.tile_M)),
        instance_P=np.array(instances, np.int16),
    )
    return Scene(
        house=house,
        arrangement=int(seed),
        objects=tuple(objects),
        primitives=concatenate(house.primitives, own),
        materials=concatenate(house.materials, table.pack()),
    )
