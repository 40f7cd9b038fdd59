"""The houses as environments: contract, names, independence of rows, state, autoreset, memory."""

from __future__ import annotations

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
from envs.houses.env import HousesEnv, HousesVectorEnv
from envs.objectnav.config import Action
from tests.envs.houses.houses_tools import EVERYTHING, SHORT, make, play, random_actions


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


def test_trials_are_shared_where_houses_are() -> None:
    def shared(own: dict[str, Any], other: dict[str, Any], trials: range) -> list[int]:
        return HousesVectorEnv(1, **own).shared_trials(HousesVectorEnv(1, **other), trials)

    trials = range(3)
    assert shared({"split": "train"}, {"split": "train"}, trials) == [0, 1, 2]
    assert shared({"split": "val"}, {"split": "train"}, trials) == []
    # However they are furnished, and whatever the list is called that names them.
    assert shared({"split": "train", "scale": "real"}, {"split": "train"}, trials) == [0, 1, 2]
    named = {"split": "val", "houses": [4, 0, 3]}  # one of val, and the first two of train
    assert shared(named, {"split": "train"}, range(6)) == [1, 2, 4, 5]
    assert shared({"size": "medium"}, {"size": "small"}, trials) == []


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
    places = [env.simulator.task_scene(n) for n in range(3)]
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
