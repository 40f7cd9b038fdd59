"""A small environment that uses all of the trial contract: episodes of varying length, images,
categories, randomness in tasks, starts and dynamics, an expert, and records of every kind."""

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from envs.core.draws import keyed_generator
from envs.core.single import SingleTrialEnv
from envs.core.vector import TrialVectorEnv

SPACE = spaces.Dict(
    {
        "goal": spaces.Discrete(4),
        "image": spaces.Box(0, 255, (3, 3, 3), np.uint8),
        "position": spaces.Box(-100.0, 100.0, (2,), np.float32),
    }
)


class ToyVectorEnv(TrialVectorEnv):
    """Episodes end when the secret action of the trial meets a value divisible by three."""

    saved_arrays: ClassVar = {"value": "value", "start": "start"}

    def __init__(self, num_envs: int = 1, *, continuous: bool = False, **kwargs: Any) -> None:
        self.continuous = continuous
        action_space = spaces.Box(-1.0, 1.0, (2,), np.float32) if continuous else spaces.Discrete(4)
        options = {
            "single_action_space": action_space,
            "dataset_name": "toy-v1",
            "num_trials": 1000,
            "max_episode_steps": 20,
            **kwargs,
        }
        super().__init__(num_envs, SPACE, **options)
        self.secret = np.zeros(num_envs, dtype=np.int64)
        self.value = np.zeros(num_envs, dtype=np.int64)
        self.start = np.zeros(num_envs, dtype=np.int64)

    def begin_trials(self, rows, trials):
        for row, trial in zip(rows, trials, strict=True):
            self.secret[row] = keyed_generator(self.dataset_name, trial).integers(4)

    def begin_episodes(self, rows):
        for row in rows:
            rng = keyed_generator(self.dataset_name, self.trial[row], self.episode[row])
            self.value[row] = self.start[row] = rng.integers(5)

    def advance(self, actions):
        if self.continuous:
            actions = np.floor(np.abs(actions).sum(axis=1) * 1.9).astype(np.int64)
        wind = (self.trial * 7 + self.elapsed_steps * 3) % 2
        self.value += actions + wind
        ended = (actions == self.secret) & (self.value % 3 == 0)
        reward = (self.value % 5).astype(np.float32) / 4
        return reward, ended, np.zeros(self.num_envs, dtype=bool)

    def observe_rows(self, rows, out):
        rows = np.arange(self.num_envs) if rows is None else rows
        out["goal"][rows] = self.trial[rows] % 4
        out["image"][rows] = (self.value[rows] * 11 % 256)[:, None, None, None]
        out["position"][rows] = np.stack([self.value[rows], self.elapsed_steps[rows]], axis=-1)

    def record_rows(self, rows):
        return {
            "success": self.value[rows] % 3 == 0,
            "distance": self.value[rows] / 7,
            "start": self.start[rows].astype(np.int16),
        }

    def ask_expert(self):
        if self.continuous:
            return super().ask_expert()
        return self.secret.copy()


class ToyEnv(SingleTrialEnv):
    """One row of it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(ToyVectorEnv(1, **kwargs))
