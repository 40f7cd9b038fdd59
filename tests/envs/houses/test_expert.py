from __future__ import annotations

import math

import numpy as np
import pytest

from envs.houses.dataset import HouseDataset
from envs.houses.navigation.expert import Expert
from envs.houses.navigation.geodesic import distance_field, sample
from envs.houses.navigation.grid import build_grid
from envs.houses.navigation.movement import slide
from envs.houses.navigation.visibility import pack_scene, scene_viewpoints
from envs.houses.scene import Kind
from envs.objectnav.config import EYE_HEIGHT, Action, ObjectNavConfig
from tests.envs.houses.hand_made_house import box, furnished_house, house_of, outer_walls, scene_of
from tests.envs.houses.pixel_count import count_pixels

CONFIG = ObjectNavConfig()


class World:
    """A scene in which an expert is followed, with moves written out once more."""

    def __init__(self, scene, config=CONFIG):
        self.scene, self.config = scene, config
        self.grid = build_grid(scene, config.agent_radius)
        packed = pack_scene(scene)
        self.points = scene_viewpoints(scene, self.grid, config.success_distance, packed=packed)
        self.expert = Expert(scene, self.grid, config, packed)

    def field(self, goals):
        return distance_field(self.grid, np.concatenate([self.points[i] for i in goals]))

    def ask(self, goals, field, pose):
        instances = [self.scene.objects[i].instance for i in goals]
        return self.expert.action(field, self.expert.targets(instances), pose)

    def move(self, action, pose):
        x, y, heading, pitch = pose
        c = self.config
        if action == Action.FORWARD:
            x, y = slide(self.grid.slack_YX, self.grid.cell, x, y, heading, c.forward_step)
        heading += c.turn * ((action == Action.TURN_LEFT) - (action == Action.TURN_RIGHT))
        pitch += c.look * ((action == Action.LOOK_UP) - (action == Action.LOOK_DOWN))
        low, high = math.radians(c.pitch_min_deg), math.radians(c.pitch_max_deg)
        return x, y, heading, min(max(pitch, low), high)

    def follow(self, goals, field, pose):
        """Return the poses and actions up to the stop, which is the last action if it comes."""
        poses, actions = [pose], []
        while len(actions) < self.config.max_episode_steps:
            actions.append(self.ask(goals, field, poses[-1]))
            if actions[-1] == Action.STOP:
                break
            poses.append(self.move(actions[-1], poses[-1]))
        return poses, actions

    def found(self, goals, pose):
        """The task's success test, with pixels counted ray by ray."""
        x, y, heading, pitch = pose
        for i in goals:
            o = self.scene.objects[i]
            eye = (x, y, EYE_HEIGHT)
            own = range(o.start, o.stop)
            if math.hypot(o.x - x, o.y - y) <= self.config.success_distance:
                if count_pixels(self.scene.primitives, own, eye, heading, pitch) >= 10:
                    return True
        return False


def random_start(world, field, rng, least=1.0):
    """Draw a free start at least so far away, or the farthest of many where goals are all over."""
    draws = rng.uniform(0, world.scene.house.extent, (300, 2))
    starts = [p for p in draws if world.grid.is_free(*p)]
    away = np.array([sample(field, world.grid.cell, *p) for p in starts])
    chosen = np.argmax(away >= least) if (away >= least).any() else np.argmax(away)
    return *starts[chosen], rng.uniform(0, 2 * math.pi), 0.0


def run_episodes(worlds, rng, episodes):
    """Return (success, SPL, poses repeated) of each episode."""
    results = []
    for world in worlds:
        visible = [i for i, points in enumerate(world.points) if len(points)]
        for _ in range(episodes):
            category = world.scene.objects[rng.choice(visible)].category
            goals = [i for i in visible if world.scene.objects[i].category == category]
            field = world.field(goals)
            start = random_start(world, field, rng)
            shortest = sample(field, world.grid.cell, *start[:2])
            poses, actions = world.follow(goals, field, start)
            success = actions[-1] == Action.STOP and world.found(goals, poses[-1])
            walked = np.linalg.norm(np.diff(np.array(poses)[:, :2], axis=0), axis=1).sum()
            rounded = [
                (*np.round(p[:2], 6), round(p[2] * 6 / math.pi, 3) % 12, p[3]) for p in poses
            ]
            results.append(
                (
                    success,
                    success * shortest / max(walked, shortest),
                    len(set(rounded)) < len(poses),
                )
            )
    return np.array(results, float)


def mug_on(x, y, z):
    return [(Kind.CYLINDER, (x, y, z + 0.06), (0.06, 0.06, 0.06), 0.0)]


def hand_made_world(seed):
    house = furnished_house(seed, pieces=14)
    p = house.primitives
    tops = [i for i in range(6, len(p)) if p.kind_P[i] != Kind.ELLIPSOID]
    mugs = [mug_on(*p.center_P3[i, :2], p.center_P3[i, 2] + p.half_P3[i, 2]) for i in tops[:5]]
    return World(scene_of(house, mugs))


def test_the_expert_succeeds_in_houses_drawn_by_hand():
    worlds = [hand_made_world(seed) for seed in range(8)]
    results = run_episodes(worlds, np.random.default_rng(0), 3)
    assert results[:, 0].mean() >= 0.95
    assert results[:, 1].mean() >= 0.9
    assert not results[:, 2].any(), "a pose came twice, hence for ever"


def test_the_expert_succeeds_in_val_houses():
    dataset = HouseDataset("val", "small")
    worlds = [World(dataset.scene(house, 0)) for house in range(6)]
    results = run_episodes(worlds, np.random.default_rng(1), 3)
    assert results[:, 0].mean() >= 0.95
    assert results[:, 1].mean() >= 0.88
    assert not results[:, 2].any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "scale"),
    [("small", "readable"), ("small", "real"), ("medium", "real"), ("large", "real")],
)
def test_the_expert_succeeds_in_many_val_houses(size, scale):
    dataset = HouseDataset("val", size, scale=scale)
    rng = np.random.default_rng(2)
    results = [run_episodes([World(dataset.scene(h, 1))], rng, 4) for h in range(50)]
    assert np.concatenate(results)[:, 0].mean() >= 0.95


def test_the_expert_has_no_memory():
    """Asked in any order, by any instance, it answers the same."""
    world = hand_made_world(1)
    goals = [i for i, points in enumerate(world.points) if len(points)]
    field = world.field(goals)
    rng = np.random.default_rng(3)
    poses, actions = world.follow(goals, field, random_start(world, field, rng, 3.0))
    for k in rng.permutation(len(actions)):
        assert world.ask(goals, field, poses[k]) == actions[k]
    other = World(world.scene)
    assert [other.ask(goals, field, p) for p in poses] == actions


@pytest.fixture(scope="module")
def table_world():
    table = box(3.7, 3.7, 4.3, 4.3, 0.0, 0.75)
    house = house_of([*outer_walls(8.0, 8.0), table], 8.0, 8.0)
    return World(scene_of(house, [mug_on(4.0, 4.0, 0.75)]))


def names(actions):
    return [Action(a).name.lower() for a in actions]


def test_it_stops_at_once_when_the_object_is_in_view(table_world):
    field = table_world.field([0])
    assert names([table_world.ask([0], field, (2.6, 4.0, 0.0, 0.0))]) == ["stop"]


def test_it_turns_the_short_way_to_face_the_object(table_world):
    field = table_world.field([0])
    for degrees, turn in [(100, "turn_right"), (-100, "turn_left"), (170, "turn_right")]:
        pose = (2.6, 4.0, math.radians(degrees), 0.0)
        poses, actions = table_world.follow([0], field, pose)
        assert set(names(actions)) == {turn, "stop"}
        assert table_world.found([0], poses[-1])


def test_it_looks_down_at_an_object_that_is_below_the_image(table_world):
    field = table_world.field([0])
    # 0.6 m away and 0.39 m below the eye: 33 degrees down, out of a camera that looks up.
    poses, actions = table_world.follow([0], field, (3.4, 4.0, 0.0, math.radians(30)))
    assert names(actions) == ["look_down", "stop"]
    assert table_world.found([0], poses[-1])


def test_it_walks_straight_when_nothing_is_in_the_way(table_world):
    field = table_world.field([0])
    poses, actions = table_world.follow([0], field, (0.5, 4.0, 0.0, 0.0))
    assert set(names(actions[:-1])) == {"forward"}
    walked = poses[-1][0] - 0.5
    assert walked == pytest.approx(sample(field, 0.1, 0.5, 4.0), abs=0.3)


def test_it_goes_to_the_nearer_of_two_instances():
    tables = [box(1.2, 1.0, 1.8, 1.6, 0.0, 0.75), box(8.2, 1.0, 8.8, 1.6, 0.0, 0.75)]
    house = house_of([*outer_walls(10.0, 3.0), *tables], 10.0, 3.0)
    world = World(scene_of(house, [mug_on(1.5, 1.3, 0.75), mug_on(8.5, 1.3, 0.75)]))
    field = world.field([0, 1])
    left, _ = world.follow([0, 1], field, (4.5, 1.5, 0.0, 0.0))
    right, _ = world.follow([0, 1], field, (5.6, 1.5, math.pi, 0.0))
    assert left[-1][0] < 4.5
    assert right[-1][0] > 5.6


@pytest.mark.parametrize("turn_deg", [14.3, 45.0])
def test_other_turning_angles_work(turn_deg):
    config = ObjectNavConfig.create(turn_deg=turn_deg)
    worlds = [World(hand_made_world(seed).scene, config) for seed in range(3)]
    assert run_episodes(worlds, np.random.default_rng(4), 2)[:, 0].mean() >= 0.8


def test_instances_must_be_in_the_scene(table_world):
    with pytest.raises(ValueError, match=r"Expert.targets: instances must be in the scene"):
        table_world.expert.targets([1, 77])
