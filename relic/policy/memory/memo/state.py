"""The state of Memo: keys and values of the segment in progress, and of all summaries.

Shapes: N rows, L layers, H heads, D head dim, S slots.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from relic.policy.memory.config import MemoConfig
from relic.policy.memory.sequence_model import (
    ContextOverflowError,
    Rows,
    SequenceState,
    check_sizes,
    row_indices,
)


class MemoState(SequenceState):
    """Keys and values of the segment in progress, and of the summaries of those before it.

    Args:
        config: Of the model.
        num_rows: N.
        capacity: Steps that a trial may have.
        device: Where it lives.
        dtype: Of keys and values.
    """

    row_axes: ClassVar = {"kv": 2}

    def __init__(
        self,
        config: MemoConfig,
        num_rows: int,
        capacity: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.config = config
        self.capacity = capacity
        heads = (config.num_heads, config.head_dim)
        with torch.inference_mode(False):
            shape = (config.num_layers, 2, num_rows, config.slots_for(capacity), *heads)
            self.kv = torch.zeros(shape, device=device, dtype=dtype)
            """Keys, already turned, and values; the segment's slots first, then the summaries."""
            self.lengths = torch.zeros(num_rows, dtype=torch.long, device=device)
        self.host_lengths = np.zeros(num_rows, np.int64)
        """The lengths again, where reading them makes no device wait."""

    @property
    def num_rows(self) -> int:
        """Rows of the state."""
        return len(self.host_lengths)

    def make_room(self, more: int | np.ndarray, rows: np.ndarray, look: int = 0) -> None:
        """Check that steps fit before anything is written.

        Raises:
            ContextOverflowError: If a trial would have more steps than the capacity.
        """
        wanted = self.host_lengths[rows] + more
        if (wanted > self.capacity + look).any():
            raise ContextOverflowError(
                f"MemoState: a trial must have at most capacity={self.capacity} steps, got step "
                f"{int(wanted.max())}. Reset the row, or ask for more in initial_state."
            )

    def note_steps(self, more: int | np.ndarray, rows: np.ndarray) -> None:
        """Advances the lengths of chosen rows."""
        self.host_lengths[rows] += more
        self.lengths.copy_(torch.from_numpy(self.host_lengths))

    def reset(self, rows: Rows | None = None) -> None:
        """Empties rows; see `SequenceState.reset`."""
        index = row_indices(rows, self.num_rows)
        self.kv[:, :, torch.from_numpy(index).to(self.kv.device)] = 0
        self.note_steps(-self.host_lengths[index], index)

    def snapshot(self) -> MemoState:
        """Return a copy; see `SequenceState.snapshot`."""
        return self.select(np.arange(self.num_rows))

    def select(self, rows: Rows) -> MemoState:
        """Return a copy of chosen rows; see `SequenceState.select`."""
        index = row_indices(rows, self.num_rows)
        where = torch.from_numpy(index).to(self.kv.device)
        chosen = object.__new__(MemoState)
        chosen.config, chosen.capacity = self.config, self.capacity
        with torch.inference_mode(False):
            chosen.kv, chosen.lengths = self.kv[:, :, where], self.lengths[where]
        chosen.host_lengths = self.host_lengths[index]
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on bit for bit."""
        lengths = self.lengths.clone()
        return {"kv": self.kv.clone(), "lengths": lengths, "capacity": self.capacity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: If it is of another shape.
        """
        got = (tuple(state["kv"].shape), state["capacity"])
        own = (tuple(self.kv.shape), self.capacity)
        check_sizes(self, own, got)
        self.kv.copy_(state["kv"])
        self.lengths.copy_(state["lengths"])
        self.host_lengths = state["lengths"].cpu().numpy().copy()


def as_memo(state: SequenceState) -> MemoState:
    """Return a state as what it has to be.

    Raises:
        TypeError: If it is of another model.
    """
    if not isinstance(state, MemoState):
        raise TypeError(
            f"Memo: state must be a MemoState, got {type(state).__name__}. Take it from "
            "initial_state of the same model."
        )
    return state
