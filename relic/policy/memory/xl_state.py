"""The state of Transformer-XL: a ring of layer inputs, and their keys and values.

Step i of a trial is in slot i modulo C. Inputs are the memory; keys and values are only what the
current weights make of them, kept so that a step need not project them again.

Shapes: N rows, L layers, E width, H heads, D head dim, M memory steps, C slots, P = C - 1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from relic.policy.memory.config import TransformerXLConfig
from relic.policy.memory.sequence_model import (
    ContextOverflowError,
    Rows,
    SequenceState,
    check_sizes,
    row_indices,
)


class XLState(SequenceState):
    """Inputs of all layers at the newest steps of each row.

    Args:
        config: Of the model.
        num_rows: N.
        capacity: Steps that a trial may have.
        device: Where the memory lives.
        dtype: Of what is remembered.
    """

    row_axes: ClassVar = {"inputs": 1, "kv": 2}

    def __init__(
        self,
        config: TransformerXLConfig,
        num_rows: int,
        capacity: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.config = config
        self.capacity = capacity
        # One slot more, for the step itself: what it held is out of reach, so a step that is only
        # looked at destroys nothing.
        self.slots = min(config.memory_steps, capacity) + 1
        heads = (config.num_heads, config.head_dim)
        with torch.inference_mode(False):
            shape = (config.num_layers, num_rows, self.slots, config.width)
            self.inputs_LNCE = torch.zeros(shape, device=device, dtype=dtype)
            kv_shape = (config.num_layers, 2, num_rows, self.slots, *heads)
            self.kv = torch.zeros(kv_shape, device=device, dtype=dtype)
            self.lengths = torch.zeros(num_rows, dtype=torch.long, device=device)
        self.projected_by: object = None
        """What keys and values were made by; None: they do not fit the inputs."""
        self._host_lengths = np.zeros(num_rows, np.int64)

    @property
    def num_rows(self) -> int:
        """Rows of the state."""
        return len(self._host_lengths)

    def longest(self) -> int:
        """Return the steps of the longest trial."""
        return int(self._host_lengths.max(initial=0))

    def make_room(
        self, more: int | np.ndarray, rows: np.ndarray | None = None, look: int = 0
    ) -> None:
        """Check that steps fit before anything is written; as `KVCache.make_room`.

        Raises:
            ContextOverflowError: If a trial would have more steps than the capacity.
        """
        wanted = self._host_lengths[slice(None) if rows is None else rows] + more
        if (wanted > self.capacity + look).any():
            raise ContextOverflowError(
                f"XLState: a trial must have at most capacity={self.capacity} steps, got step "
                f"{int(wanted.max())}. Reset the row, or ask for more in initial_state."
            )

    def note_steps(self, more: int) -> None:
        """Advances the lengths of all rows."""
        self.lengths += more
        self._host_lengths += more

    def next_slot(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next step's slot (N,), each slot's distance from it, and which it sees."""
        slot_C = torch.arange(self.slots, device=self.lengths.device)
        distance_NC = (self.lengths[:, None] - slot_C) % self.slots
        return self.lengths % self.slots, distance_NC, distance_NC <= self.lengths[:, None]

    def in_order(self) -> tuple[Tensor, Tensor]:
        """Return the newest P inputs in order of time, (L, N, P, E), and which are steps (N, P)."""
        back_P = torch.arange(-(self.slots - 1), 0, device=self.lengths.device)
        step_NP = self.lengths[:, None] + back_P
        index_NP = step_NP % self.slots
        rows_N1 = torch.arange(self.num_rows, device=self.lengths.device)[:, None]
        return self.inputs_LNCE[:, rows_N1, index_NP], step_NP >= 0

    def append(self, inputs_LNTE: Tensor, rows: np.ndarray, counts: np.ndarray) -> None:
        """Write the inputs of many steps into chosen rows; advances their lengths."""
        device = self.lengths.device
        row_N, count_N = (torch.from_numpy(x).to(device) for x in (rows, counts))
        step_T = torch.arange(inputs_LNTE.shape[2], device=device)
        # Of many steps only the newest fit. Writing one slot twice at once would leave either of
        # them.
        kept = (step_T < count_N[:, None]) & (step_T >= count_N[:, None] - self.slots)
        n, t = kept.nonzero(as_tuple=True)
        slot = (self.lengths[row_N[n]] + t) % self.slots
        self.inputs_LNCE[:, row_N[n], slot] = inputs_LNTE[:, n, t].to(self.inputs_LNCE.dtype)
        self.lengths[row_N] += count_N
        self._host_lengths[rows] += counts
        self.projected_by = None

    def reset(self, rows: Rows | None = None) -> None:
        """Empties rows; see `SequenceState.reset`."""
        index = row_indices(rows, self.num_rows)
        where = torch.from_numpy(index).to(self.lengths.device)
        self.inputs_LNCE[:, where] = 0
        self.kv[:, :, where] = 0
        self.lengths[where] = 0
        self._host_lengths[index] = 0

    def snapshot(self) -> XLState:
        """Return a copy; see `SequenceState.snapshot`."""
        return self.select(np.arange(self.num_rows))

    def select(self, rows: Rows) -> XLState:
        """Return a copy of chosen rows; see `SequenceState.select`."""
        index = row_indices(rows, self.num_rows)
        where = torch.from_numpy(index).to(self.lengths.device)
        chosen = object.__new__(XLState)
        vars(chosen).update(vars(self))
        with torch.inference_mode(False):
            chosen.inputs_LNCE = self.inputs_LNCE[:, where]
            chosen.kv = self.kv[:, :, where]
            chosen.lengths = self.lengths[where]
        chosen._host_lengths = self._host_lengths[index]
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on bit for bit."""
        return {
            "inputs": self.inputs_LNCE.clone(),
            "kv": self.kv.clone(),
            "lengths": self.lengths.clone(),
            "capacity": self.capacity,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: If it is of another shape.
        """
        got = (tuple(state["inputs"].shape), state["capacity"])
        own = (tuple(self.inputs_LNCE.shape), self.capacity)
        check_sizes(self, own, got)
        self.inputs_LNCE.copy_(state["inputs"])
        self.kv.copy_(state["kv"])
        self.lengths.copy_(state["lengths"])
        self._host_lengths = state["lengths"].cpu().numpy().copy()
        self.projected_by = None
