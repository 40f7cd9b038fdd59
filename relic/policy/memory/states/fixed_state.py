"""What memories share whose state has one size, however long the trial.

Such a memory says what a row's state is made of and how steps change it. All else follows: acting,
learning, filling the state anew, choosing rows, saving.

Shapes: N rows, T steps, E width.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relic.policy.memory.sequence_model import (
    Rows,
    SequenceModel,
    SequenceState,
    check_rows,
    row_indices,
)

Parts = dict[str, Tensor]
"""What rows remember, by name; rows lie along the first axis."""


class FixedState(SequenceState):
    """What each row remembers: named tensors, all zero where a trial begins."""

    def __init__(self, parts: Parts, lengths: Tensor):
        self.parts = parts
        """By name; rows lie along the first axis."""
        self.lengths = lengths

    @property
    def num_rows(self) -> int:
        """Rows of the state."""
        return self.lengths.shape[0]

    def reset(self, rows: Rows | None = None) -> None:
        """Empties rows; see `SequenceState.reset`."""
        index = self._index(rows)
        for part in (*self.parts.values(), self.lengths):
            part[index] = 0

    def select(self, rows: Rows) -> FixedState:
        """Return a copy of chosen rows; see `SequenceState.select`."""
        index = self._index(rows)
        # Acting runs in inference mode, whose tensors learning could not read.
        with torch.inference_mode(False):
            return FixedState({k: v[index] for k, v in self.parts.items()}, self.lengths[index])

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on bit for bit."""
        return {k: v.clone() for k, v in self.parts.items()} | {"lengths": self.lengths.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: If it has other parts, or they are of other shapes.
        """
        own = self.parts | {"lengths": self.lengths}
        shapes, got = ({k: tuple(v.shape) for k, v in d.items()} for d in (own, state))
        if shapes != got:
            raise ValueError(
                f"FixedState.load_state_dict: shapes must be {shapes}, got {got}. Make the state "
                "with the saved sizes."
            )
        for name, part in own.items():
            part.copy_(state[name])

    def _index(self, rows: Rows | None) -> Tensor:
        return torch.from_numpy(row_indices(rows, self.num_rows)).to(self.lengths.device)


class FixedStateModel(SequenceModel):
    """A memory whose state has one size. A subclass has `width`, `shapes` and `read`."""

    shapes: Mapping[str, tuple[int, ...]]
    """The parts of one row's state, by name, and their shapes."""

    @abstractmethod
    def read(
        self, x_NTE: Tensor, episode_starts_NT: Tensor, parts: Parts
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Read steps of rows; called for learning, acting (T = 1) and filling alike.

        Args:
            x_NTE: Tokens, none of them padding.
            episode_starts_NT: Where episodes begin.
            parts: What the rows remember; not to be written.

        Returns:
            Tokens (N, T, E), and what the rows remember after the last step.
        """

    def forward(
        self,
        x_NTE: Tensor,
        episode_starts_NT: Tensor,
        state: SequenceState | None = None,
        *,
        depth_mask_NL: Tensor | None = None,
    ) -> Tensor:
        """Read all steps at once; see `SequenceModel.forward`."""
        del depth_mask_NL
        own = self.initial_state(len(x_NTE), 0) if state is None else self._own(state)
        check_rows(self, own, x_NTE)
        return self.read(x_NTE, episode_starts_NT, own.parts)[0]

    @torch.no_grad()
    def step(
        self, x_NE: Tensor, episode_starts_N: Tensor, state: SequenceState, write: bool = True
    ) -> Tensor:
        """Read the next step of every row; see `SequenceModel.step`."""
        own = self._own(state)
        y_N1E, after = self.read(x_NE.unsqueeze(1), episode_starts_N.unsqueeze(1), own.parts)
        if write:
            self._check_parts(after, own.parts)
            for name, part in after.items():
                own.parts[name].copy_(part)
            own.lengths += 1
        return y_N1E.squeeze(1)

    def append(
        self,
        x_NTE: Tensor,
        episode_starts_NT: Tensor,
        state: SequenceState,
        rows: np.ndarray,
        counts: np.ndarray,
    ) -> Tensor:
        """Append many steps to chosen rows; see `SequenceModel.append`."""
        own = self._own(state)
        y_NTE = torch.zeros_like(x_NTE)
        # Rows of one length go together, since padding would run through their states.
        for count in np.unique(counts[counts > 0]).tolist():
            chosen = torch.from_numpy(np.flatnonzero(counts == count)).to(x_NTE.device)
            where = torch.from_numpy(rows[counts == count]).to(own.lengths.device)
            parts = {k: v[where] for k, v in own.parts.items()}
            y, after = self.read(x_NTE[chosen, :count], episode_starts_NT[chosen, :count], parts)
            self._check_parts(after, parts)
            y_NTE[chosen, :count] = y.to(y_NTE.dtype)
            for name, part in after.items():
                own.parts[name][where] = part.to(own.parts[name].dtype)
            own.lengths[where] += count
        return y_NTE

    def _check_parts(self, after: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
        """Refuse what would be kept in part only, or spread over all rows."""
        shapes, wanted = ({k: tuple(v.shape) for k, v in p.items()} for p in (after, before))
        if shapes != wanted:
            raise ValueError(
                f"{type(self).__name__}.read: must return all parts of the state in the shapes "
                f"{wanted}, got {shapes}. Return what `shapes` names, with a row for each row."
            )

    def initial_state(
        self,
        num_rows: int,
        capacity: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> FixedState:
        """Return zeros; the capacity does not matter to a state of one size."""
        del capacity
        weight = next(self.parameters())
        device, dtype = device or weight.device, dtype or weight.dtype
        with torch.inference_mode(False):
            parts = {
                name: torch.zeros((num_rows, *shape), device=device, dtype=dtype)
                for name, shape in self.shapes.items()
            }
            return FixedState(parts, torch.zeros(num_rows, dtype=torch.long, device=device))

    def bytes_per_row(self, steps: int, dtype: torch.dtype = torch.float32) -> int:
        """Return the bytes of all parts, whatever the steps."""
        del steps
        return sum(math.prod(shape) for shape in self.shapes.values()) * dtype.itemsize

    def _own(self, state: SequenceState) -> FixedState:
        if not isinstance(state, FixedState) or state.parts.keys() != self.shapes.keys():
            raise TypeError(
                f"{type(self).__name__}: state must be a FixedState with {', '.join(self.shapes)}, "
                f"got {type(state).__name__}. Take it from initial_state of the same model."
            )
        return state
