"""The real habitat-sim, over exported houses: HABITAT_PYTHON=/path/to/python pytest -m habitat.

Rows live in worker processes under that interpreter; what they see, and where they get, is compared
with the embedded simulator of the same houses.
"""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from envs import check_trial_env
from envs.habitat.command import main
from envs.habitat.env import HabitatVectorEnv
from envs.habitat.scene_files import read_episodes
from envs.habitat.start import HabitatStartError, check_simulator
from envs.houses.dataset import HouseDataset
from envs.houses.env import HousesVectorEnv
from envs.houses.export.scene_dataset import export_houses
from envs.houses.navigation.geodesic import distance_field, sample
from envs.houses.navigation.grid import slack_at
from envs.objectnav.config import Action

PYTHON = os.environ.get("HABITAT_PYTHON", "")
SIZE = os.environ.get("HABITAT_SIZE", "small")
"""Of the houses in which both simulators are compared."""
SEEDS = [1, 4]
pytestmark = [
    pytest.mark.habitat,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(PYTHON).is_file(),
        reason="HABITAT_PYTHON names no interpreter that has habitat-sim (docs/HABITAT.md)",
    ),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("houses")
    dataset = HouseDataset("val", SIZE, houses=SEEDS)
    return export_houses([dataset.house(0), dataset.house(1)], folder).parent


@pytest.fixture
def build(root):
    built = []

    def make(num_envs=1, **options):
        (config,) = root.glob("*.scene_dataset_config.json")
        defaults = {
            "scene_dataset": config,
            "episodes": root / "episodes.json.gz",
            "python": PYTHON,
            "navmesh": "compute",
            "image_lighting": False,
            "cache": root / "cache",
            "resolution": 64,
            "viewpoint_spacing": 0.25,
            "task": {"max_episode_steps": 100},
        }
        built.append(HabitatVectorEnv(num_envs, **{**defaults, **options}))
        return built[-1]

    yield make
    for env in built:
        env.close()


def test_contract(build):
    check_trial_env(build(2), make=build)


def test_the_expert_finds_everything(build):
    env = build(2)
    env.reset(options={"trial": np.arange(2)})
    found, spl = [], []
    while len(found) < 20:
        infos = env.step(env.expert_actions())[4]
        for row in np.flatnonzero(infos.get("_episode_record", [])):
            found.append(infos["episode_record"]["success"][row])
            spl.append(infos["episode_record"]["spl"][row])
    assert np.mean(found) >= 0.95
    assert np.mean(spl) >= 0.9
    assert not env.crashes.total_N.any()


def embedded(**options):
    """Build the embedded simulator of the same houses."""
    return HousesVectorEnv(2, split="val", size=SIZE, houses=SEEDS, resolution=64, **options)


def test_both_simulators_show_the_same(build):
    sensors = ["rgb", "depth", "semantic", "instance"]
    env, own = build(2, sensors=sensors), embedded(sensors=sensors)
    env.reset(options={"trial": np.arange(2)})
    own.reset(options={"trial": np.arange(2)})
    rng = np.random.default_rng(0)
    gaps, same, colours, instances = [], [], [], []
    for _ in range(60):
        seen = env.step(rng.choice([1, 2, 3, 4, 5], 2, p=[0.5, 0.2, 0.2, 0.05, 0.05]))[0]
        x, y, heading = env.agents.pose_N4[:, :3].T
        pitch = np.array([env.setting.geometry.pitch(t) for t in env.agents.tilt_N])
        drawn = own.simulator.renderer.render(x, y, heading, pitch)
        gaps.append(np.abs(seen["depth"] - drawn["depth"]).ravel())
        same.append((seen["semantic"] == drawn["semantic"]).ravel())
        instances.append((seen["instance"] == drawn["instance"]).ravel())
        colours.append(np.abs(seen["rgb"].astype(int) - drawn["rgb"]).ravel())
    gap, agree = np.concatenate(gaps), np.concatenate(same)
    # Rays differ by up to half a pixel at edges; flat faces agree to rounding of the z-buffers.
    assert np.median(gap) < 0.001
    assert np.mean(gap < 0.01) > 0.99
    assert agree.mean() > 0.99
    assert np.concatenate(instances).mean() > 0.995
    print(
        f"\nbridge: depth median {np.median(gap):.5f} m, within 1 cm {np.mean(gap < 0.01):.4f}; "
        f"semantic equal {agree.mean():.4f}, instance {np.concatenate(instances).mean():.5f}; "
        f"colour differs by {np.concatenate(colours).mean():.1f} of 255"
    )
    own.close()


def test_both_simulators_walk_the_same_ways(build):
    """Distances between places, and where the same actions lead, within what rounding explains.

    The embedded free space is a grid of 0.1 m, Habitat's navmesh is cut from voxels of 0.05 m.
    """
    env, own = build(2), embedded()
    env.reset(options={"trial": np.arange(2)})
    own.reset(options={"trial": np.arange(2)})
    rng = np.random.default_rng(0)
    errors, lengths, apart, walked = [], [], [], []
    for row in range(2):
        place, grid = env.places.known[row], own.simulator.task_scene(row).grid
        points = [place.random_position(rng) for _ in range(60)]
        points = [p for p in points if slack_at(grid.slack_YX, grid.cell, p[0], p[1]) >= 0.0]
        assert len(points) > 40  # of 60: nearly all free space of the one is free in the other
        goal = points[0]
        field = distance_field(grid, np.array([goal[:2]]))
        for p in points[1:]:
            theirs = env.call("distance", list(p), np.array([goal], np.float32), rows=[row])[0]
            ours = sample(field, grid.cell, p[0], p[1])
            errors.append(abs(theirs - ours))
            lengths.append(ours)
    poses, together = (env.agents.pose_N4, own.simulator.pose_N4), []
    for _ in range(20):
        env.reset(options={"reset_mask": np.ones(2, bool)})
        x, y, heading, _ = env.agents.pose_N4.T
        own.simulator.pose_N4[:] = np.stack([x, y, heading, np.zeros(2)], axis=1)
        clear = np.ones(2, bool)  # of obstacles so far, in both
        for steps, action in enumerate(rng.choice([1, 1, 1, 2, 3], (30, 2)), 1):
            ahead = np.array([agents[:, :2] for agents in poses])
            env.step(action)
            own.simulator.advance(action)
            moved = np.array([agents[:, :2] for agents in poses]) - ahead
            clear &= (action != 1) | (np.hypot(*moved.T) > 0.2499).all(axis=1)
            gap = np.hypot(*(poses[0][:, :2] - poses[1][:, :2]).T)
            assert (gap[clear] < 1e-4).all(), (steps, gap)
            together.append(clear.copy())
        apart.append(np.hypot(*(env.agents.pose_N4[:, :2] - own.simulator.pose_N4[:, :2]).T))
        walked.append(env.agents.path_N.copy())
    error, ends = np.array(errors), np.concatenate(apart)
    print(
        f"\nbridge: distance differs by {np.median(error):.3f} m (median; 95 %: "
        f"{np.quantile(error, 0.95):.3f}) of {np.mean(lengths):.2f}; after 30 actions and "
        f"{np.mean(walked):.1f} m of walking, ends are {np.median(ends):.3f} m apart (median; "
        f"90 %: {np.quantile(ends, 0.9):.3f}); {np.mean(together):.0%} of the steps came before "
        "either touched anything, less than 0.0001 m apart"
    )
    assert np.mean(together) > 0.1
    assert np.median(error) < 0.05
    assert np.quantile(error, 0.95) < 0.3
    assert np.median(ends) < 0.15


def test_a_killed_worker_comes_back(build):
    env = build(2)
    env.reset(options={"trial": np.arange(2)})
    for step in range(12):
        if step == 5:
            env.pool.workers[1].process.kill()
        *_, truncated, infos = env.step([1, 2])
        assert truncated.tolist() == [False, step == 5]
    assert env.crashes.total_N.tolist() == [0, 1]
    assert env.episode.tolist() == [0, 1]
    assert not infos


def test_state_continues_bit_for_bit(build):
    env = build(2)
    env.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(30):
        env.step(rng.choice([1, 2, 3, 4, 5], 2))
    state, actions = env.state_dict(), rng.choice([1, 2, 3], (20, 2))
    fresh = build(2)
    fresh.load_state_dict(state)
    for action in actions:
        (a, reward_a, *_), (b, reward_b, *_) = env.step(action), fresh.step(action)
        assert all(np.array_equal(a[k], b[k]) for k in a)
        assert np.array_equal(reward_a, reward_b)


def test_success_is_what_the_picture_shows(build):
    env = build(1, sensors=["instance"], resolution=256)
    env.reset(options={"trial": np.array([0])})
    outcomes = set()
    for number in range(30):
        obs = env.observe()
        for _ in range(40):
            action = env.expert_actions()[0]
            if action == Action.STOP:
                break
            obs = env.step([action])[0]
        for _ in range([0, 3, 6][number % 3]):  # turn away
            obs = env.step([Action.TURN_LEFT])[0]
        goal, place = env.agents.goal[0].instances, env.places.known[0]
        near = env.agents.near_goals(0)
        seen = np.array([(obs["instance"] == i + 1).sum() >= 10 for i in goal])
        record = env.step([Action.STOP])[4]["episode_record"]
        assert bool(record["success"][0]) == bool((near & seen).any())
        outcomes.add(bool(record["success"][0]))
        assert place.goal_instances[int(record["goal"][0])] == goal
    assert outcomes == {True, False}


def test_starts_that_fail_say_why():
    with pytest.raises(HabitatStartError, match=r"Habitat\.gpus: must name devices.*got 97"):
        check_simulator(PYTHON, gpu=97)
    check_simulator(PYTHON)


def test_own_arrangements_are_a_function_of_scene_and_number(root, build, tmp_path):
    (config,) = root.glob("*.scene_dataset_config.json")
    scenes = sorted(
        p.name.removesuffix(".scene_instance.json") for p in (root / "scenes").iterdir()
    )
    objects = tmp_path / "objects"
    objects.mkdir()
    for number, name in enumerate(("002_master_chef_can", "003_cracker_box", "004_sugar_box",
        "005_tomato_soup_can", "007_tuna_fish_can", "008_pudding_box", "009_gelatin_box",
        "010_potted_meat_can", "011_banana", "012_strawberry", "013_apple", "014_lemon",
        "015_peach", "016_pear", "017_orange", "018_plum", "021_bleach_cleanser", "024_bowl",
        "025_mug", "026_sponge")):  # fmt: skip
        source = sorted(root.glob("objects/*/0*_house_readable_*.glb"))[number]
        (objects / f"{name}.glb").write_bytes(source.read_bytes())
        settings = json.loads(source.with_suffix(".object_config.json").read_text())
        settings["render_asset"] = f"{name}.glb"
        (objects / f"{name}.object_config.json").write_text(json.dumps(settings))
    command = ["arrange", str(config), "", "--python", PYTHON, "--navmesh", "compute",
               "--cache", str(root / "cache"), "--objects", str(objects), "--scenes"]  # fmt: skip
    for name, chosen, count in (("a", scenes, "1"), ("b", scenes[1:], "2")):
        command[2] = str(tmp_path / f"{name}.json.gz")
        assert main([*command, *chosen, "--arrangements", count]) == 0
    one, two = (read_episodes(tmp_path / f"{name}.json.gz") for name in "ab")
    assert one[1] == two[0] != two[1]
    for arrangement in (*one, *two):
        assert 12 <= len(arrangement.objects) <= 40
        height = [o.pose[1][3] for o in arrangement.objects]
        assert 0.1 < min(height) < max(height) < 1.9
    env = build(1, episodes=tmp_path / "b.json.gz", objects=[objects])
    env.reset(options={"trial": np.array([0])})
    place = env.places.known[0]
    assert sum(map(len, place.goal_instances.values())) >= 0.9 * len(two[0].objects)
    assert math.isfinite(env.agents.distance_N[0])
