"""When the goal was last in view, against a slow replay of the pictures."""

from __future__ import annotations

import numpy as np
import pytest

from envs.houses.env import HousesVectorEnv
from envs.objectnav.config import Action
from envs.objectnav.goals import GOAL_SEMANTIC

ROWS, STEPS = 4, 400


def make(**options):
    task = {"max_episode_steps": 40, **options.pop("task", {})}
    options = {"sensors": ("semantic",), "sightings": True, "seed": 3, **options}
    return HousesVectorEnv(ROWS, split="val", task=task, **options)


def wander(env: HousesVectorEnv, rng: np.random.Generator) -> np.ndarray:
    moves = [Action.FORWARD, Action.TURN_LEFT, Action.TURN_RIGHT, Action.STOP]
    return rng.choice(moves, env.num_envs, p=[0.55, 0.25, 0.17, 0.03])


def test_it_is_the_last_picture_of_an_earlier_episode_that_shows_the_goal() -> None:
    env, rng = make(), np.random.default_rng(0)
    observation, _ = env.reset()
    # By row, for each step of the trial, the categories that its picture shows.
    shown: list[list[set[int]]] = [[] for _ in range(ROWS)]
    begun, found = [0] * ROWS, []
    for step in range(STEPS):
        if step == 300:
            observation, _ = env.reset(options={"new_trial": np.array([True, False, False, True])})
            for row in (0, 3):
                shown[row], begun[row] = [], 0
        for row in range(ROWS):
            ids = np.unique(observation["semantic"][row]) - GOAL_SEMANTIC
            shown[row].append({int(i) for i in ids if i >= 0})
        goals = observation["goal"].copy()
        observation, _, terminated, truncated, infos = env.step(wander(env, rng))
        for row in np.flatnonzero(terminated | truncated).tolist():
            past = [s for s in range(begun[row]) if int(goals[row]) in shown[row][s]]
            expected = begun[row] - past[-1] if past else -1
            assert infos["episode_record"]["seen_ago"][row] == expected
            found.append(expected)
            begun[row] = len(shown[row])
    assert min(found) == -1
    assert len(set(found)) > 20
    env.close()


def test_a_state_goes_on_and_one_without_it_is_refused() -> None:
    env, rng = make(), np.random.default_rng(1)
    env.reset()
    for _ in range(150):
        env.step(wander(env, rng))
    other = make()
    other.load_state_dict(env.state_dict())
    ended = 0
    for _ in range(80):
        actions = wander(env, rng)
        infos, again = env.step(actions)[-1], other.step(actions)[-1]
        if "episode_record" in infos:
            ended += 1
            np.testing.assert_array_equal(
                infos["episode_record"]["seen_ago"], again["episode_record"]["seen_ago"]
            )
    assert ended
    without = make(sightings=False)
    without.reset()
    with pytest.raises(ValueError, match="sightings=True"):
        env.load_state_dict(without.state_dict())
    for one in (env, other, without):
        one.close()


def test_what_is_in_view_is_drawn_once_and_anew_where_agents_or_houses_change() -> None:
    env, rng = make(), np.random.default_rng(2)
    env.reset()
    simulator = env.simulator

    def drawn() -> np.ndarray:
        pose_N4, width = simulator.pose_N4, simulator.renderer.camera.width
        return simulator.renderer.count_pixels(np.arange(ROWS), *pose_N4.T, size=width)

    changed = 0
    for _ in range(30):
        before = simulator.pixels_in_view()
        assert before is simulator.pixels_in_view()
        env.step(wander(env, rng))
        np.testing.assert_array_equal(simulator.pixels_in_view(), drawn())
        changed += before is not simulator.pixels_in_view()
    assert changed > 20
    for row in range(ROWS):  # other houses, seen from the same poses
        simulator.set_scene(row, env.dataset.scene(row + 7, 0), env.dataset.grid(row + 7))
    np.testing.assert_array_equal(simulator.pixels_in_view(), drawn())
    env.close()
