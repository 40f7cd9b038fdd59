"""The state of Memo: keys and values of the segment in progress, and of all summaries.

Shapes: N rows, L layers, H heads, D head dim, S slots.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from relic.policy.memory.config import MemoConfig
from relic.policy.memory.counted_state import CountedState
from relic.policy.memory.sequence_model import Rows, row_indices


class MemoState(CountedState):
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
        super().__init__(num_rows, capacity, device)
        self.config = config
        heads = (config.num_heads, config.head_dim)
        with torch.inference_mode(False):
            shape = (config.num_layers, 2, num_rows, config.slots_for(capacity), *heads)
            self.kv = torch.zeros(shape, device=device, dtype=dtype)
            """Keys, already turned, and values; the segment's slots first, then the summaries."""

    def reset(self, rows: Rows | None = None) -> None:
        """Empties rows; see `SequenceState.reset`."""
        index = row_indices(rows, self.num_rows)
        self.kv[:, :, torch.from_numpy(index).to(self.kv.device)] = 0
        self.forget(index)

    def select(self, rows: Rows) -> MemoState:
        """Return a copy of chosen rows; see `SequenceState.select`."""
        index = row_indices(rows, self.num_rows)
        where = torch.from_numpy(index).to(self.kv.device)
        chosen = self.with_rows(index)
        with torch.inference_mode(False):
            chosen.kv = self.kv[:, :, where]
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
        self.check_sizes(self.kv.shape, state["kv"].shape, state["capacity"])
        self.kv.copy_(state["kv"])
        self.take_lengths(state["lengths"])
