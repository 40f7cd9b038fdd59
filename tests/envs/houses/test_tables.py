import dataclasses

import numpy as np
import pytest

from envs.houses.generation.arrangement import arrange
from envs.houses.generation.generator import generate_house
from envs.houses.rendering.renderer import BatchRenderer
from tests.envs.houses.random_scenes import free_poses, random_atlas, random_scene

ALL = ("rgb", "depth", "semantic", "instance")


def test_a_row_that_leaves_a_scene_frees_what_nobody_else_uses():
    scenes = [random_scene(seed, pieces=30) for seed in range(3)]
    renderer = BatchRenderer(64, atlas=random_atlas())
    for row in range(64):
        renderer.set_scene(row, scenes[0])
    assert renderer.nbytes == renderer.bytes_per_scene
    for row in range(64):
        renderer.set_scene(row, scenes[1 + row % 2])
    assert renderer.nbytes <= 4 * renderer.bytes_per_scene
    for lap in range(20):  # new trials for ever need no more than the scenes in use at once
        renderer.set_scene(lap, random_scene(10 + lap, pieces=30))
        renderer.set_scene(lap, scenes[1])
    assert renderer.nbytes <= 4 * renderer.bytes_per_scene


def test_256_houses_fit_in_32_mebibytes():
    renderer = BatchRenderer(1, width=8, height=8)
    renderer.set_scene(0, arrange(generate_house(0, "medium"), 0, scale="readable"))
    assert 256 * renderer.bytes_per_scene < 32 * 2**20


def test_tables_grow_without_changing_what_is_there():
    small = random_scene(1, pieces=5, rooms=(1, 1))
    large = random_scene(2, pieces=300, rooms=(3, 3))
    pose = free_poses(small, 1, 0)
    renderer = BatchRenderer(2, width=20, height=20, sensors=ALL, atlas=random_atlas())
    renderer.set_scene(0, small)
    before = renderer.render(*pose.T, rows=[0])
    renderer.set_scene(1, large)
    after = renderer.render(*pose.T, rows=[0])
    for name in ALL:
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("material_PF", 99, r"material indices must be in \[0, 24\)"),
        ("kind_P", 7, "primitive kinds"),
        ("instance_P", -1, "instance ids"),
        ("half_P3", 0.0, "half extents must be positive"),
        ("yaw_P", np.nan, "must be finite"),
    ],
)
def test_scenes_that_kernels_could_not_follow_are_refused(name, value, message):
    good = random_scene(0, pieces=3, rooms=(1, 1))
    array = getattr(good.primitives, name).copy()
    array[-1] = value
    bad = dataclasses.replace(
        good, primitives=dataclasses.replace(good.primitives, **{name: array})
    )
    renderer = BatchRenderer(1, width=8, height=8, atlas=random_atlas())
    renderer.set_scene(0, good)
    before = renderer.render(1.0, 1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match=message):
        renderer.set_scene(0, bad)
    after = renderer.render(1.0, 1.0, 0.0, 0.0)  # the row keeps the scene that it had
    np.testing.assert_array_equal(before["rgb"], after["rgb"])


def test_tiles_that_kernels_could_not_follow_are_refused():
    with pytest.raises(ValueError, match="tiles must have the shape"):
        BatchRenderer(1, atlas=np.ones((2, 12, 12, 3), np.float32))
    renderer = BatchRenderer(1, atlas=random_atlas(tiles=2))
    with pytest.raises(ValueError, match=r"tile indices must be in \[0, 2\)"):
        renderer.set_scene(0, random_scene(0, pieces=3, rooms=(1, 1)))
