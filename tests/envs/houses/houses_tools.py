"""Small houses for tests, and random walks in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.houses.env import HousesVectorEnv
from envs.objectnav.config import Action

EVERYTHING = {
    "split": "val",
    "size": "small",
    "resolution": 16,
    "sensors": ["rgb", "depth", "semantic", "instance"],
    "compass": True,
    "prev_reward": True,
    "goal_places": True,
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
