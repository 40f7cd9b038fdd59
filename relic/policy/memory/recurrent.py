"""The memory of RL²: an LSTM or a GRU whose hidden state lives as long as the trial.

The state crosses episodes and is zero only where a trial begins. Whether the reward and the end of
an episode are seen is the encoder's business.

Shapes: N rows, T steps, L layers, E width, G parts of the state (two for an LSTM, one for a GRU).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from relic.policy.memory.config import RecurrentConfig
from relic.policy.memory.sequence_model import (
    Rows,
    SequenceModel,
    SequenceState,
    as_lengths,
    row_indices,
)


class RecurrentState(SequenceState):
    """Hidden state of each row; as large for a long trial as for a short one."""

    row_axes: ClassVar = {"hidden": 2}

    def __init__(self, hidden_GLNE: Tensor, lengths: Tensor):
        self.hidden_GLNE = hidden_GLNE
        """Hidden state, and for an LSTM the cell state after it."""
        self.lengths = lengths

    @property
    def num_rows(self) -> int:
        """Rows of the state."""
        return self.lengths.shape[0]

    def reset(self, rows: Rows | None = None) -> None:
        """Empties rows; see `SequenceState.reset`."""
        index = torch.from_numpy(row_indices(rows, self.num_rows)).to(self.lengths.device)
        self.hidden_GLNE[:, :, index] = 0
        self.lengths[index] = 0

    def snapshot(self) -> RecurrentState:
        """Return a copy; see `SequenceState.snapshot`."""
        with torch.inference_mode(False):
            return RecurrentState(self.hidden_GLNE.clone(), self.lengths.clone())

    def select(self, rows: Rows) -> RecurrentState:
        """Return chosen rows; see `SequenceState.select`."""
        index = torch.from_numpy(row_indices(rows, self.num_rows)).to(self.lengths.device)
        with torch.inference_mode(False):
            return RecurrentState(self.hidden_GLNE[:, :, index], self.lengths[index])

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on bit for bit."""
        return {"hidden": self.hidden_GLNE.clone(), "lengths": self.lengths.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: If it is of another shape.
        """
        if state["hidden"].shape != self.hidden_GLNE.shape:
            raise ValueError(
                "RecurrentState.load_state_dict: hidden must have shape "
                f"{tuple(self.hidden_GLNE.shape)}, got {tuple(state['hidden'].shape)}. Make the "
                "state with the saved sizes."
            )
        self.hidden_GLNE.copy_(state["hidden"])
        self.lengths.copy_(state["lengths"])


class Recurrent(SequenceModel):
    """Stacked recurrent layers; `LSTM` and `GRU` say of which kind."""

    Config = RecurrentConfig
    cell: ClassVar[type[nn.RNNBase]]
    parts: ClassVar[int]
    """Tensors that a layer's state is made of."""

    def __init__(self, config: RecurrentConfig, *, max_episode_steps: int):
        super().__init__(config, max_episode_steps=max_episode_steps)
        self.config = config
        self.width = config.width
        make: Any = self.cell
        self.cells = make(config.width, config.width, config.num_layers, batch_first=True)

    def forward(
        self,
        x_NTE: Tensor,
        episode_starts_NT: Tensor,
        state: SequenceState | None = None,
        *,
        depth_mask_NL: Tensor | None = None,
    ) -> Tensor:
        """Read all steps at once; episode starts leave the memory as it is."""
        del episode_starts_NT, depth_mask_NL
        return self._run(x_NTE, None if state is None else _as_recurrent(state).hidden_GLNE)[0]

    @torch.no_grad()
    def step(
        self, x_NE: Tensor, episode_starts_N: Tensor, state: SequenceState, write: bool = True
    ) -> Tensor:
        """Read the next step of every row; see `SequenceModel.step`."""
        del episode_starts_N
        own = _as_recurrent(state)
        y_N1E, hidden = self._run(x_NE.unsqueeze(1), own.hidden_GLNE)
        if write:
            own.hidden_GLNE.copy_(hidden)
            own.lengths += 1
        return y_N1E.squeeze(1)

    @torch.no_grad()
    def prefill(
        self,
        x_NTE: Tensor,
        episode_starts_NT: Tensor,
        state: SequenceState,
        rows: Rows | None = None,
        lengths: Sequence[int] | np.ndarray | Tensor | None = None,
    ) -> Tensor:
        """Append many steps to chosen rows; see `SequenceModel.prefill`."""
        del episode_starts_NT
        own = _as_recurrent(state)
        index = row_indices(rows, own.num_rows)
        counts = as_lengths(lengths, len(index), x_NTE.shape[1])
        y_NTE = torch.zeros_like(x_NTE)
        # Rows of one length go together, since padding would run through their states.
        for count in np.unique(counts[counts > 0]).tolist():
            chosen = torch.from_numpy(np.flatnonzero(counts == count)).to(x_NTE.device)
            where = torch.from_numpy(index[counts == count]).to(own.lengths.device)
            y, hidden = self._run(x_NTE[chosen, :count], own.hidden_GLNE[:, :, where])
            y_NTE[chosen, :count] = y.to(y_NTE.dtype)
            own.hidden_GLNE[:, :, where] = hidden.to(own.hidden_GLNE.dtype)
            own.lengths[where] += count
        return y_NTE

    def initial_state(
        self,
        num_rows: int,
        capacity: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> RecurrentState:
        """Return zeros; the capacity does not matter to a recurrent memory."""
        del capacity
        weight = self.cells.weight_hh_l0
        shape = (self.parts, self.config.num_layers, num_rows, self.width)
        with torch.inference_mode(False):
            return RecurrentState(
                torch.zeros(shape, device=device or weight.device, dtype=dtype or weight.dtype),
                torch.zeros(num_rows, dtype=torch.long, device=device or weight.device),
            )

    def bytes_per_row(self, steps: int, dtype: torch.dtype = torch.float32) -> int:
        """Return parts x layers x width x bytes of a number, whatever the steps."""
        del steps
        return self.parts * self.config.num_layers * self.width * dtype.itemsize

    def _run(self, x_NTE: Tensor, hidden_GLNE: Tensor | None) -> tuple[Tensor, Tensor]:
        if hidden_GLNE is None:
            y_NTE, hidden = self.cells(x_NTE)
        else:
            # On CUDA the cells refuse states that are views with gaps.
            parts = [part.contiguous() for part in hidden_GLNE.to(x_NTE.dtype)]
            y_NTE, hidden = self.cells(x_NTE, tuple(parts) if self.parts > 1 else parts[0])
        return y_NTE, torch.stack(hidden if self.parts > 1 else (hidden,))


class LSTM(Recurrent):
    """Remembers a hidden and a cell state in each layer."""

    cell = nn.LSTM
    parts = 2


class GRU(Recurrent):
    """Remembers a hidden state in each layer."""

    cell = nn.GRU
    parts = 1


def _as_recurrent(state: SequenceState) -> RecurrentState:
    if not isinstance(state, RecurrentState):
        raise TypeError(
            f"Recurrent: state must be a RecurrentState, got {type(state).__name__}. Take it from "
            "initial_state of the same model."
        )
    return state
