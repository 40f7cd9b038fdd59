"""The end of an episode: outcomes that are observed, and progress that is given back."""

from __future__ import annotations

import numpy as np
import pytest

from envs.houses.env import HousesVectorEnv
from envs.objectnav.config import Action, Outcome

TASK = {"max_episode_steps": 40}


def make(*, closed: bool, num_envs: int = 6) -> HousesVectorEnv:
    task = {**TASK, "closed_progress": closed}
    return HousesVectorEnv(num_envs, sensors=(), outcome=True, task=task, seed=3)


def expert_or_random(env: HousesVectorEnv, rng: np.random.Generator) -> np.ndarray:
    """Act so that episodes end in all three ways: rows 0 and 1 follow the expert."""
    actions = rng.choice(
        [Action.FORWARD, Action.TURN_LEFT, Action.STOP], env.num_envs, p=[0.77, 0.2, 0.03]
    )
    actions[:2] = env.expert_actions()[:2]
    return actions


def test_outcomes_are_those_of_the_episode_before_at_its_next_step_only() -> None:
    env, rng = make(closed=False), np.random.default_rng(0)
    observation, _ = env.reset(seed=3)
    assert (observation["outcome"] == Outcome.NONE).all()
    seen = set()
    for step in range(250):
        if step == 120:
            observation, _ = env.reset(options={"new_trial": np.ones(env.num_envs, bool)})
            assert (observation["outcome"] == Outcome.NONE).all()
        actions = expert_or_random(env, rng)
        observation, _, terminated, truncated, infos = env.step(actions)
        for row in range(env.num_envs):
            expected = Outcome.NONE
            if terminated[row]:
                found = infos["episode_record"]["success"][row]
                expected = Outcome.FOUND if found else Outcome.NOT_FOUND
            elif truncated[row]:
                expected = Outcome.OUT_OF_TIME
            assert observation["outcome"][row] == expected
            seen.add(expected)
            if terminated[row] or truncated[row]:
                assert infos["final_obs"][row]["outcome"] == Outcome.NONE
    assert seen == set(Outcome)
    env.close()


@pytest.mark.parametrize("closed", [False, True])
def test_rewards_of_an_episode_sum_to_what_the_rules_say(closed: bool) -> None:
    env, rng = make(closed=closed), np.random.default_rng(1)
    env.reset(seed=3)
    total, length = np.zeros(env.num_envs), np.zeros(env.num_envs, int)
    ends = {True: 0, False: 0}
    for _ in range(250):
        _, reward, terminated, truncated, infos = env.step(expert_or_random(env, rng))
        total += reward
        length += 1
        for row in np.flatnonzero(terminated | truncated):
            record = {name: value[row] for name, value in infos["episode_record"].items()}
            progress = record["distance_start"] - record["distance_end"]
            keeps = bool(record["success"]) or not closed
            expected = 2.0 * record["success"] - 0.001 * length[row] + progress * keeps
            assert total[row] == pytest.approx(expected, abs=1e-5)
            ends[bool(record["success"])] += 1
            total[row] = length[row] = 0
    assert min(ends.values()) > 3
    env.close()


def test_outcomes_go_on_from_a_state() -> None:
    env, rng = make(closed=True), np.random.default_rng(2)
    env.reset(seed=3)
    truncated = np.zeros(env.num_envs, bool)
    while not truncated.any():
        observation, _, _, truncated, _ = env.step(expert_or_random(env, rng))
    state, actions = env.state_dict(), expert_or_random(env, rng)
    after = env.step(actions)
    other = make(closed=True)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.observe()["outcome"], observation["outcome"])
    again = other.step(actions)
    np.testing.assert_array_equal(again[0]["outcome"], after[0]["outcome"])
    np.testing.assert_array_equal(again[1], after[1])
    env.close()
    other.close()


def test_states_of_before_there_were_outcomes_are_taken() -> None:
    env = HousesVectorEnv(2, sensors=(), task=TASK, seed=3)
    env.reset(seed=3)
    state = env.state_dict()
    old = {name: value for name, value in state["env"].items() if name != "outcome"}
    assert "closed_progress" not in old["task"]
    env.load_state_dict({**state, "env": old})
    env.close()


def test_a_state_of_the_other_reward_is_refused() -> None:
    env, other = make(closed=True), make(closed=False)
    env.reset(seed=3)
    other.reset(seed=5)
    before = other.state_dict()
    with pytest.raises(ValueError, match="closed_progress=True"):
        other.load_state_dict(env.state_dict())
    np.testing.assert_equal(other.state_dict(), before)
    env.close()
    other.close()
