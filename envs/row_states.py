"""Where each row of a trial environment is, and how that is saved and taken up again.

Shape suffixes: N rows.
"""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from envs.errors import ClosedError, StepBeforeResetError
from envs.hooks import Rows, State, TrialHooks
from envs.validation import check_count, check_seed, check_state

COUNTERS: Final = ("trial", "episode", "elapsed", "drawn", "return")
"""Arrays that every environment keeps for each row, and saves."""


class RowStates(TrialHooks):
    """Counters of N rows: their trials, their episodes, and the steps and returns of these."""

    state_version: ClassVar[int] = 1
    """Raise it in a subclass whenever the meaning of its saved state changes."""

    num_envs: int
    closed: bool
    dataset_name: str
    first_row: int
    max_episode_steps: int
    _seed: int
    _started: bool
    _trial: Rows
    _episode: Rows
    _elapsed: Rows
    _drawn: Rows
    """Trial numbers drawn so far: the count in (seed, row, count)."""
    _return: NDArray[np.float64]

    def _start_counters(self) -> None:
        """Set up rows that wait for the first reset."""
        self._started = False
        zeros = np.zeros(self.num_envs, dtype=np.int64)
        self._trial, self._episode, self._elapsed = zeros.copy(), zeros.copy(), zeros.copy()
        self._drawn = zeros
        self._return = np.zeros(self.num_envs, dtype=np.float64)

    @property
    def trial(self) -> Rows:
        """The trial that each row is in, int64 (N,). A copy."""
        return self._trial.copy()

    @property
    def episode(self) -> Rows:
        """Index, in its trial, of the episode that each row is in, int64 (N,). A copy."""
        return self._episode.copy()

    @property
    def elapsed_steps(self) -> Rows:
        """Steps taken in the current episode of each row, int64 (N,). A copy."""
        return self._elapsed.copy()

    def skip_trials(self, seed: int, count: int) -> None:
        """Draw the next trials as if every row had drawn so many under this seed already.

        For a fresh environment that takes over rows of another one between two trials; `reset`
        must follow.
        """
        where = f"{type(self).__name__}.skip_trials"
        self._check_open("skip_trials")
        check_count(where, "count", count, least=0)
        self._seed = check_seed(where, seed)
        self._drawn[:] = count
        self._started = False

    def state_dict(self) -> State:
        """Return everything that a fresh environment needs to continue from here bit for bit.

        Returns:
            Nested dict of numpy copies, ints and strings.
        """
        self._check_running("state_dict")
        return {
            **self._identity(),
            "seed": self._seed,
            **{name: getattr(self, f"_{name}").copy() for name in COUNTERS},
            "env": self._state(),
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from a saved state. No `reset` is needed before or after.

        Raises:
            ValueError: The state belongs to another environment, dataset, version or row range, or
                is not whole. The environment is as it was.
            TypeError: It is no dict.
        """
        self._check_open("load_state_dict")
        where = f"{type(self).__name__}.load_state_dict"
        check_state(where, state, identity=self._identity(), keys=("seed", *COUNTERS, "env"))
        self._seed = int(state["seed"])
        for name in COUNTERS:
            getattr(self, f"_{name}")[:] = state[name]
        self._begin_trials(np.arange(self.num_envs), self._trial)
        self._load_state(state["env"])
        self._started = True

    def _identity(self) -> State:
        """Return what must be equal between the saver and the loader of a state."""
        return {
            "class": type(self).__name__,
            "state_version": self.state_version,
            "dataset": self.dataset_name,
            "num_envs": self.num_envs,
            "first_row": self.first_row,
            "max_episode_steps": self.max_episode_steps,
        }

    def _check_open(self, method: str) -> None:
        if self.closed:
            raise ClosedError(
                f"{type(self).__name__}.{method}: the environment must be open, got a closed one. "
                "Build a new one."
            )

    def _check_running(self, method: str) -> None:
        self._check_open(method)
        if not self._started:
            raise StepBeforeResetError(
                f"{type(self).__name__}.{method}: reset() must come first, got {method}() on a "
                "fresh environment. Call reset()."
            )
