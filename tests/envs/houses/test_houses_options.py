"""What may be asked of the houses environment, and how it says no."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.core.validation import EpisodeEndedError, StepBeforeResetError
from envs.houses.env import HousesEnv
from envs.objectnav.config import Action, ObjectNavConfig
from tests.envs.houses.houses_tools import EVERYTHING, make, play, random_actions


def test_a_blind_agent_sees_no_image() -> None:
    env = make(2, sensors=[], compass=False, prev_reward=False, goal_places=False)
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
