import numpy as np
import pytest

from envs.houses.rendering.renderer import BatchRenderer, RowWithoutSceneError
from tests.envs.houses.random_scenes import free_poses, random_atlas, random_scene


@pytest.mark.parametrize("threads", [1, 3])
def test_counted_pixels_are_those_of_the_instance_image(threads):
    scenes = [random_scene(7), random_scene(8, pieces=20)]
    poses = np.concatenate([free_poses(scene, 4, 2) for scene in scenes])
    rows = np.repeat([0, 1], 4)
    view = {"hfov": 1.2, "atlas": random_atlas()}
    renderer = BatchRenderer(2, width=16, height=16, antialias=2, threads=threads, **view)
    square = BatchRenderer(2, width=90, height=90, sensors=["instance"], **view)
    for row, scene in enumerate(scenes):
        renderer.set_scene(row, scene)
        square.set_scene(row, scene)
    counts = renderer.count_pixels(rows, *poses.T, size=90)
    images = square.render(*poses.T, rows=rows)["instance"]
    assert counts[:, 1:].sum() > 0
    for n in range(len(rows)):
        np.testing.assert_array_equal(
            counts[n], np.bincount(images[n].ravel(), minlength=counts.shape[1])
        )
    renderer.close()


def test_counting_at_the_images_size_leaves_antialiasing_as_it_is():
    scene = random_scene(7)
    pose = free_poses(scene, 1, 0)
    images = []
    for counts_first in (False, True):
        renderer = BatchRenderer(1, width=16, height=16, antialias=2, atlas=random_atlas())
        renderer.set_scene(0, scene)
        if counts_first:
            renderer.count_pixels([0], *pose.T, size=16)
        images.append(renderer.render(*pose.T)["rgb"])
    np.testing.assert_array_equal(*images)


def test_wrong_counts_are_refused():
    renderer = BatchRenderer(2, atlas=random_atlas())
    renderer.set_scene(0, random_scene(0, pieces=3, rooms=(1, 1)))
    with pytest.raises(RowWithoutSceneError, match="row 1 must have a scene"):
        renderer.count_pixels([1], 1.0, 1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match=r"count_pixels.size: must be in \[1, 4096\]"):
        renderer.count_pixels([0], 1.0, 1.0, 0.0, 0.0, size=0)
