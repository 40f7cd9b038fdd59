"""Scenes of random solids in rooms with doors, and places from which to look at them."""

from __future__ import annotations

import numpy as np

from envs.houses.scene import (
    FURNITURE_SEMANTIC,
    GOAL_INSTANCE,
    Door,
    House,
    Kind,
    Materials,
    Primitives,
    Room,
    Scene,
    Semantic,
)
from envs.objectnav.goals import GOAL_SEMANTIC

WALL_HEIGHT, HALF_WALL = 2.7, 0.06
DOOR_WIDTH, DOOR_HEIGHT = 0.95, 2.1


def random_atlas(seed: int = 0, tiles: int = 5, size: int = 16) -> np.ndarray:
    """Return noisy tiles; the first is plain."""
    atlas = np.random.default_rng(seed).uniform(0.2, 1.0, (tiles, size, size, 3))
    atlas[0] = 1.0
    return atlas.astype(np.float32)


def random_scene(seed: int, *, pieces: int = 60, rooms: tuple[int, int] = (2, 2)) -> Scene:
    """Return a grid of rooms, neighbours joined by doors, with solids of all kinds in them."""
    rng = np.random.default_rng(seed)
    xs = np.cumsum([0.0, *rng.uniform(3.0, 5.0, rooms[0])])
    ys = np.cumsum([0.0, *rng.uniform(3.0, 5.0, rooms[1])])
    materials = Materials(
        rng.uniform(0.1, 1.0, (24, 3)).astype(np.float32),
        rng.integers(0, 5, 24).astype(np.int16),
        rng.choice([0.0, 0.2, 0.5, 1.0, 1.7], 24).astype(np.float32),
    )
    plans = [
        Room("room", xs[i], ys[j], xs[i + 1], ys[j + 1], *rng.integers(0, 24, 3).tolist())
        for j in range(rooms[1])
        for i in range(rooms[0])
    ]
    rows: list[tuple] = []
    doors: list[Door] = []
    for i, x in enumerate(xs):
        for j in range(rooms[1]):
            ends = (ys[j], ys[j + 1])
            pair = (j * rooms[0] + i - 1, j * rooms[0] + i) if 0 < i < rooms[0] else None
            _wall(rng, rows, doors, x, ends, pair, along_x=False)
    for j, y in enumerate(ys):
        for i in range(rooms[0]):
            ends = (xs[i], xs[i + 1])
            pair = ((j - 1) * rooms[0] + i, j * rooms[0] + i) if 0 < j < rooms[1] else None
            _wall(rng, rows, doors, y, ends, pair, along_x=True)
    for piece in range(pieces):
        rows.append(_piece(rng, piece, xs[-1], ys[-1]))
    primitives = _primitives(rng, rows)
    house = House(
        seed, "small", (xs[-1], ys[-1]), WALL_HEIGHT, tuple(plans), tuple(doors), (), (),
        primitives, materials,
    )  # fmt: skip
    return Scene(house, 0, (), primitives, materials)


def free_poses(scene: Scene, num: int, seed: int, radius: float = 0.25) -> np.ndarray:
    """Return poses (num, 4) of an agent that touches no solid between 0.05 and 1.4 metres."""
    rng = np.random.default_rng(seed)
    solids = scene.primitives
    half, center = solids.half_P3.astype(float), solids.center_P3.astype(float)
    tall = (center[:, 2] + half[:, 2] > 0.05) & (center[:, 2] - half[:, 2] < 1.4)
    c, s = np.cos(solids.yaw_P), np.sin(solids.yaw_P)
    found = []
    while len(found) < num:
        x, y = rng.uniform((0.3, 0.3), np.array(scene.house.extent) - 0.3)
        dx, dy = x - center[:, 0], y - center[:, 1]
        gap_x = np.maximum(np.abs(c * dx + s * dy) - half[:, 0], 0.0)
        gap_y = np.maximum(np.abs(c * dy - s * dx) - half[:, 1], 0.0)
        if (np.hypot(gap_x, gap_y)[tall] > radius).all():
            found.append((x, y, rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(-60, 30))))
    return np.array(found)


def _wall(rng, rows, doors, at, ends, rooms, *, along_x: bool) -> None:
    """Append a wall along one edge of a room, with a door where it parts two rooms."""
    low, high = ends[0] - HALF_WALL, ends[1] + HALF_WALL
    pieces = [(low, high, 0.0, WALL_HEIGHT)]
    if rooms is not None:
        middle = rng.uniform(ends[0] + 1.0, ends[1] - 1.0)
        a, b = middle - DOOR_WIDTH / 2, middle + DOOR_WIDTH / 2
        pieces = [
            (low, a, 0.0, WALL_HEIGHT),
            (b, high, 0.0, WALL_HEIGHT),
            (a, b, DOOR_HEIGHT, WALL_HEIGHT),
        ]
        x, y = (middle, at) if along_x else (at, middle)
        doors.append(Door(*rooms, x, y, DOOR_WIDTH, DOOR_HEIGHT, along_x))
    for start, stop, bottom, top in pieces:
        center, half = (start + stop) / 2, (stop - start) / 2
        where = (center, at) if along_x else (at, center)
        size = (half, HALF_WALL) if along_x else (HALF_WALL, half)
        rows.append(
            (Kind.BOX, (*where, (top + bottom) / 2), (*size, (top - bottom) / 2), 0.0,
             Semantic.WALL, 0)
        )  # fmt: skip


def _piece(rng, number: int, width: float, depth: float) -> tuple:
    """Return a solid of any kind; some hang high, some are goal objects."""
    kind = Kind(int(rng.integers(3)))
    small = number % 3 == 0
    half = rng.uniform(0.03, 0.1, 3) if small else rng.uniform(0.1, 0.5, 3)
    if kind == Kind.CYLINDER:
        half[1] = half[0]
    bottom = rng.choice([0.0, rng.uniform(0.0, 1.0), rng.uniform(1.45, 2.0)])
    center = (rng.uniform(0.3, width - 0.3), rng.uniform(0.3, depth - 0.3), bottom + half[2])
    yaw = rng.choice([0.0, rng.uniform(-np.pi, np.pi)])
    instance = GOAL_INSTANCE + number if small else 0
    semantic = GOAL_SEMANTIC + number % 20 if small else FURNITURE_SEMANTIC + number % 30
    return kind, center, tuple(half), yaw, semantic, instance


def _primitives(rng, rows: list[tuple]) -> Primitives:
    """Stack the solids, each face with a material of its own."""
    kind, center, half, yaw, semantic, instance = zip(*rows, strict=True)
    return Primitives(
        center_P3=np.array(center, np.float32),
        half_P3=np.array(half, np.float32),
        yaw_P=np.array(yaw, np.float32),
        kind_P=np.array(kind, np.uint8),
        material_PF=rng.integers(0, 24, (len(rows), 6)).astype(np.int16),
        semantic_P=np.array(semantic, np.int16),
        instance_P=np.array(instance, np.int16),
    )
