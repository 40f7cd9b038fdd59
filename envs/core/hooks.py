"""What trial environments fill in of `envs.core.vector.TrialVectorEnv`, and the types of it.

Shapes: N rows, K some of the rows, A action dimensions. Rows are int64 indices into 0..N-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Observation = dict[str, NDArray[Any]]
State = dict[str, Any]
Transition = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]
"""Rewards, terminations, truncations."""


class TrialHooks:
    """What trial environments fill in: the first four methods, and what else they have."""

    saved_arrays: ClassVar[Mapping[str, str]] = {}
    """Names of array attributes that `begin_trials` does not restore, by name in saved states."""

    def begin_trials(self, rows: Rows, trials: Rows) -> None:
        """Set up the tasks of these trials. `begin_episodes` or `load_rows` follows."""
        raise NotImplementedError

    def begin_episodes(self, rows: Rows) -> None:
        """Place these rows at the start of episode `self.episode[rows]` of their trials."""
        raise NotImplementedError

    def advance(self, actions: NDArray[Any]) -> Transition:
        """Act in all rows; return fresh arrays.

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

    def ask_memory_expert(self, kind: str) -> NDArray[Any]:
        """Return actions of an expert that knows only what it was shown in the trial.

        Args:
            kind: `memory`, or `episode` for one that forgets when an episode begins.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.expert_actions: this environment has no expert of kind {kind}."
        )

    def save_rows(self) -> State:
        """Return copies of what `begin_trials` does not restore: here, of `saved_arrays`."""
        return {key: getattr(self, name).copy() for key, name in self.saved_arrays.items()}

    def load_rows(self, state: State) -> None:
        """Take over what `save_rows` returned. The trials have been begun before."""
        for key, name in self.saved_arrays.items():
            getattr(self, name)[:] = state[key]
