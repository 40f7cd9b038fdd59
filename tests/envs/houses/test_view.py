import dataclasses
import math

import numpy as np
import pytest

from envs.houses.rendering.renderer import BatchRenderer
from envs.houses.scene import FURNITURE_SEMANTIC, Kind, Primitives, Scene, Semantic
from tests.envs.houses.random_scenes import HALF_WALL, free_poses, random_atlas, random_scene
from tests.envs.houses.reference_renderer import NEAR
from tests.envs.houses.reference_renderer import render as render_slowly

ALL = ("rgb", "depth", "semantic", "instance")


def draw(scene: Scene, poses_N4, **options):
    options = {"width": 32, "height": 32, "sensors": ALL, "atlas": random_atlas(), **options}
    renderer = BatchRenderer(len(poses_N4), **options)
    for row in range(len(poses_N4)):
        renderer.set_scene(row, scene)
    return renderer.render(*np.asarray(poses_N4, float).T)


def with_solid(scene: Scene, kind: Kind, center, half) -> Scene:
    """Add a solid to a scene."""
    added = {
        "center_P3": [center], "half_P3": [half], "yaw_P": [0.3], "kind_P": [kind],
        "material_PF": [[0] * 6], "semantic_P": [FURNITURE_SEMANTIC], "instance_P": [0],
    }  # fmt: skip
    solids = {
        name: np.concatenate([getattr(scene.primitives, name), value]).astype(
            getattr(scene.primitives, name).dtype
        )
        for name, value in added.items()
    }
    return dataclasses.replace(scene, primitives=Primitives(**solids))


def test_views_from_door_thresholds_miss_nothing():
    """Rooms are found through doors, which bound nothing for an eye that stands in one."""
    scene = random_scene(3, pieces=0)
    poses = []
    for door in scene.house.doors:
        for shift in (-0.12, -0.09, -1e-6, 0.0, 1e-6, 0.05, 0.11):
            x = door.x + (0.0 if door.along_x else shift)
            y = door.y + (shift if door.along_x else 0.0)
            poses += [(x, y, heading, 0.0) for heading in np.linspace(-3.0, 3.0, 7)]
    hfov = math.radians(110)
    images = draw(scene, poses, width=24, height=24, hfov=hfov)
    wrong = 0
    for n, pose in enumerate(poses):
        right = render_slowly(scene, pose, width=24, height=24, hfov=hfov, atlas=random_atlas())
        far = np.abs(images["depth"][n] - right.depth) > 1e-4 * np.maximum(right.depth, 1.0)
        wrong += int((far | (images["semantic"][n] != right.semantic)).sum())
    assert wrong <= 1e-5 * images["depth"].size


def test_depth_in_an_empty_room_is_the_distance_along_the_axis():
    scene = random_scene(1, pieces=0, rooms=(1, 1))
    width, _ = scene.house.extent
    ahead, down = (0, slice(12, 20), slice(12, 20)), (1, slice(12, 20), slice(12, 20))
    images = draw(scene, [(1.0, 1.5, 0.0, 0.0), (2.0, 1.5, 0.3, -math.pi / 2)])
    assert (images["semantic"][ahead] == Semantic.WALL).all()
    np.testing.assert_allclose(images["depth"][ahead], width - 1.0 - HALF_WALL, rtol=1e-5)
    assert (images["semantic"][down] == Semantic.FLOOR).all()
    np.testing.assert_allclose(images["depth"][down], 1.2, rtol=1e-5)


def test_pixels_that_hit_nothing_are_zero():
    images = draw(random_scene(1, pieces=0, rooms=(1, 1)), [(-5.0, 1.0, math.pi, 0.0)])
    assert all((images[name] == 0).all() for name in ALL)


@pytest.mark.parametrize("kind", list(Kind))
def test_an_eye_inside_a_solid_sees_through_it(kind):
    scene = random_scene(2, pieces=0, rooms=(1, 1))
    pose = [(1.5, 1.5, 0.4, -0.2)]
    seen = draw(with_solid(scene, kind, (1.5, 1.5, 1.2), (0.3, 0.3, 0.3)), pose)
    bare = draw(scene, pose)
    for name in ALL:
        np.testing.assert_array_equal(seen[name], bare[name])


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("above", [0.13, 0.5])
def test_solids_straight_above_the_eye_look_as_by_the_slow_renderer(kind, above):
    """An eye under a lamp is inside its cylinder's sides, but not inside the cylinder."""
    bare = random_scene(2, pieces=0, rooms=(1, 1))
    scene = with_solid(bare, kind, (1.5, 1.5, 1.2 + above), (0.2, 0.2, 0.1))
    for pitch in np.radians([30.0, 0.0, 89.0]):
        pose = (1.45, 1.5, 0.4, float(pitch))
        images = draw(scene, [pose], hfov=math.radians(110))
        right = render_slowly(
            scene, pose, width=32, height=32, hfov=math.radians(110), atlas=random_atlas()
        )
        np.testing.assert_array_equal(images["semantic"][0], right.semantic)
        np.testing.assert_allclose(images["depth"][0], right.depth, rtol=1e-4)


def test_what_is_nearer_than_the_near_plane_is_left_out():
    bare = random_scene(2, pieces=0, rooms=(1, 1))
    for gap, seen in ((0.9 * NEAR, False), (1.1 * NEAR, True)):
        scene = with_solid(bare, Kind.ELLIPSOID, (1.5 + 0.01 + gap, 1.5, 1.2), (0.01, 0.01, 0.01))
        images = draw(scene, [(1.5, 1.5, 0.0, 0.0)], width=33, height=33)
        assert bool(images["semantic"][0, 16, 16] == FURNITURE_SEMANTIC) == seen


def test_an_image_is_the_same_whichever_others_are_asked_for():
    scene = random_scene(5)
    poses = free_poses(scene, 4, 0)
    full = draw(scene, poses)
    for name in ALL:
        alone = draw(scene, poses, sensors=[name])
        assert list(alone) == [name]
        np.testing.assert_array_equal(alone[name], full[name])
