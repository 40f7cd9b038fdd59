"""Darkrooms that break: one's process dies, another's reward is no number."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from envs.darkroom import DarkroomVectorEnv


class CrashingVectorEnv(DarkroomVectorEnv):
    """Dies in trial `fatal`: once if `marker` names a file to remember it by, else always."""

    def __init__(self, num_envs: int = 1, *, fatal: int, marker: str = "", **kwargs: Any) -> None:
        super().__init__(num_envs, **kwargs)
        self._fatal, self._marker = fatal, marker

    def begin_trials(self, rows, trials):
        super().begin_trials(rows, trials)
        if self._fatal not in trials or (self._marker and Path(self._marker).exists()):
            return
        if self._marker:
            Path(self._marker).touch()
        os._exit(7)


class BrokenVectorEnv(DarkroomVectorEnv):
    """Gives no number as the fourth reward of each trial's first episode."""

    def advance(self, actions):
        reward_N, *ends = super().advance(actions)
        reward_N[(self.elapsed_steps == 3) & (self.episode == 0)] = np.nan
        return (reward_N, *ends)
