"""What agents are told of goal objects, on pictures that are made up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from envs.objectnav.config import drawn_images, observation_space, observed_images
from envs.objectnav.detections import Detections, detect
from tests.envs.objectnav.slow_detections import directions, slow_detections, slow_scan

NOBODY = 20


def random_pictures(rng: np.random.Generator, num: int, shape: tuple[int, int]):
    """Return depth, semantic and instance ids of instances that lie about in pieces."""
    category_I = rng.integers(-1, 20, 9)
    instance = rng.integers(0, 9, (num, *shape)).astype(np.int16)
    instance[rng.random(instance.shape) < 0.7] = 0
    semantic = np.where(category_I < 0, 0, 100 + category_I)[instance]
    # An id of the scene's own may look like a category.
    semantic = np.where(instance > 0, semantic, rng.integers(0, 130, instance.shape))
    depth = rng.uniform(0.1, 14.0, instance.shape).astype(np.float32)
    depth[rng.random(depth.shape) < 0.02] = 0.0
    return depth, semantic.astype(np.int16), instance


@pytest.mark.parametrize("shape", [(16, 16), (24, 48), (32, 16)])
def test_detections_are_those_of_a_slow_derivation(shape) -> None:
    rng = np.random.default_rng(0)
    pictures = random_pictures(rng, 6, shape)
    rows, pitches = np.array([4, 0, 5]), rng.uniform(-1.0, 0.5, 3)
    seen, scan = np.full((3, 20, 4), 7.0, np.float32), np.full((3, 16), 7.0, np.float32)
    detect(rows, pictures, pitches, (math.tan(0.6), 0.0), seen, scan)
    for k, row in enumerate(rows):
        depth, semantic, instance = (p[row] for p in pictures)
        rays = directions(shape, 1.2, 0.0, pitches[k])
        slow = slow_detections(depth, semantic, instance, rays, 0.0)
        assert 3 < slow[:, 0].sum() < 20
        np.testing.assert_allclose(seen[k], slow, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(scan[k], slow_scan(depth), rtol=1e-6)


def test_the_camera_may_stand_ahead_of_the_agent() -> None:
    rng = np.random.default_rng(1)
    pictures = random_pictures(rng, 1, (16, 16))
    seen, scan = np.zeros((2, 1, 20, 4), np.float32), np.zeros((1, 16), np.float32)
    for eye, out in zip((0.0, 0.25), seen, strict=True):
        # Every instance is as near: then the nearest is the same from both.
        detect(np.zeros(1, int), pictures, np.zeros(1), (1.0, eye), out, scan)
    alone = seen[0, 0, :, 0] > 0
    moved = seen[1, 0, alone] - seen[0, 0, alone]
    np.testing.assert_allclose(moved[:, [0, 1]], 0.0)
    same = np.isclose(moved[:, 3], 0.0)
    assert same.sum() > 3
    np.testing.assert_allclose(moved[same, 2], 0.25, atol=1e-6)


def show(*categories: int) -> dict[str, np.ndarray]:
    """Return pictures of one row in which these categories stand side by side, 2 m away."""
    instance = np.zeros((1, 16, 16), np.int16)
    for number, category in enumerate(categories):
        instance[0, 7:9, 2 * number] = 1 + category
    semantic = np.where(instance > 0, 99 + instance, 0).astype(np.int16)
    return {
        "depth": np.full(instance.shape, 2.0, np.float32),
        "semantic": semantic,
        "instance": instance,
    }


def look(detections: Detections, *categories: int, goal: int = 0, turned: float = 0.0):
    """Return what a single row is told at (3, 1) in the trial's frame."""
    space = observation_space(
        ("detections",), (16, 16), compass=False, prev_reward=False, where="Test"
    )
    out = {name: np.zeros((1, *s.shape), s.dtype) for name, s in space.items()}
    out["gps"][:], out["goal"][:] = (3.0, 1.0), goal
    detections.observe(
        None,
        show(*categories),
        pitch_N=np.zeros(1),
        turned_K=np.array([turned], np.float32),
        out=out,
    )
    told = {name: value[0] for name, value in out.items()}
    assert space.contains({**told, "goal": int(told["goal"]), "named": int(told["named"])})
    return told


def test_who_was_named_longest_ago_is_named() -> None:
    detections = Detections(1, 20, hfov=math.pi / 2)
    named = []
    for in_view in [(3, 5, 9), (3, 5, 9), (3, 5), (3, 5, 9), (), (3, 5, 9), (3, 9), (9, 3)]:
        told = look(detections, *in_view)
        # To look again tells the same.
        assert look(detections, *in_view)["named"] == told["named"]
        named.append(int(told["named"]))
        detections.act(np.arange(1))
    assert named == [3, 5, 3, 9, NOBODY, 5, 3, 9]


def test_a_new_trial_forgets_and_a_last_look_does_not_count() -> None:
    detections = Detections(1, 20, hfov=math.pi / 2)
    assert look(detections, 2, 4)["named"] == 2
    detections.act(np.arange(1))
    assert look(detections, 2, 4)["named"] == 4
    # Nobody acts on this: the episode has ended.
    assert look(detections, 4)["named"] == 4
    assert look(detections, 2, 4)["named"] == 4
    detections.act(np.arange(1))
    detections.begin_trial(0)
    assert look(detections, 2, 4)["named"] == 2


def test_places_are_in_the_frame_of_the_trial() -> None:
    detections = Detections(1, 20, hfov=math.pi / 2)
    # In column 0 of 16 at 2 m, the middle of the pixel is 15/16 * 2 m to the left.
    aside = 2.0 * 15 / 16
    told = look(detections, 6, goal=6)
    assert told["named"] == 6
    np.testing.assert_allclose(told["named_place"], [3.0 + 2.0, 1.0 - aside], rtol=1e-6)
    np.testing.assert_allclose(told["goal_detection"], [1, 2.0, -aside, 5.0, 1.0 - aside])
    # Turned to the left by a quarter: ahead is to the left of the frame, left is behind.
    told = look(detections, 6, goal=6, turned=math.pi / 2)
    np.testing.assert_allclose(told["named_place"], [3.0 - aside, 1.0 - 2.0], rtol=1e-6)
    told = look(detections, 6, goal=7)
    assert told["goal_detection"].tolist() == [0.0] * 5
    told = look(detections)
    assert told["named"] == NOBODY
    assert told["named_place"].tolist() == [0.0, 0.0]


def test_what_must_be_drawn() -> None:
    assert observed_images(("rgb", "detections")) == ("rgb",)
    assert drawn_images(("rgb", "detections")) == ("rgb", "depth", "semantic", "instance")
    assert drawn_images(("rgb",)) == ("rgb",)
    assert drawn_images(()) == ()


def test_a_state_without_names_is_refused() -> None:
    with pytest.raises(ValueError, match="must hold who was named"):
        Detections.check_state({})
