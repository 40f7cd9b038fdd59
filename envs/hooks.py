"""What a concrete trial environment fills in, for `envs.vector` to call. Nothing is decided here.

Rows are int64 indices into 0..N-1.

Shape suffixes: N rows, K some of the rows, A action dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Observation = dict[str, NDArray[Any]]
State = dict[str, Any]


class TrialHooks:
    """The methods in which trial environments differ. The first four must be filled in."""

    def _begin_trials(self, rows: Rows, trials: Rows) -> None:
        """Set up the tasks of these trials. `_begin_episodes` or `_load_state` follows."""
        raise NotImplementedError

    def _begin_episodes(self, rows: Rows) -> None:
        """Place these rows at the start of episode `self._episode[rows]` of their trials."""
        raise NotImplementedError

    def _advance(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Act in all rows; return fresh rewards, terminations and truncations.

        The time limit is added by the caller: truncations are those for other reasons.
        """
        raise NotImplementedError

    def _observe(self, rows: Rows | None, out: Observation) -> None:
        """Write what these rows (None: all) see now into `out[name][rows]`.

        Must be a function of the state alone: it is called again for rows that do not move.
        """
        raise NotImplementedError

    def _record(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return entries of the episode record beyond the common ones, (K,) each."""
        return {}

    def _expert_actions(self) -> NDArray[Any]:
        """Return expert actions, (N,) or (N, A)."""
        raise NotImplementedError(
            f"{type(self).__name__}.expert_actions: this environment has no expert."
        )

    def _state(self) -> State:
        """Return copies of what `_begin_trials` does not restore."""
        return {}

    def _load_state(self, state: State) -> None:
        """Take over what `_state` returned. The trials have been begun before."""
