"""Places and the fields that they share, in houses drawn by hand."""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
import pytest

from envs.houses.dataset import HouseDataset
from envs.houses.navigation.grid import build_grid
from envs.houses.navigation.task_scene import (
    FieldCache,
    FieldPrefetcher,
    HouseTaskScene,
    needed_pixels,
)
from envs.houses.scene import Scene
from envs.objectnav.config import ObjectNavConfig
from envs.objectnav.rules import Goal


def field_of(value: int) -> np.ndarray:
    return np.full((4, 8), value, np.float32)  # 128 bytes


def key(number: int, scene: str = "a") -> tuple[str, Goal]:
    return scene, Goal(number, (number,))


def test_the_least_recently_used_field_makes_room() -> None:
    cache = FieldCache(max_bytes=3 * 128)
    computed: list[int] = []

    def get(number: int) -> float:
        def compute() -> np.ndarray:
            computed.append(number)
            return field_of(number)

        return float(cache.get(key(number), compute)[0, 0])

    assert [get(n) for n in (1, 2, 3, 1, 4, 1, 3, 2)] == [1, 2, 3, 1, 4, 1, 3, 2]
    assert computed == [1, 2, 3, 4, 2]
    assert (len(cache), cache.num_bytes) == (3, 384)


def test_a_field_larger_than_the_bound_is_kept_until_the_next() -> None:
    cache = FieldCache(max_bytes=100)
    cache.get(key(1), lambda: field_of(1))
    assert len(cache) == 1
    cache.get(key(2), lambda: field_of(2))
    assert (len(cache), cache.num_bytes) == (1, 128)


def test_dropping_a_scene_leaves_the_others() -> None:
    cache = FieldCache(max_bytes=10_000)
    for scene in ("a", "b"):
        for number in range(3):
            cache.get(key(number, scene), lambda: field_of(0))
    cache.drop("a")
    assert (len(cache), cache.num_bytes) == (3, 384)
    cache.drop("a")
    assert len(cache) == 3


def test_room_is_said_to_run_out_before_it_does() -> None:
    cache = FieldCache(max_bytes=4 * 128)
    roomy = []
    for number in range(4):
        roomy.append(cache.has_room())
        cache.get(key(number), lambda: field_of(0))
    assert roomy == [True, True, True, False]
    assert len(cache) == 4


@pytest.fixture(scope="module")
def scene() -> Scene:
    return HouseDataset("val", "small").scene(3, 0)


def place_of(scene: Scene, cache: FieldCache, **task: Any) -> HouseTaskScene:
    config = ObjectNavConfig.create(**task)
    cell = min(0.1, 0.4 * config.agent_radius)
    return HouseTaskScene(scene, build_grid(scene, config.agent_radius, cell=cell), config, cache)


def test_fields_computed_ahead_are_those_computed_when_asked(scene: Scene) -> None:
    ahead = FieldCache(1 << 24)
    prefetcher = FieldPrefetcher(ahead)
    place = place_of(scene, ahead)
    goals = place.likely_goals()
    prefetcher.want(place, goals)
    deadline = time.monotonic() + 60.0
    while len(ahead) < len(goals) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(ahead) == len(goals) >= 5
    lazy = place_of(scene, FieldCache(1 << 24))
    for goal in goals:
        np.testing.assert_array_equal(place.field(goal), lazy.field(goal))
    prefetcher.close()


def test_a_place_that_goes_takes_its_fields_along(scene: Scene) -> None:
    cache = FieldCache(1 << 24)
    place = place_of(scene, cache)
    for goal in place.likely_goals()[:3]:
        place.field(goal)
    assert len(cache) == 3
    del place
    gc.collect()
    assert (len(cache), cache.num_bytes) == (0, 0)


def test_positions_are_uniform_over_free_space(scene: Scene) -> None:
    place = place_of(scene, FieldCache(1 << 20))
    rng = np.random.Generator(np.random.Philox(0))
    drawn = np.array([place.random_position(rng)[:2] for _ in range(4000)])
    assert all(place.grid.is_free(x, y) for x, y in drawn)
    # Independent count: shares of a fine lattice of free points, left and right of the middle.
    width, depth = scene.house.extent
    x_L, y_L = (
        a.ravel() for a in np.meshgrid(np.arange(0, width, 0.07), np.arange(0, depth, 0.07))
    )
    free_L = np.array([place.grid.is_free(x, y) for x, y in zip(x_L, y_L, strict=True)])
    for axis, lattice in ((0, x_L), (1, y_L)):
        middle = float(np.median(lattice))
        share = (lattice[free_L] < middle).mean()
        # Standard error 0.008.
        assert abs((drawn[:, axis] < middle).mean() - share) < 0.04


def test_viewpoints_ask_for_what_success_asks_for() -> None:
    assert needed_pixels(ObjectNavConfig()) == 15.0
    assert needed_pixels(ObjectNavConfig(success_pixels=40)) == 60.0
    # A picture of twice the side shows four times the pixels.
    assert needed_pixels(ObjectNavConfig(success_resolution=512)) == 15.0 / 4
    wide = needed_pixels(ObjectNavConfig(hfov_deg=120.0))
    np.testing.assert_allclose(wide, 15.0 * 3.0)


def test_a_stricter_task_has_fewer_goals(scene: Scene) -> None:
    cache = FieldCache(1 << 24)
    usual = place_of(scene, cache)
    strict = place_of(scene, FieldCache(1 << 24), success_pixels=1200)
    everything = {i for several in usual.goal_instances.values() for i in several}
    rest = {i for several in strict.goal_instances.values() for i in several}
    assert everything == {o.instance for o in scene.objects}
    assert rest < everything
    assert rest == {i for i in everything if len(strict.viewpoints(i))}


def test_a_slimmer_agent_never_walks_farther(scene: Scene) -> None:
    usual = place_of(scene, FieldCache(1 << 24))
    slim = place_of(scene, FieldCache(1 << 24), agent_radius=0.15)
    rng = np.random.Generator(np.random.Philox(1))
    for goal in usual.likely_goals()[:5]:
        for _ in range(10):
            position = usual.random_position(rng)
            # Fields of either grid are off by up to a few per cent near corners.
            assert slim.distance(position, goal) <= usual.distance(position, goal) * 1.05 + 0.15
