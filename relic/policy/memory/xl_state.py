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
from relic.policy.memory.counted_state import CountedState
from relic.policy.memory.sequence_model import Rows, row_indices


class XLState(CountedState):
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
        super().__init__(num_rows, capacity, device)
        self.config = config
        # One slot more, for the step itself: what it held is out of reach, so a step that is only
        # looked at destroys nothing.
        self.slots = min(config.memory_steps, capacity) + 1
        heads = (config.num_heads, config.head_dim)
        with torch.inference_mode(False):
            shape = (config.num_layers, num_rows, self.slots, config.width)
            self.inputs_LNCE = torch.zeros(shape, device=device, dtype=dtype)
            kv_shape = (config.num_layers, 2, num_rows, self.slots, *heads)
            self.kv = torch.zeros(kv_shape, device=device, dtype=dtype)
        self.projected_by: object = None
        """What keys and values were made by; None: they do not fit the inputs."""

    def longest(self) -> int:
        """Return the steps of the longest trial."""
        return int(self.host_lengths.max(initial=0))

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
        self.note_steps(counts, rows)
        self.projected_by = None

    def reset(self, rows: Rows | None = None) -> None:
        """Empties rows; see `SequenceState.reset`."""
        index = row_indices(rows, self.num_rows)
        where = torch.from_numpy(index).to(self.lengths.device)
        self.inputs_LNCE[:, where] = 0
        self.kv[:, :, where] = 0
        self.forget(index)

    def select(self, rows: Rows) -> XLState:
        """Return a copy of chosen rows; see `SequenceState.select`."""
        index = row_indices(rows, self.num_rows)
        where = torch.from_numpy(index).to(self.lengths.device)
        chosen = self.with_rows(index)
        with torch.inference_mode(False):
            chosen.inputs_LNCE = self.inputs_LNCE[:, where]
            chosen.kv = self.kv[:, :, where]
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
        self.check_sizes(self.inputs_LNCE.shape, state["inputs"].shape, state["capacity"])
        self.inputs_LNCE.copy_(state["inputs"])
        self.kv.copy_(state["kv"])
        self.take_lengths(state["lengths"])
        self.projected_by = None
