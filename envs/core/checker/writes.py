"""Watches a vectorised environment while it writes observations into arrays.

NumPy casts what is assigned: 300.7 becomes 44 in uint8, and by the time that the array is looked
at, 44 is a legal value. So during the checks, `observe_rows` writes into arrays that look at each
value before it is cast. Views of them look, too. Broadcasting is left alone, as vectorised code
is full of it that is meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from envs.core.process_worker import misfit
from envs.core.vector import TrialVectorEnv


class WatchedArray(np.ndarray):
    """An array that notes what is bent in being assigned to it."""

    what: str = ""
    notes: list[str] | None = None

    def __array_finalize__(self, source: Any) -> None:
        """Let views note into the same list."""
        self.what = getattr(source, "what", "")
        self.notes = getattr(source, "notes", None)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Assign, and note it if the values do not fit the dtype."""
        if self.notes is not None:
            array = np.asarray(value)
            fault = misfit(array, array.shape, self.dtype)
            if fault:
                self.notes.append(f"observe_rows: {self.what} {fault}; it is cast in silence")
        super().__setitem__(index, value)


@contextmanager
def watched_writes(core: Any) -> Iterator[list[str]]:
    """Watch what an environment's `observe_rows` writes, and give the list of findings.

    Args:
        core: a `TrialVectorEnv`; of any other environment nothing is watched.
    """
    notes: list[str] = []
    if not isinstance(core, TrialVectorEnv):
        yield notes
        return
    original = core.observe_rows

    def observe_rows(rows: Any, out: dict[str, Any]) -> None:
        watched = {}
        for name, array in out.items():
            watched[name] = array.view(WatchedArray)
            watched[name].what, watched[name].notes = f"observation[{name!r}]", notes
        original(rows, watched)

    core.observe_rows = observe_rows  # type: ignore[method-assign]
    try:
        yield notes
    finally:
        del core.observe_rows
