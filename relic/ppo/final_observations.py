"""Observations at time limits, kept so that their values can be recomputed.

Shapes: N rows, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
Seen = Mapping[str, Tensor]
"""One observation, as a rollout keeps it."""


@dataclass(slots=True)
class FinalObservations:
    """Final observations whose value is needed, by row in this process and time step."""

    kept: dict[tuple[int, int], Seen | None] = field(default_factory=dict)
    """None: the simulator had none to show, and the value of the last step stands in."""

    @property
    def nbytes(self) -> int:
        """Bytes of all observations."""
        return sum(t.nbytes for seen in self.kept.values() if seen for t in seen.values())

    def rows(self, rows_N: Array) -> Array:
        """Return those of some rows that have any that was seen."""
        having = {row for (row, _), seen in self.kept.items() if seen is not None}
        return np.array([row for row in rows_N.tolist() if row in having], np.int64)

    def of_row(self, row: int) -> list[int]:
        """Return the time steps behind which a row has one that was seen."""
        return [t for (n, t), seen in self.kept.items() if n == row and seen is not None]

    def state_dict(self, begin: int, end: int, rows: range) -> dict[str, Any] | None:
        """Return those of some rows and steps, the rows counted from the first of them."""
        chosen = [at for at in sorted(self.kept) if at[0] in rows and begin <= at[1] < end]
        if not chosen:
            return None
        seen = [self.kept[at] for at in chosen]
        known = [observation for observation in seen if observation is not None]
        names = known[0] if known else ()
        return {
            "row": np.array([row - rows.start for row, _ in chosen], np.int64),
            "column": np.array([column for _, column in chosen], np.int64),
            "known": np.array([observation is not None for observation in seen]),
            "observation": {n: torch.stack([o[n].cpu() for o in known]) for n in names},
        }

    @staticmethod
    def cut(state: dict[str, Any] | None, begin: int, end: int) -> dict[str, Any] | None:
        """Return of what `state_dict` returned the rows `[begin, end)`, counted from the first."""
        if state is None:
            return None
        row = np.asarray(state["row"])
        chosen = (row >= begin) & (row < end)
        if not chosen.any():
            return None
        known = np.asarray(state["known"], bool)
        seen = torch.from_numpy(chosen[known])
        return {
            "row": row[chosen] - begin,
            "column": np.asarray(state["column"])[chosen],
            "known": known[chosen],
            "observation": {k: torch.as_tensor(v)[seen] for k, v in state["observation"].items()},
        }

    def load_state_dict(self, state: dict[str, Any] | None, first_row: int, like: Seen) -> None:
        """Add what `state_dict` returned.

        Args:
            state: None adds nothing; so do files of older versions.
            first_row: Row of this process from which the state counts.
            like: Columns of the rollout's observations, for types and device.
        """
        if state is None:
            return
        number = 0
        for row, column, known in zip(state["row"], state["column"], state["known"], strict=True):
            seen = None
            if known:
                parts = state["observation"].items()
                seen = {name: torch.as_tensor(part)[number].to(like[name]) for name, part in parts}
                number += 1
            self.kept[first_row + int(row), int(column)] = seen
