"""Small houses drawn by hand, for tests that must not depend on the generator."""

from __future__ import annotations

import numpy as np

from envs.houses.scene import (
    GOAL_INSTANCE,
    GoalObject,
    House,
    Kind,
    Materials,
    Primitives,
    Room,
    Scene,
    Semantic,
    concatenate,
)
from envs.objectnav.goals import GOAL_SEMANTIC

WALL_HEIGHT = 2.6
Solid = tuple[int, tuple[float, float, float], tuple[float, float, float], float]
"""(kind, centre, half extents, yaw)."""


def primitives_of(solids: list[Solid], semantic: int = Semantic.WALL, instance: int = 0):
    n = len(solids)
    return Primitives(
        center_P3=np.array([s[1] for s in solids], np.float32).reshape(n, 3),
        half_P3=np.array([s[2] for s in solids], np.float32).reshape(n, 3),
        yaw_P=np.array([s[3] for s in solids], np.float32),
        kind_P=np.array([s[0] for s in solids], np.uint8),
        material_PF=np.zeros((n, 6), np.int16),
        semantic_P=np.full(n, semantic, np.int16),
        instance_P=np.full(n, instance, np.int16),
    )


def box(x0: float, y0: float, x1: float, y1: float, z0: float = 0.0, z1: float = WALL_HEIGHT):
    center = ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2)
    return (Kind.BOX, center, ((x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2), 0.0)


def outer_walls(width: float, depth: float, half: float = 0.05) -> list[Solid]:
    return [
        box(-half, -half, width + half, half),
        box(-half, depth - half, width + half, depth + half),
        box(-half, -half, half, depth + half),
        box(width - half, -half, width + half, depth + half),
    ]


def house_of(solids: list[Solid], width: float, depth: float) -> House:
    return House(
        seed=0,
        size="small",
        extent=(width, depth),
        wall_height=WALL_HEIGHT,
        rooms=(Room("room", 0.0, 0.0, width, depth, 0, 0, 0),),
        doors=(),
        furniture=(),
        receptacles=(),
        primitives=primitives_of(solids),
        materials=Materials(
            np.full((1, 3), 0.5, np.float32), np.zeros(1, np.int16), np.ones(1, np.float32)
        ),
    )


def furnished_house(seed: int, width: float = 9.0, depth: float = 7.0, pieces: int = 20) -> House:
    """Two rooms with a door between them, and furniture of all kinds at random angles."""
    rng = np.random.default_rng(seed)
    wall_x = width * 0.55
    door_y = rng.uniform(1.0, depth - 1.0)
    solids = outer_walls(width, depth)
    solids.append(box(wall_x - 0.05, 0.0, wall_x + 0.05, door_y - 0.45))
    solids.append(box(wall_x - 0.05, door_y + 0.45, wall_x + 0.05, depth))
    for _ in range(pieces):
        x, y = rng.uniform(0.3, width - 0.3), rng.uniform(0.3, depth - 0.3)
        if abs(x - wall_x) < 1.3 and abs(y - door_y) < 1.3:
            continue  # keep the door passable
        kind = int(rng.integers(3))
        half_z = rng.uniform(0.2, 0.6)
        half_x, half_y = rng.uniform(0.1, 0.5, 2)
        if kind == Kind.CYLINDER:
            half_y = half_x
        solids.append((kind, (x, y, half_z), (half_x, half_y, half_z), rng.uniform(-3, 3)))
    return house_of(solids, width, depth)


def scene_of(house: House, objects: list[list[Solid]]) -> Scene:
    """Put goal objects, each a list of solids, into a house."""
    parts, placed = [house.primitives], []
    start = len(house.primitives)
    for i, solids in enumerate(objects):
        part = primitives_of(solids, GOAL_SEMANTIC + i, GOAL_INSTANCE + i)
        low = (part.center_P3 - part.half_P3).min(0)
        high = (part.center_P3 + part.half_P3).max(0)
        x, y, z = ((low + high) / 2).tolist()
        reach = np.hypot(part.center_P3[:, 0] - x, part.center_P3[:, 1] - y)
        radius = float((reach + np.hypot(part.half_P3[:, 0], part.half_P3[:, 1])).max())
        half_height = float(high[2] - low[2]) / 2
        stop = start + len(part)
        placed.append(
            GoalObject(GOAL_INSTANCE + i, i, x, y, z, radius, half_height, 0, start, stop)
        )
        parts.append(part)
        start = stop
    return Scene(house, 0, tuple(placed), concatenate(*parts), house.materials)
