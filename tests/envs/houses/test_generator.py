"""Houses are what the contract in `scene.py` says, whatever the seed."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from envs.houses.furniture.catalogue import FURNITURE_CATEGORIES, SEMANTIC_NAMES, make
from envs.houses.generation.floorplan import CELL
from envs.houses.generation.generator import SPLITS, generate_house, split_of
from envs.houses.scene import (
    FURNITURE_SEMANTIC,
    GENERATOR_VERSION,
    Face,
    House,
    Kind,
    Semantic,
)
from envs.houses.textures.atlas import TILES, atlas, tile_index
from envs.objectnav.goals import GOAL_SEMANTIC

SIZES = {"small": 12, "medium": 8, "large": 3}
HOUSES = [(size, seed) for size, count in SIZES.items() for seed in range(count)]
FINE = 0.025
RADIUS = 0.25


@pytest.fixture(scope="module")
def houses() -> dict[tuple[str, int], House]:
    return {(size, seed): generate_house(seed, size) for size, seed in HOUSES}


def digest(house: House) -> str:
    """Hash everything that a house consists of."""
    h = hashlib.sha256()
    for part in (house.primitives, house.materials):
        for name in part.__dataclass_fields__:
            h.update(np.ascontiguousarray(getattr(part, name)).tobytes())
    rest = (house.seed, house.size, house.extent, house.wall_height)
    h.update(repr((rest, house.rooms, house.doors, house.furniture, house.receptacles)).encode())
    return h.hexdigest()


def footprints(house: House) -> np.ndarray:
    """Return where the floor is covered at the agent's height, on a fine grid of points."""
    columns, rows = (round(side / FINE) for side in house.extent)
    x, y = np.meshgrid((np.arange(columns) + 0.5) * FINE, (np.arange(rows) + 0.5) * FINE)
    covered = np.zeros(x.shape, bool)
    p = house.primitives
    for i in range(len(p)):
        low, high = p.center_P3[i, 2] - p.half_P3[i, 2], p.center_P3[i, 2] + p.half_P3[i, 2]
        if high <= 0.05 or low >= 1.4:
            continue
        reach = np.hypot(*p.half_P3[i, :2]) + 2 * FINE
        x0, y0 = p.center_P3[i, 0], p.center_P3[i, 1]
        window = np.s_[
            max(0, int((y0 - reach) / FINE)) : int((y0 + reach) / FINE) + 1,
            max(0, int((x0 - reach) / FINE)) : int((x0 + reach) / FINE) + 1,
        ]
        dx, dy = x[window] - x0, y[window] - y0
        along = np.cos(p.yaw_P[i]) * dx + np.sin(p.yaw_P[i]) * dy
        across = np.cos(p.yaw_P[i]) * dy - np.sin(p.yaw_P[i]) * dx
        u, v = along / p.half_P3[i, 0], across / p.half_P3[i, 1]
        if p.kind_P[i] == Kind.BOX:
            # Thin boards may pass between points, so boxes are grown by half a cell.
            half = p.half_P3[i, :2] + FINE / 2
            covered[window] |= (np.abs(along) <= half[0]) & (np.abs(across) <= half[1])
        else:
            covered[window] |= u * u + v * v <= 1.0
    return covered


def free_floor(house: House) -> np.ndarray:
    """Inflate by the agent's radius with a distance transform, and label what is connected."""
    covered = np.pad(footprints(house), 1, constant_values=True)
    distance = ndimage.distance_transform_edt(~covered)[1:-1, 1:-1] * FINE
    labels, _ = ndimage.label(distance >= RADIUS)
    return labels


@pytest.mark.parametrize(
    ("size", "rooms", "sides"),
    [
        ("small", (3, 5), (5.0, 9.6)),
        ("medium", (8, 10), (10.4, 13.6)),
        ("large", (10, 18), (14.9, 20.0)),
    ],
)
def test_size_says_how_many_rooms_and_metres(houses, size, rooms, sides) -> None:
    for (other, _), house in houses.items():
        if other == size:
            assert rooms[0] <= len(house.rooms) <= rooms[1]
            assert sides[0] <= min(house.extent)
            assert max(house.extent) <= sides[1]


def test_medium_houses_have_at_least_250_primitives_in_the_mean() -> None:
    assert np.mean([len(generate_house(100 + i, "medium").primitives) for i in range(20)]) >= 250


def test_rooms_tile_the_house_and_reach_to_the_middle_of_its_walls(houses) -> None:
    for house in houses.values():
        inset = min(room.x0 for room in house.rooms)
        area = sum((r.x1 - r.x0) * (r.y1 - r.y0) for r in house.rooms)
        whole = (house.extent[0] - 2 * inset) * (house.extent[1] - 2 * inset)
        assert area == pytest.approx(whole, rel=1e-6)
        for a, b in itertools.combinations(house.rooms, 2):
            assert min(a.x1, b.x1) - max(a.x0, b.x0) < 1e-6 or (
                min(a.y1, b.y1) - max(a.y0, b.y0) < 1e-6
            )
        walls = house.primitives.semantic_P == Semantic.WALL
        low = (house.primitives.center_P3 - house.primitives.half_P3)[walls]
        high = (house.primitives.center_P3 + house.primitives.half_P3)[walls]
        assert low.min() >= -1e-4
        assert np.all(high.max(0) <= np.array([*house.extent, house.wall_height]) + 1e-4)


def test_houses_have_the_usual_rooms(houses) -> None:
    for (size, _), house in houses.items():
        kinds = [room.kind for room in house.rooms]
        assert "living_room" in kinds
        assert "kitchen" in kinds
        if size != "small":
            assert {"bedroom", "bathroom"} <= set(kinds)
    seen = {room.kind for house in houses.values() for room in house.rooms}
    assert len(seen) == 9


@pytest.mark.parametrize(("size", "seed"), HOUSES)
def test_free_floor_is_connected_and_leads_into_every_room(houses, size, seed) -> None:
    house = houses[size, seed]
    labels = free_floor(house)
    counts = np.bincount(labels.ravel())[1:]
    main = int(np.argmax(counts)) + 1
    assert counts.max() / counts.sum() > 0.99
    assert (counts.sum() - counts.max()) * FINE**2 < 0.3
    for room in house.rooms:
        inside = labels[
            int(room.y0 / FINE) : int(room.y1 / FINE), int(room.x0 / FINE) : int(room.x1 / FINE)
        ]
        assert (inside == main).any(), room
    for door in house.doors:
        assert labels[int(door.y / FINE), int(door.x / FINE)] == main, door


def test_doors_are_open_and_join_their_rooms(houses) -> None:
    for house in houses.values():
        covered = footprints(house)
        for door in house.doors:
            assert 0.8 <= door.width
            assert 2.0 <= door.height < house.wall_height
            a, b = house.rooms[door.room_a], house.rooms[door.room_b]
            if door.along_x:
                assert a.y1 == pytest.approx(door.y)
                assert b.y0 == pytest.approx(door.y)
                span = (max(a.x0, b.x0), min(a.x1, b.x1))
                half_x, half_y, middle = door.width / 2 - 2 * FINE, 0.6, door.x
            else:
                assert a.x1 == pytest.approx(door.x)
                assert b.x0 == pytest.approx(door.x)
                span = (max(a.y0, b.y0), min(a.y1, b.y1))
                half_x, half_y, middle = 0.6, door.width / 2 - 2 * FINE, door.y
            assert span[0] < middle - door.width / 2
            assert middle + door.width / 2 < span[1]
            window = covered[
                int((door.y - half_y) / FINE) : int((door.y + half_y) / FINE),
                int((door.x - half_x) / FINE) : int((door.x + half_x) / FINE),
            ]
            assert not window.any(), door


def test_walls_show_each_room_its_own_paper(houses) -> None:
    for house in houses.values():
        p = house.primitives
        for i in np.flatnonzero(p.semantic_P == Semantic.WALL):
            along_x = p.half_P3[i, 0] > p.half_P3[i, 1]
            axis, faces = (
                (1, (Face.NEG_Y, Face.POS_Y)) if along_x else (0, (Face.NEG_X, Face.POS_X))
            )
            if p.half_P3[i, 1 - axis] < 0.1:
                continue  # a stub beside a door that is as short as the wall is thick
            assert 0.04 <= p.half_P3[i, axis] <= 0.05
            for side, face in zip((-1, 1), faces, strict=True):
                point = p.center_P3[i, :2].astype(float)
                point[axis] += side * (p.half_P3[i, axis] + 0.05)
                inside = [
                    r for r in house.rooms if r.x0 < point[0] < r.x1 and r.y0 < point[1] < r.y1
                ]
                if inside:
                    assert p.material_PF[i, face] == inside[0].wall_material


def bounds(house: House, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the boxes around primitives."""
    p = house.primitives
    half = p.half_P3[start:stop].astype(float)
    yaw = p.yaw_P[start:stop, None]
    turned = half.copy()
    turned[:, :2] = np.abs(np.cos(yaw)) * half[:, :2] + np.abs(np.sin(yaw)) * half[:, 1::-1]
    center = p.center_P3[start:stop]
    return center - turned, center + turned


def test_furniture_stays_between_the_walls_of_one_room(houses) -> None:
    for house in houses.values():
        half_wall = min(room.x0 for room in house.rooms)
        for piece in house.furniture:
            low, high = bounds(house, piece.start, piece.stop)
            (x0, y0, _), (x1, y1, z1) = low.min(0), high.max(0)
            middle = ((x0 + x1) / 2, (y0 + y1) / 2)
            room = next(
                r for r in house.rooms if r.x0 < middle[0] < r.x1 and r.y0 < middle[1] < r.y1
            )
            name = FURNITURE_CATEGORIES[piece.category]
            assert x0 >= room.x0 + half_wall - 1e-3, name
            assert y0 >= room.y0 + half_wall - 1e-3, name
            assert x1 <= room.x1 - half_wall + 1e-3, name
            assert y1 <= room.y1 - half_wall + 1e-3, name
            assert low.min() >= -1e-4
            assert z1 <= house.wall_height, name


def test_pieces_of_furniture_do_not_run_into_each_other(houses) -> None:
    for house in houses.values():
        boxes = [bounds(house, f.start, f.stop) for f in house.furniture]
        whole = [(low.min(0), high.max(0)) for low, high in boxes]
        for i, j in itertools.combinations(range(len(boxes)), 2):
            if np.any(whole[i][0] >= whole[j][1]) or np.any(whole[j][0] >= whole[i][1]):
                continue
            deep = np.minimum(boxes[i][1][:, None], boxes[j][1][None]) - np.maximum(
                boxes[i][0][:, None], boxes[j][0][None]
            )
            names = [FURNITURE_CATEGORIES[house.furniture[k].category] for k in (i, j)]
            # Rugs lie under things; a towel may touch a tub's rim; curtains hang over windows.
            if "rug" not in names and names != ["window", "curtain"]:
                assert deep.min(-1).max() < 0.03, (house.seed, house.size, names)


def test_many_categories_of_several_parts(houses) -> None:
    medium = [house for (size, _), house in houses.items() if size == "medium"]
    parts: dict[str, list[int]] = {}
    for house in houses.values():
        for piece in house.furniture:
            name = FURNITURE_CATEGORIES[piece.category]
            parts.setdefault(name, []).append(piece.stop - piece.start)
    standing = [name for name, counts in parts.items() if np.mean(counts) >= 2.0]
    assert len(standing) >= 20
    for house in medium:
        assert len({piece.category for piece in house.furniture}) >= 20


def test_primitives_of_a_piece_are_consecutive_and_carry_its_category(houses) -> None:
    for house in houses.values():
        walls = int(np.sum(house.primitives.semantic_P == Semantic.WALL))
        position = walls
        for piece in house.furniture:
            assert piece.start == position
            assert piece.stop > piece.start
            position = piece.stop
            semantic = house.primitives.semantic_P[piece.start : piece.stop]
            assert np.all(semantic == FURNITURE_SEMANTIC + piece.category)
        assert position == len(house.primitives)
        assert not house.primitives.instance_P.any()


def test_materials_are_sound(houses) -> None:
    for house in houses.values():
        materials = house.materials
        assert materials.rgb_M3.min() >= 0.0
        assert materials.rgb_M3.max() <= 1.0
        assert 0 <= materials.tile_M.min()
        assert materials.tile_M.max() < len(atlas())
        assert materials.repeat_M.min() >= 0.0
        used = house.primitives.material_PF
        assert 0 <= used.min()
        assert used.max() < len(materials.tile_M)
        for room in house.rooms:
            floor = materials.tile_M[room.floor_material]
            assert TILES[floor] != "plain"


def test_receptacles_lie_on_their_furniture(houses) -> None:
    for house in houses.values():
        assert len(house.receptacles) >= 8
        tops = house.primitives.center_P3[:, 2] + house.primitives.half_P3[:, 2]
        for place in house.receptacles:
            assert place.clearance > 0.2
            under = np.abs(tops - place.z) < 1e-3
            dx = np.abs(house.primitives.center_P3[:, 0] - place.x)
            dy = np.abs(house.primitives.center_P3[:, 1] - place.y)
            reach = np.hypot(house.primitives.half_P3[:, 0], house.primitives.half_P3[:, 1])
            assert np.any(under & (np.hypot(dx, dy) <= reach)), place


def test_same_seed_gives_the_same_bits() -> None:
    for size in SIZES:
        assert digest(generate_house(5, size)) == digest(generate_house(5, size))
    assert digest(generate_house(5, "small")) != digest(generate_house(8, "small"))


def test_same_bits_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests/envs/houses');"
        "from test_generator import digest, generate_house;"
        "print(*(digest(generate_house(s, z)) for z in ('small', 'medium') for s in (0, 7)))"
    )
    for hash_seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        expected = [digest(generate_house(s, z)) for z in ("small", "medium") for s in (0, 7)]
        assert result.stdout.split() == expected


def plan_of(house: House) -> tuple:
    """Return rooms and doors without colours."""
    rooms = tuple((r.kind, r.x0, r.y0, r.x1, r.y1) for r in house.rooms)
    return house.extent, rooms, tuple((d.x, d.y) for d in house.doors)


def colours_of(house: House) -> tuple:
    """Return the colours of walls and floors."""
    indices = [(r.wall_material, r.floor_material) for r in house.rooms]
    return tuple(house.materials.rgb_M3[np.array(indices)].ravel().tolist())


def test_splits_share_neither_plans_nor_colours() -> None:
    plans: dict[str, set] = {name: set() for name in SPLITS}
    colours: dict[str, set] = {name: set() for name in SPLITS}
    for seed in range(180):
        house = generate_house(seed, "small")
        plans[split_of(seed)].add(plan_of(house))
        colours[split_of(seed)].add(colours_of(house))
    for name in SPLITS:
        assert len(plans[name]) == 60  # no house twice within a split either
        assert len(colours[name]) == 60
    for a, b in itertools.combinations(SPLITS, 2):
        assert not plans[a] & plans[b]
        assert not colours[a] & colours[b]


def test_sides_of_a_house_tell_its_split(houses) -> None:
    for (_, seed), house in houses.items():
        columns, rows = (round(side / CELL) for side in house.extent)
        assert columns * CELL == pytest.approx(house.extent[0])
        assert (columns + rows) % 3 == seed % 3
        assert split_of(house.seed) == SPLITS[(columns + rows) % 3]


def test_atlas_is_multiplicative_and_reproducible() -> None:
    tiles = atlas()
    assert tiles.shape[1:] == (32, 32, 3)
    assert len(tiles) == len(TILES) >= 24
    assert np.all(tiles[0] == 1.0)
    assert tiles.min() >= 0.0
    assert tiles.max() <= 1.0
    assert len({tile.tobytes() for tile in tiles}) == len(tiles)
    np.testing.assert_array_equal(np.round(tiles * 255.0) / np.float32(255.0), tiles)


def test_semantic_ids_have_names() -> None:
    assert SEMANTIC_NAMES[Semantic.WALL] == "wall"
    assert SEMANTIC_NAMES[FURNITURE_SEMANTIC + FURNITURE_CATEGORIES.index("fridge")] == "fridge"
    assert SEMANTIC_NAMES[GOAL_SEMANTIC + 18] == "mug"
    assert len(FURNITURE_CATEGORIES) <= GOAL_SEMANTIC - FURNITURE_SEMANTIC


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: generate_house(0, "medum"), ValueError, "got 'medum'. Did you mean 'medium'"),
        (lambda: generate_house(-1, "small"), ValueError, r"must lie in \[0, 2\*\*62\), got -1"),
        (lambda: generate_house(2**62, "small"), ValueError, "must lie in"),
        (lambda: generate_house(1.5, "small"), TypeError, "must be an integer, got 1.5"),
        (lambda: generate_house(True, "small"), TypeError, "must be an integer, got True"),
        (lambda: tile_index("plank"), ValueError, "Did you mean 'planks'"),
        (lambda: make("wardrob", None, None), ValueError, "Did you mean 'wardrobe'"),
    ],
)
def test_bad_input_is_named(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


def test_version_is_part_of_every_draw(monkeypatch) -> None:
    before = digest(generate_house(3, "small"))
    monkeypatch.setattr("envs.houses.generation.generator.GENERATOR_VERSION", GENERATOR_VERSION + 1)
    assert digest(generate_house(3, "small")) != before
