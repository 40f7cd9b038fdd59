"""The batched renderer against a slow one that shares no code with it, and against itself."""

import math

import numpy as np
import pytest

from envs.houses.generation.arrangement import arrange
from envs.houses.generation.generator import generate_house
from envs.houses.rendering import cpu
from envs.houses.rendering.renderer import BatchRenderer, RowWithoutSceneError
from envs.houses.textures import atlas as textures
from tests.envs.houses.random_scenes import free_poses, random_atlas, random_scene
from tests.envs.houses.reference_renderer import render

ALL = ("rgb", "depth", "semantic", "instance")
SIZES = ((64, 48, 90.0), (33, 41, 79.0))
ALLOWED = 1e-5
"""Share of pixels that may differ: those whose ray grazes an edge."""


def draw(scene, poses, width, height, hfov_deg, **options):
    options = {"sensors": ALL, **options}
    with BatchRenderer(
        len(poses), width=width, height=height, hfov=math.radians(hfov_deg), **options
    ) as renderer:
        for row in range(len(poses)):
            renderer.set_scene(row, scene)
        return renderer.render(*poses.T)


def disagreements(scene, poses, atlas):
    """Count pixels, and those that differ from the reference, by image."""
    count, wrong = 0, dict.fromkeys(ALL, 0)
    for width, height, hfov in SIZES:
        images = draw(scene, poses, width, height, hfov, atlas=atlas)
        for i, pose in enumerate(poses):
            slow = render(
                scene, tuple(pose), width=width, height=height, hfov=math.radians(hfov), atlas=atlas
            )
            depth_off = np.abs(images["depth"][i] - slow.depth) > 1e-4 * np.maximum(slow.depth, 1)
            same = (images["semantic"][i] == slow.semantic) & ~depth_off
            levels = np.abs(images["rgb"][i].astype(int) - slow.rgb.astype(int)).max(axis=-1)
            count += width * height
            wrong["semantic"] += int((images["semantic"][i] != slow.semantic).sum())
            wrong["instance"] += int((images["instance"][i] != slow.instance).sum())
            wrong["depth"] += int(depth_off.sum())
            # Within a hair of a texel's border float32 may look up its neighbour.
            wrong["rgb"] += int(((levels > 1) & (slow.margin >= 0.02) & same).sum())
    return count, wrong


@pytest.mark.parametrize("seed", range(3))
def test_random_solids_look_as_the_reference_says(seed):
    scene = random_scene(seed)
    count, wrong = disagreements(scene, free_poses(scene, 8, seed), random_atlas())
    assert all(v <= max(1, ALLOWED * count) for v in wrong.values()), (count, wrong)


@pytest.mark.parametrize("scale", ["readable", "real"])
def test_houses_look_as_the_reference_says(scale):
    scene = arrange(generate_house(4, "small"), 0, scale=scale)
    count, wrong = disagreements(scene, free_poses(scene, 4, 0), textures.atlas())
    assert all(v <= max(1, ALLOWED * count) for v in wrong.values()), (count, wrong)


@pytest.mark.slow
def test_at_most_one_pixel_in_a_hundred_thousand_differs():
    count, wrong = 0, dict.fromkeys(ALL, 0)
    for seed in range(6):
        size = ("small", "medium", "large")[seed % 3]
        scale = ("readable", "real")[seed % 2]
        scene = arrange(generate_house(seed, size), seed, scale=scale)
        more, found = disagreements(scene, free_poses(scene, 20, seed), textures.atlas())
        count += more
        wrong = {k: wrong[k] + found[k] for k in ALL}
    assert count > 500_000
    assert all(v <= ALLOWED * count for v in wrong.values()), (count, wrong)


@pytest.fixture(scope="module")
def scenes():
    return [random_scene(seed, pieces=30) for seed in range(3)]


@pytest.mark.parametrize(("threads", "rows_per_slice"), [(1, 8), (2, 8), (2, 1), (3, 1)])
def test_a_row_looks_the_same_in_any_batch_order_and_number_of_threads(
    scenes, threads, rows_per_slice, monkeypatch
):
    monkeypatch.setattr(cpu, "ROWS_PER_SLICE", rows_per_slice)
    rng = np.random.default_rng(0)
    poses = np.concatenate([free_poses(s, 3, i) for i, s in enumerate(scenes)])
    which = np.repeat(np.arange(3), 3)
    alone = [draw(scenes[w], poses[i : i + 1], 32, 32, 90.0) for i, w in enumerate(which)]
    order = rng.permutation(9)
    with BatchRenderer(9, width=32, height=32, sensors=ALL, threads=threads) as renderer:
        for row, i in enumerate(order):
            renderer.set_scene(row, scenes[which[i]])
        together = renderer.render(*poses[order].T)
        some = renderer.render(*poses[order][4:6].T, rows=[4, 5])
    for name in ALL:
        for row, i in enumerate(order):
            np.testing.assert_array_equal(together[name][row], alone[i][name][0])
        np.testing.assert_array_equal(some[name], together[name][4:6])


@pytest.mark.parametrize(
    ("rows", "threads", "expected"),
    [(1, 4, 1), (3, 4, 3), (8, 2, 2), (31, 2, 2), (32, 2, 4), (64, 2, 8), (1000, 2, 8)],
)
def test_few_rows_are_cut_into_few_slices(rows, threads, expected):
    assert cpu.slices(rows, threads) == expected


def test_antialiasing_averages_colours_and_leaves_the_rest(scenes):
    poses = free_poses(scenes[0], 4, 1)
    plain = draw(scenes[0], poses, 24, 24, 90.0)
    smooth = draw(scenes[0], poses, 24, 24, 90.0, antialias=2)
    fine = draw(scenes[0], poses, 48, 48, 90.0)["rgb"].astype(float)
    for name in ("depth", "semantic", "instance"):
        np.testing.assert_array_equal(plain[name], smooth[name])
    mean = fine.reshape(4, 24, 2, 24, 2, 3).mean(axis=(2, 4))
    assert np.abs(smooth["rgb"] - mean).max() <= 1.0


def test_images_go_into_given_arrays(scenes):
    poses = free_poses(scenes[0], 2, 1)
    with BatchRenderer(2, width=16, height=16, sensors=("depth",)) as renderer:
        renderer.set_scene(0, scenes[0])
        renderer.set_scene(1, scenes[0])
        fresh = renderer.render(*poses.T)["depth"]
        big = np.full((2, 2, 16, 16), np.nan, np.float32)
        renderer.render(*poses.T, out={"depth": big[:, 1]})
        np.testing.assert_array_equal(big[:, 1], fresh)
        assert np.isnan(big[:, 0]).all()
        with pytest.raises(ValueError, match=r"out\['depth'\] must be float32"):
            renderer.render(*poses.T, out={"depth": np.zeros((2, 16, 16))})


def test_the_instance_image_alone_shows_the_same_objects_of_the_scene():
    scene = arrange(generate_house(4, "small"), 0, scale="readable")
    poses = free_poses(scene, 6, 3)
    instances = draw(scene, poses, 64, 64, 90.0)["instance"]
    ids = [o.instance for o in scene.objects]
    assert (instances > 0).any()
    with BatchRenderer(6, width=64, height=64, sensors=("instance",)) as renderer:
        for row in range(6):
            renderer.set_scene(row, scene)
        image = renderer.render(*poses.T)["instance"]
    np.testing.assert_array_equal(image, instances)
    assert set(np.unique(image)) <= {0, *ids}


def test_rows_in_one_scene_share_its_memory(scenes):
    with BatchRenderer(64, width=8, height=8, sensors=("depth",)) as renderer:
        renderer.set_scene(0, scenes[0])
        before = renderer.nbytes
        for row in range(1, 64):
            renderer.set_scene(row, scenes[0])
        assert renderer.nbytes == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"width": 0}, ValueError, r"width: must be in \[1, "),
        ({"height": 2.5}, TypeError, r"height: must be a whole number"),
        ({"antialias": 3}, ValueError, r"antialias: must be in \[1, 2\]"),
        ({"hfov": 4.0}, ValueError, r"hfov: must be in \(0, pi\)"),
        ({"sensors": ["rbg"]}, ValueError, r"sensors must be .*, got 'rbg'\. Did you mean 'rgb'"),
        ({"sensors": "rgb"}, TypeError, r"must be a list of names"),
        ({"sensors": []}, ValueError, r"at least one sensor"),
        ({"threads": 0}, ValueError, r"threads: must be in"),
    ],
)
def test_bad_settings_are_named(options, error, message):
    with pytest.raises(error, match=message):
        BatchRenderer(1, **options)


def test_bad_calls_are_named(scenes):
    with BatchRenderer(2, width=8, height=8, sensors=("depth",)) as renderer:
        renderer.set_scene(0, scenes[0])
        with pytest.raises(RowWithoutSceneError, match="row 1 must have a scene"):
            renderer.render(np.ones(2), np.ones(2), np.zeros(2), np.zeros(2))
        with pytest.raises(ValueError, match="poses must be finite"):
            renderer.render([np.nan], [1.0], [0.0], [0.0], rows=[0])
        with pytest.raises(ValueError, match="poses must be as many as rows"):
            renderer.render([1.0], [1.0], [0.0], [0.0])
        with pytest.raises(IndexError, match=r"rows must be in \[0, 2\)"):
            renderer.render([1.0], [1.0], [0.0], [0.0], rows=[5])
        with pytest.raises(IndexError, match=r"row must be in \[0, 2\)"):
            renderer.set_scene(2, scenes[0])
