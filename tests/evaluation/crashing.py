"""A Darkroom whose process dies when a certain trial begins."""

import os
from pathlib import Path
from typing import Any

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
