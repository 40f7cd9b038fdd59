from __future__ import annotations

import math

import numpy as np
import pytest

from envs.houses.navigation.grid import build_grid
from envs.houses.navigation.visibility import (
    MIN_PIXELS,
    blocks,
    full_pixels,
    pack_scene,
    scene_viewpoints,
    silhouette,
    viewpoints,
)
from envs.houses.scene import Kind
from envs.objectnav.config import EYE_HEIGHT
from tests.envs.houses.hand_made_house import (
    box,
    furnished_house,
    house_of,
    outer_walls,
    scene_of,
)
from tests.envs.houses.pixel_count import count_pixels, hit_depth

MUG = (0.06, 0.06, 0.06)


def mug_at(x, y, z=0.75, half=MUG):
    return (Kind.CYLINDER, (x, y, z + half[2]), half, 0.0)


def random_objects(house, rng, count):
    """Objects of one and two parts on top of furniture."""
    p = house.primitives
    tops = [i for i in range(6, len(p)) if p.kind_P[i] != Kind.ELLIPSOID]
    objects = []
    for k in range(count):
        i = tops[rng.integers(len(tops))]
        x, y = p.center_P3[i, :2] + rng.uniform(-0.4, 0.4, 2) * p.half_P3[i, :2]
        z, s = float(p.center_P3[i, 2] + p.half_P3[i, 2]), rng.uniform(0.02, 0.1)
        solid = [Kind.CYLINDER, Kind.ELLIPSOID, Kind.BOX][k % 3]
        parts = [(solid, (x, y, z + s), (s, s, s), rng.uniform(-3, 3))]
        if k % 2:
            parts.append(mug_at(x + 0.3 * s, y, z + 2 * s, (0.4 * s, 0.4 * s, 0.3 * s)))
        objects.append(parts)
    return objects


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(2)
    house = furnished_house(1, width=8.0, depth=6.0, pieces=20)
    return scene_of(house, random_objects(house, rng, 12))


@pytest.fixture(scope="module")
def grid(scene):
    return build_grid(scene)


def facing_count(scene, obj, x, y):
    """Pixels of an object to an agent that has turned and looked towards it as well as it can."""
    heading = math.atan2(obj.y - y, obj.x - x) + math.radians(10)
    above = math.degrees(math.atan2(obj.z - EYE_HEIGHT, math.hypot(obj.x - x, obj.y - y)))
    pitch = math.radians(min(max(round(above / 30) * 30, -60), 30))
    own = range(obj.start, obj.stop)
    return count_pixels(scene.primitives, own, (x, y, EYE_HEIGHT), heading, pitch)


def test_viewpoints_see_the_object_and_others_do_not(scene, grid):
    rng = np.random.default_rng(0)
    nodes = grid.free_nodes().astype(np.float32)
    at_viewpoints, elsewhere = [], []
    for obj, points in zip(scene.objects, scene_viewpoints(scene, grid), strict=True):
        chosen = {tuple(p) for p in points}
        near = nodes[np.hypot(*(nodes - (obj.x, obj.y)).T) < 1.97]
        others = np.array([n for n in near if tuple(n) not in chosen])
        for where, found in ((points, at_viewpoints), (others, elsewhere)):
            for x, y in where[rng.permutation(len(where))[:8]]:
                found.append(facing_count(scene, obj, float(x), float(y)))
    assert len(at_viewpoints) > 50
    assert len(elsewhere) > 30
    assert np.mean(np.array(at_viewpoints) >= 10) > 0.97
    assert np.mean(np.array(elsewhere) < 20) > 0.95


def test_viewpoints_are_free_nodes_within_reach(scene, grid):
    free = {tuple(n) for n in grid.free_nodes().astype(np.float32)}
    for obj, points in zip(scene.objects, scene_viewpoints(scene, grid, 1.5), strict=True):
        assert points.dtype == np.float32
        assert {tuple(p) for p in points} <= free
        assert (np.hypot(points[:, 0] - obj.x, points[:, 1] - obj.y) < 1.5).all()


def test_one_object_has_the_viewpoints_that_it_has_among_all(scene, grid):
    every = scene_viewpoints(scene, grid)
    assert sum(map(len, every)) > 500
    for obj, points in zip(scene.objects, every, strict=True):
        np.testing.assert_array_equal(viewpoints(scene, grid, obj), points)


def test_walls_hide_objects():
    table = box(4.2, 1.7, 4.8, 2.3, 0.0, 0.75)
    wall = box(3.95, 0.0, 4.05, 3.0)  # the agent can go around it
    house = house_of([*outer_walls(8.0, 4.0), table, wall], 8.0, 4.0)
    scene = scene_of(house, [[mug_at(4.5, 2.0)]])
    grid = build_grid(scene)
    points = viewpoints(scene, grid, scene.objects[0])
    assert len(points) > 100
    assert (points[:, 0] > 4.0).all() | (points[points[:, 0] < 4.0][:, 1] > 2.9).all()
    open_scene = scene_of(house_of([*outer_walls(8.0, 4.0), table], 8.0, 4.0), [[mug_at(4.5, 2.0)]])
    more = viewpoints(open_scene, build_grid(open_scene), open_scene.objects[0])
    assert (more[:, 0] < 4.0).sum() > 100


def test_other_objects_hide_an_object_but_its_own_parts_do_not():
    table = box(3.7, 1.7, 4.3, 2.3, 0.0, 0.75)
    house = house_of([*outer_walls(8.0, 4.0), table], 8.0, 4.0)
    cup = [mug_at(4.0, 2.0), mug_at(4.0, 2.0, 0.75, (0.1, 0.1, 0.02))]
    screen = [box(3.8, 1.8, 3.85, 2.2, 0.75, 1.35)]
    alone = scene_of(house, [cup])
    hidden = scene_of(house, [cup, screen])
    grid = build_grid(house)
    free = viewpoints(alone, grid, alone.objects[0])
    behind = viewpoints(hidden, grid, hidden.objects[0])
    assert ((free[:, 0] < 3.4) & (np.abs(free[:, 1] - 2.0) < 0.3)).any()
    assert not ((behind[:, 0] < 3.4) & (np.abs(behind[:, 1] - 2.0) < 0.3)).any()
    assert ((behind[:, 0] > 4.6) & (np.abs(behind[:, 1] - 2.0) < 0.3)).any()


def test_tiny_objects_must_be_approached():
    table = box(3.7, 1.7, 4.3, 2.3, 0.0, 0.75)
    house = house_of([*outer_walls(8.0, 4.0), table], 8.0, 4.0)
    scene = scene_of(house, [[mug_at(4.0, 2.0, 0.75, (0.02, 0.02, 0.02))]])
    grid = build_grid(scene)
    few = viewpoints(scene, grid, scene.objects[0])
    away = np.hypot(few[:, 0] - 4.0, few[:, 1] - 2.0)
    # A ball of this size would cover pi (0.02 * 128 / distance)^2 pixels, a can a little more.
    reach = 0.02 * 128 * math.sqrt(4 / MIN_PIXELS)
    assert 0.5 < away.max() < math.sqrt(reach**2 - 0.43**2) + 0.15
    more = viewpoints(scene, grid, scene.objects[0], min_pixels=5)
    assert len(more) > 1.5 * len(few)


def test_an_object_must_be_in_the_scene(scene, grid):
    other = scene_of(furnished_house(0), [[mug_at(1.0, 1.0)]] * 20).objects[-1]
    with pytest.raises(ValueError, match="viewpoints: obj must be one of the scene's objects, got"):
        viewpoints(scene, grid, other)


def random_solid(rng, kind):
    half = rng.uniform(0.1, 0.6, 3)
    if kind == Kind.CYLINDER:
        half[1] = half[0]
    return (kind, tuple(rng.uniform(-0.3, 0.3, 3)), tuple(half), rng.uniform(-3, 3))


def packed_solid(rng, kind):
    """A random solid as a scene's only primitive, and as the kernels want it."""
    scene = scene_of(house_of([], 1.0, 1.0), [[random_solid(rng, kind)]])
    return scene.primitives, pack_scene(scene).solids_PC[0]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_solid_blocks_the_segments_that_pass_through_it(kind):
    rng = np.random.default_rng(int(kind))
    t = np.linspace(0.0, 1.0, 2001)
    hits = 0
    for _ in range(300):
        part, solid = packed_solid(rng, kind)
        start, end = rng.uniform(-1, 1, (2, 3))
        q = start + t[:, None] * (end - start) - part.center_P3[0]
        yaw = float(part.yaw_P[0])
        x = np.cos(yaw) * q[:, 0] + np.sin(yaw) * q[:, 1]
        y = np.cos(yaw) * q[:, 1] - np.sin(yaw) * q[:, 0]
        u, v, w = np.abs(np.stack([x, y, q[:, 2]]) / part.half_P3[0][:, None])
        depth = {
            Kind.BOX: np.maximum.reduce([u, v, w]),
            Kind.CYLINDER: np.maximum(np.hypot(u, v), w),
            Kind.ELLIPSOID: np.sqrt(u**2 + v**2 + w**2),
        }[kind].min()
        if abs(depth - 1.0) > 0.01:
            assert blocks(solid, tuple(start), tuple(end - start)) == (depth < 1.0)
            hits += depth < 1.0
    assert 40 < hits < 260


@pytest.mark.parametrize("kind", list(Kind))
def test_silhouettes_have_the_area_of_the_shadow(kind):
    rng = np.random.default_rng(int(kind))
    steps = (np.arange(300) + 0.5) / 300 * 2.4 - 1.2
    across, above = (a.reshape(-1, 1) for a in np.meshgrid(steps, steps))
    for _ in range(12):
        part, solid = packed_solid(rng, kind)
        ahead = rng.normal(size=3)
        ahead /= np.linalg.norm(ahead)
        side = np.cross(ahead, [0.0, 0.0, 1.0])
        side /= np.linalg.norm(side)
        starts = part.center_P3[0] - 5 * ahead + across * side + above * np.cross(side, ahead)
        hit = np.isfinite(hit_depth(part, 0, starts, ahead[None])).sum()
        area = hit * (2.4 / 300) ** 2
        assert silhouette(solid, tuple(ahead)) == pytest.approx(
            area, rel=0.04
        )  # edges fall between rays


def test_pixels_of_an_unhidden_object_match_a_rendered_count():
    rng = np.random.default_rng(4)
    house = house_of([], 6.0, 6.0)
    for k in range(12):
        parts = [random_solid(rng, Kind(k % 3))]
        solid = [(p[0], (3.0, 3.0, 0.6), tuple(0.15 * h for h in p[2]), p[3]) for p in parts]
        scene = scene_of(house, [solid])
        packed = pack_scene(scene)
        angle = rng.uniform(0, 2 * np.pi)
        x, y = 3.0 + 1.5 * np.cos(angle), 3.0 + 1.5 * np.sin(angle)
        counted = facing_count(scene, scene.objects[0], x, y)
        estimate = full_pixels(packed.solids_PC, packed.objects_O9[0], x, y, 128.0)
        assert estimate == pytest.approx(counted, rel=0.25, abs=4)
