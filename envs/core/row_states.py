"""What a concrete trial environment fills in, and where each of its rows is.

Rows are int64 indices into 0..N-1.

Shape suffixes: N rows, K some of the rows, A action dimensions.

Where each row of a trial environment is, and how that is saved and taken up again.

Shape suffixes: N rows.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from envs.core.errors import ClosedError, StepBeforeResetError
from envs.core.validation import check_count, check_seed, check_state

Rows = NDArray[np.int64]
Observation = dict[str, NDArray[Any]]
State = dict[str, Any]


class TrialHooks:
    """The methods in which trial environments differ. The first four must be filled in."""

    def begin_trials(self, rows: Rows, trials: Rows) -> None:
        """Set up the tasks of these trials. `begin_episodes` or `load_rows` follows."""
        raise NotImplementedError

    def begin_episodes(self, rows: Rows) -> None:
        """Place these rows at the start of episode `self._episode[rows]` of their trials."""
        raise NotImplementedError

    def advance(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Act in all rows; return fresh rewards, terminations and truncations.

        The time limit is added by the caller: truncations are those for other reasons.
        """
        raise NotImplementedError

    def observe_rows(self, rows: Rows | None, out: Observation) -> None:
        """Write what these rows (None: all) see now into `out[name][rows]`.

        Must be a function of the state alone: it is called again for rows that do not move.
        """
        raise NotImplementedError

    def record_rows(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return entries of the episode record beyond the common ones, (K,) each."""
        return {}

    def ask_expert(self) -> NDArray[Any]:
        """Return expert actions, (N,) or (N, A)."""
        raise NotImplementedError(
            f"{type(self).__name__}.expert_actions: this environment has no expert."
        )

    def save_rows(self) -> State:
        """Return copies of what `begin_trials` does not restore."""
        return {}

    def load_rows(self, state: State) -> None:
        """Take over what `save_rows` returned. The trials have been begun before."""


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
            "env": self.save_rows(),
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
        self.begin_trials(np.arange(self.num_envs), self._trial)
        self.load_rows(state["env"])
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
