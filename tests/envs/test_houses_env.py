"""The houses as environments: contract, independence of rows, scores against slow derivations."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import envs
from envs.errors import EpisodeEndedError, StepBeforeResetError
from envs.houses.env import HousesEnv, HousesVectorEnv
from envs.houses.geodesic import distance_field, sample
from envs.houses.scene import GOAL_SEMANTIC
from envs.houses.viewpoints import viewpoints
from envs.objectnav_config import Action, ObjectNavConfig

EVERYTHING = {
    "split": "val",
    "size": "small",
    "resolution": 16,
    "sensors": ["rgb", "depth", "semantic", "instance"],
    "compass": True,
    "prev_reward": True,
}
SHORT = {"max_episode_steps": 25}


def make(num_envs: int = 3, **overrides: Any) -> HousesVectorEnv:
    return HousesVectorEnv(num_envs, **(EVERYTHING | {"task": SHORT, "seed": 5} | overrides))


def random_actions(steps: int, num_envs: int, seed: int = 0) -> np.ndarray:
    """Uniform over the moves, with a stop now and then."""
    rng = np.random.default_rng(seed)
    action_TN = rng.integers(1, len(Action), (steps, num_envs))
    action_TN[rng.random(action_TN.shape) < 0.03] = Action.STOP
    return action_TN


def play(env: HousesVectorEnv, action_TN: np.ndarray) -> list[Any]:
    return [env.step(action_N) for action_N in action_TN]


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Compare nested results bit for bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    elif a is None:
        assert b is None, where
    else:
        assert np.asarray(a).dtype == np.asarray(b).dtype, where
        np.testing.assert_array_equal(a, b, err_msg=where)


def rows_of(result: Any, rows: slice) -> Any:
    """Cut rows out of a step's result."""
    if isinstance(result, dict):
        return {k: rows_of(v, rows) for k, v in result.items()}
    if isinstance(result, tuple):
        return tuple(rows_of(v, rows) for v in result)
    return result[rows]


def test_contract() -> None:
    envs.check_trial_env(make(2), make=make)


def test_gymnasium_accepts_the_single_env() -> None:
    check_env(HousesEnv(**EVERYTHING, task=SHORT), skip_render_check=True)


def test_fixed_names() -> None:
    env = gymnasium.make_vec(
        "relic/Houses-v0",
        num_envs=2,
        vectorization_mode="vector_entry_point",
        split="val",
        size="medium",
        resolution=64,
        sensors=["rgb", "depth", "semantic"],
        seed=0,
        threads=2,
    )
    observation, _ = env.reset()
    assert {k: (v.shape, v.dtype.name) for k, v in observation.items()} == {
        "rgb": ((2, 64, 64, 3), "uint8"),
        "depth": ((2, 64, 64), "float32"),
        "semantic": ((2, 64, 64), "int16"),
        "gps": ((2, 2), "float32"),
        "goal": ((2,), "int64"),
    }
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert isinstance(env.unwrapped, HousesVectorEnv)
    assert env.unwrapped.dataset_name.endswith("medium-real/val")
    assert env.unwrapped.max_episode_steps == 500
    env.close()
    single = gymnasium.make("relic/Houses-v0", size="small", houses=[7, 8])
    assert single.spec is not None
    assert single.spec.max_episode_steps is None
    assert isinstance(single.unwrapped, HousesEnv)
    assert isinstance(single.unwrapped.vector, HousesVectorEnv)
    assert single.unwrapped.vector.dataset.house_seed(1) == 8


def test_a_row_depends_on_its_number_only() -> None:
    actions = random_actions(60, 4)
    together = make(4, threads=2, copy=False)
    apart = [make(1, first_row=0), make(3, first_row=1)]
    slices = [slice(0, 1), slice(1, 4)]
    first = together.reset()[0]
    for env, rows in zip(apart, slices, strict=True):
        assert_equal(rows_of(first, rows), env.reset()[0])
    for action_N in actions:
        observation, reward, terminated, truncated, infos = together.step(action_N)
        for env, rows in zip(apart, slices, strict=True):
            part = env.step(action_N[rows])
            whole = rows_of((observation, reward, terminated, truncated), rows)
            assert_equal(whole, part[:4])
            if part[4]:
                assert_equal(rows_of(infos["final_obs"], rows), part[4]["final_obs"])
                mask = part[4]["_episode_record"]
                for name, value in part[4]["episode_record"].items():
                    assert_equal(infos["episode_record"][name][rows][mask], value[mask])
    together.close()


def test_rows_in_one_trial_share_it_and_move_apart() -> None:
    env = make(3)
    observation, _ = env.reset(options={"trial": np.array([4, 4, 9])})
    places = [env.simulator.place(n) for n in range(3)]
    assert places[0] is places[1]
    assert places[0] is not places[2]
    for action_N in random_actions(60, 3, seed=4):
        action_N[1] = action_N[0]
        observation, *_ = env.step(action_N)
        for value in observation.values():
            np.testing.assert_array_equal(value[0], value[1])
    env.step(np.array([Action.TURN_LEFT, Action.TURN_RIGHT, Action.STOP]))
    assert env.simulator.pose_N4[0, 2] != env.simulator.pose_N4[1, 2]


def test_state_continues_bit_for_bit() -> None:
    actions = random_actions(120, 3, seed=1)
    env = make(task={**SHORT, "goal_sampling": "ucb", "num_starts": 2})
    env.reset()
    play(env, actions[:50])
    state = env.state_dict()
    seen = env.observe()
    expected = play(env, actions[50:]), env.expert_actions(), env.reset(options=new_trials(3))
    other = make(task={**SHORT, "goal_sampling": "ucb", "num_starts": 2}, seed=9)
    other.load_state_dict(state)
    assert_equal(other.observe(), seen)
    again = play(other, actions[50:]), other.expert_actions(), other.reset(options=new_trials(3))
    assert_equal(again, expected)
    assert_equal(other.state_dict(), env.state_dict())


def new_trials(num_envs: int) -> dict[str, Any]:
    return {"new_trial": np.ones(num_envs, bool)}


def test_state_is_a_copy() -> None:
    env = make()
    env.reset()
    play(env, random_actions(10, 3))
    state = env.state_dict()
    frozen = state["env"]["pose"].copy(), state["env"]["history"]["0"]["steps"].copy()
    play(env, random_actions(60, 3))
    np.testing.assert_array_equal(state["env"]["pose"], frozen[0])
    np.testing.assert_array_equal(state["env"]["history"]["0"]["steps"], frozen[1])


def test_state_of_another_generator_or_task_is_refused() -> None:
    env = make()
    env.reset()
    state = env.state_dict()
    old = state | {"dataset": state["dataset"].replace("houses-v", "houses-v9")}
    with pytest.raises(ValueError, match="dataset of the state must be 'relic-houses-v1/small"):
        make().load_state_dict(old)
    with pytest.raises(ValueError, match=r"task of the state must be .*turn_deg=14.3"):
        make(task={**SHORT, "turn_deg": 14.3}).load_state_dict(state)


def test_same_step_autoreset_equals_gymnasiums_own() -> None:
    """N single environments under SyncVectorEnv are the vector environment."""
    ours = make(3)
    singles = [
        lambda row=row: HousesEnv(**EVERYTHING, task=SHORT, seed=5, first_row=row)
        for row in range(3)
    ]
    theirs = SyncVectorEnv(singles, autoreset_mode=AutoresetMode.SAME_STEP)
    assert_equal(ours.reset()[0], theirs.reset()[0])
    ended = 0
    for action_N in random_actions(80, 3, seed=2):
        a, b = ours.step(action_N), theirs.step(action_N)
        assert_equal(dict(a[0]), dict(b[0]))
        np.testing.assert_array_equal(a[1], b[1].astype(np.float32))
        assert_equal(a[2:4], b[2:4])
        assert ("final_obs" in a[4]) == ("final_obs" in b[4])
        if "final_obs" not in a[4]:
            continue
        ended += int(a[4]["_final_obs"].sum())
        assert_equal(a[4]["final_obs"], b[4]["final_obs"])
        assert_equal(a[4]["_final_info"], b[4]["_final_info"])
        mask = a[4]["_episode_record"]
        theirs_record = b[4]["final_info"]["episode_record"]
        for name, value in a[4]["episode_record"].items():
            np.testing.assert_array_equal(value[mask], theirs_record[name][mask], err_msg=name)
    assert ended >= 9


def test_gymnasium_statistics_agree_with_the_records() -> None:
    env = RecordEpisodeStatistics(make(3))
    env.reset()
    firsts: set[int] = set()
    for action_N in random_actions(30, 3, seed=3):
        *_, infos = env.step(action_N)
        if "episode" not in infos:
            continue
        record, statistics = infos["episode_record"], infos["episode"]
        # The wrapper leaves out the first step of a row's later episodes, whatever the environment.
        for n in np.flatnonzero(infos["_episode"] & (record["episode"] == 0)):
            firsts.add(int(n))
            np.testing.assert_allclose(statistics["r"][n], record["return"][n], 1e-5)
            assert statistics["l"][n] == record["length"][n]
    assert firsts == {0, 1, 2}


def slow_distance(env: HousesVectorEnv, row: int, goal: int) -> float:
    """Measure to each instance on its own, from the scene, and take the nearest."""
    place = env.simulator.place(row)
    x, y = env.simulator.pose_N4[row, :2]
    return min(
        sample(
            distance_field(place.grid, viewpoints(place.scene, place.grid, o)),
            place.grid.cell,
            x,
            y,
        )
        for o in place.scene.objects
        if o.category == goal
    )


def slow_success(env: HousesVectorEnv, row: int, goal: int, instance_HW: np.ndarray) -> bool:
    """Count pixels in the picture that the agent saw when it stopped."""
    x, y = env.simulator.pose_N4[row, :2]
    return any(
        math.hypot(o.x - x, o.y - y) <= 2.0 and int((instance_HW == o.instance).sum()) >= 10
        for o in env.simulator.place(row).scene.objects
        if o.category == goal
    )


def test_rewards_and_records_by_a_slow_derivation() -> None:
    env = make(2, resolution=256, sensors=["instance"], task={"max_episode_steps": 40})
    observation, _ = env.reset()
    rng = np.random.default_rng(0)
    goal = observation["goal"].copy()
    start = np.array([slow_distance(env, n, int(goal[n])) for n in range(2)])
    before, path, total = start.copy(), np.zeros(2), np.zeros(2)
    outcomes: list[bool] = []
    for _ in range(150):
        pose = env.simulator.pose_N4.copy()
        action = env.expert_actions()
        stray = rng.random(2) < 0.25
        action[stray] = rng.integers(0, len(Action), 2)[stray]
        would = [slow_success(env, n, int(goal[n]), observation["instance"][n]) for n in range(2)]
        # Where the agent is and how far it then is cannot be read after an autoreset.
        reward_N, terminated, truncated = env.transition(action)
        after = np.array([slow_distance(env, n, int(goal[n])) for n in range(2)])
        success = np.array(would) & (action == Action.STOP)
        path += np.hypot(*(env.simulator.pose_N4 - pose)[:, :2].T)
        # Where two instances are equally near, one field of both is interpolated otherwise.
        np.testing.assert_allclose(reward_N, before - after - 0.001 + 2.0 * success, atol=5e-3)
        np.testing.assert_array_equal(terminated, action == Action.STOP)
        total, before = total + before - after - 0.001 + 2.0 * success, after
        records = env.episode_records(np.arange(2))
        ended = np.flatnonzero(terminated | truncated).tolist()
        for n in ended:
            longest = max(start[n], path[n])
            outcomes.append(bool(success[n]))
            expected = {
                "success": success[n],
                "spl": success[n] * start[n] / longest,
                "soft_spl": max(0.0, 1.0 - after[n] / start[n]) * start[n] / longest,
                "distance_start": start[n],
                "distance_end": after[n],
                "return": total[n],
                "goal": goal[n],
                "house": env.trial[n] % 1000,
                "area": np.prod(env.dataset.house(int(env.trial[n] % 1000)).extent),
            }
            for name, value in expected.items():
                np.testing.assert_allclose(records[name][n], value, atol=5e-3, err_msg=name)
        if len(ended):
            mask = np.isin(np.arange(2), ended)
            observation, _ = env.reset(options={"reset_mask": mask})
            goal[mask] = observation["goal"][mask]
            for n in ended:
                start[n] = before[n] = slow_distance(env, n, int(goal[n]))
                path[n] = total[n] = 0.0
        else:
            observation = env.observe()
    assert any(outcomes)
    assert not all(outcomes)


def test_actions_move_as_they_say() -> None:
    env = make(1, task={"max_episode_steps": 500})
    env.reset()
    sim = env.simulator

    def after(action: Action) -> np.ndarray:
        before = sim.pose_N4[0].copy()
        env.step(np.array([action]))
        return sim.pose_N4[0] - before

    np.testing.assert_allclose(after(Action.TURN_LEFT)[2] % (2 * math.pi), math.pi / 6)
    np.testing.assert_allclose(-after(Action.TURN_RIGHT)[2] % (2 * math.pi), math.pi / 6)
    pitches = [math.degrees(after(Action.LOOK_UP)[3]) for _ in range(2)]
    pitches += [math.degrees(after(Action.LOOK_DOWN)[3]) for _ in range(4)]
    np.testing.assert_allclose(pitches, [30, 0, -30, -30, -30, 0], atol=1e-9)
    for _ in range(40):
        heading = sim.pose_N4[0, 2]
        x, y, *_ = after(Action.FORWARD)
        if math.hypot(x, y) > 0.2499999:
            np.testing.assert_allclose([x, y], 0.25 * np.array([np.cos(heading), np.sin(heading)]))
            break
        env.step(np.array([Action.TURN_LEFT]))
    else:
        pytest.fail("no free step ahead in any direction")


def test_gps_and_compass_keep_the_trials_frame() -> None:
    env = make(2, resolution=8, sensors=["depth"])
    observation, _ = env.reset()
    np.testing.assert_array_equal(observation["gps"], 0)
    np.testing.assert_array_equal(observation["compass"], 0)
    origin = env.simulator.pose_N4.copy()
    play(env, random_actions(20, 2))
    observation, _ = env.reset()  # a new episode somewhere else in the same trial
    pose = env.simulator.pose_N4
    for n in range(2):
        dx, dy = pose[n, :2] - origin[n, :2]
        angle = origin[n, 2]
        to_start_frame = np.array(
            [[math.cos(angle), math.sin(angle)], [math.sin(angle), -math.cos(angle)]]
        )
        np.testing.assert_allclose(observation["gps"][n], to_start_frame @ [dx, dy], atol=1e-5)
        turned = complex(math.cos(pose[n, 2]), math.sin(pose[n, 2])) / complex(
            math.cos(angle), math.sin(angle)
        )
        expected = math.atan2(turned.imag, turned.real)
        np.testing.assert_allclose(observation["compass"][n, 0], expected, atol=1e-5)
    assert (np.linalg.norm(observation["gps"], axis=1) > 0.1).all()


def test_a_reset_keeps_the_house_and_a_trial_number_names_it() -> None:
    env = make(2)
    env.reset()
    trial = env.trial
    scenes = [env.simulator.place(n).scene for n in range(2)]
    env.reset()
    assert [env.simulator.place(n).scene for n in range(2)] == scenes
    other = make(2, seed=77)
    swapped, _ = other.reset(options={"trial": trial[::-1].copy()})
    straight, _ = make(2).reset(options={"trial": trial})
    for name in straight:
        np.testing.assert_array_equal(swapped[name][::-1], straight[name])


def test_pitch_starts_level_and_previous_end_starts_where_it_ended() -> None:
    env = make(2, task={**SHORT, "start": "previous_end"})
    env.reset()
    env.step(np.array([Action.LOOK_DOWN, Action.FORWARD]))
    end = env.simulator.pose_N4.copy()
    env.step(np.array([Action.STOP, Action.STOP]))
    np.testing.assert_array_equal(env.simulator.pose_N4[:, :3], end[:, :3])
    np.testing.assert_array_equal(env.simulator.pose_N4[:, 3], 0.0)


def test_previous_reward_is_seen_and_forgotten() -> None:
    env = make(3)
    observation, _ = env.reset()
    np.testing.assert_array_equal(observation["prev_reward"], 0.0)
    for action_N in random_actions(40, 3):
        observation, reward, terminated, truncated, _ = env.step(action_N)
        ended = terminated | truncated
        np.testing.assert_array_equal(observation["prev_reward"][:, 0], np.where(ended, 0, reward))


def test_semantics_name_the_goal_that_the_expert_looks_at() -> None:
    env = make(4, resolution=64, sensors=["semantic"], task=None)
    env.reset()
    found = 0
    for _ in range(200):
        stopping = env.expert_actions() == Action.STOP
        *_, infos = env.step(env.expert_actions())
        if infos:
            for n in np.flatnonzero(stopping):
                last = infos["final_obs"][n]
                found += int((last["semantic"] == GOAL_SEMANTIC + last["goal"]).any())
        if found >= 4:
            return
    pytest.fail(f"the expert found only {found} goals in 200 steps")


def success_of_expert(size: str, trials: int, episodes: int) -> float:
    env = HousesVectorEnv(trials, split="val", size=size, sensors=[])
    env.reset(options={"trial": np.arange(trials)})
    done = np.zeros(trials, int)
    successes: list[bool] = []
    while done.min() < episodes:
        *_, infos = env.step(env.expert_actions())
        if infos:
            for n in np.flatnonzero(infos["_episode_record"]):
                if done[n] < episodes:
                    done[n] += 1
                    successes.append(bool(infos["episode_record"]["success"][n]))
    return float(np.mean(successes))


def test_expert_finds_what_is_asked_for() -> None:
    assert success_of_expert("small", trials=8, episodes=3) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_expert_finds_what_is_asked_for_in_many_houses(size: str) -> None:
    assert success_of_expert(size, trials=100, episodes=5) >= 0.95


MEMORY = """
import numpy, psutil
from envs.houses.env import HousesVectorEnv
env = HousesVectorEnv(256, split="val", size="{size}", sensors=["rgb", "depth", "semantic"])
env.reset(options={{"trial": numpy.arange(256)}})
for action in numpy.random.default_rng(0).integers(0, 6, (60, 256)):
    env.step(action)
assert len(set(env.trial)) == 256
print(psutil.Process().memory_info().rss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_256_rows_with_a_house_each_fit_into_2_gib(size: str) -> None:
    code = MEMORY.format(size=size)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * 2**30


def test_a_blind_agent_sees_no_image() -> None:
    env = make(2, sensors=[], compass=False, prev_reward=False)
    observation, _ = env.reset()
    assert set(observation) == {"gps", "goal"}
    play(env, random_actions(30, 2))


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"split": "vall"}, ValueError, "split.*'vall'.*'val'"),
        ({"size": "medum"}, ValueError, "size.*'medum'.*'medium'"),
        ({"scale": "reel"}, ValueError, "scale.*'reel'.*'real'"),
        ({"sensors": ["rgbd"]}, ValueError, "sensor.*'rgbd'.*'rgb'"),
        ({"sensors": "rgb"}, TypeError, r"sensors: must be a list of names, got 'rgb'"),
        ({"sensors": None}, TypeError, r"sensors: must be a list of names, got None"),
        ({"field_bytes": -1}, ValueError, "field_bytes must be at least 0, got -1"),
        ({"size": ["small"]}, ValueError, r"size must be one of .* got \['small'\]"),
        ({"resolution": 0}, ValueError, "resolution.*got 0"),
        ({"resolution": [64]}, ValueError, r"resolution.*got \[64\]"),
        ({"resolution": 64.5}, ValueError, "resolution.*got 64.5"),
        ({"resolution": True}, ValueError, "resolution.*got True"),
        ({"houses": []}, ValueError, "houses.*got none"),
        ({"threads": 0}, ValueError, "threads.*got 0"),
        ({"antialias": 3}, ValueError, "antialias.*got 3"),
        ({"num_envs": 0}, ValueError, "num_envs.*got 0"),
        ({"task": {"turn_degrees": 30}}, ValueError, "turn_degrees.*'turn_deg'"),
        ({"task": 30}, TypeError, "task.*got int"),
        ({"compass": 1}, TypeError, "compass.*got 1"),
    ],
)
def test_bad_options_are_named(
    overrides: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**overrides)


def test_bad_calls_are_named() -> None:
    env = make(2)
    with pytest.raises(StepBeforeResetError, match=r"HousesVectorEnv.step: reset\(\) must come"):
        env.step(np.zeros(2, int))
    env.reset()
    with pytest.raises(ValueError, match=r"must lie in Discrete\(6\), got 6 in row 1"):
        env.step(np.array([0, 6]))
    with pytest.raises(ValueError, match="must have shape"):
        env.step(np.array([0, 1, 2]))
    with pytest.raises(TypeError, match="must be integers"):
        env.step(np.array([0.5, 1.0]))
    single = HousesEnv(**EVERYTHING)
    with pytest.raises(StepBeforeResetError):
        single.step(1)
    single.reset()
    single.step(int(Action.STOP))
    with pytest.raises(EpisodeEndedError):
        single.step(1)


def test_task_may_be_a_config() -> None:
    config = ObjectNavConfig(turn_deg=14.3, max_episode_steps=7)
    env = make(1, task=config)
    assert env.task is config
    assert env.max_episode_steps == 7


def test_pictures_may_be_oblong() -> None:
    env = make(1, resolution=(12, 20), sensors=["rgb", "depth"])
    observation, _ = env.reset()
    assert observation["rgb"].shape == (1, 12, 20, 3)
    assert observation["depth"].shape == (1, 12, 20)
