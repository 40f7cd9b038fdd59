"""What states share that have room for so many steps, and whose lengths the host counts.

Reading a length from the device would wait for it, at every step. So the host keeps a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from relic.policy.memory.sequence_model import ContextOverflowError, SequenceState


class CountedState(SequenceState):
    """A state with a capacity.

    Args:
        num_rows: Rows N.
        capacity: Steps that a trial may have.
        device: Where the state lives.

    Raises:
        ValueError: If there are no rows, or no steps fit.
    """

    def __init__(self, num_rows: int, capacity: int, device: torch.device):
        if num_rows < 1 or capacity < 1:
            raise ValueError(
                f"initial_state: num_rows and capacity must be at least 1, got {num_rows} and "
                f"{capacity}. Pass the rows of the environment and the steps of a trial."
            )
        self.capacity = capacity
        with torch.inference_mode(False):
            self.lengths = torch.zeros(num_rows, dtype=torch.long, device=device)
        self.host_lengths = np.zeros(num_rows, np.int64)
        """`lengths` as the host knows them without asking the device."""

    @property
    def num_rows(self) -> int:
        """Rows of the state."""
        return len(self.host_lengths)

    def make_room(
        self, more: int | np.ndarray, rows: np.ndarray | None = None, look: int = 0
    ) -> None:
        """Check that steps fit; see `SequenceState.make_room`."""
        wanted = (self.host_lengths if rows is None else self.host_lengths[rows]) + more
        if wanted.max(initial=0) > self.capacity + look:
            worst = int(wanted.argmax())
            row = worst if rows is None else int(rows[worst])
            raise ContextOverflowError(
                f"{type(self).__name__}: a trial must have at most capacity={self.capacity} steps, "
                f"got step {int(wanted[worst])} in row {row}. Reset the row, or ask for more in "
                "initial_state."
            )

    def note_steps(self, more: int | np.ndarray, rows: np.ndarray | None = None) -> None:
        """Advances the lengths of chosen rows, None: of all."""
        self.host_lengths[slice(None) if rows is None else rows] += more
        self.lengths.copy_(torch.from_numpy(self.host_lengths))

    def forget(self, rows: np.ndarray) -> None:
        """Sets the lengths of chosen rows to zero."""
        self.note_steps(-self.host_lengths[rows], rows)

    def check_sizes(self, own: Sequence[int], got: Sequence[int], capacity: int) -> None:
        """Refuse a saved state of another shape or capacity.

        Raises:
            ValueError: If they are others.
        """
        if (*got, capacity) != (*own, self.capacity):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: shape and capacity must be {tuple(own)} "
                f"and {self.capacity}, got {tuple(got)} and {capacity}. Make the state with the "
                "saved sizes."
            )

    def take_lengths(self, lengths_N: Tensor) -> None:
        """Set all lengths."""
        self.lengths.copy_(lengths_N)
        self.host_lengths = lengths_N.cpu().numpy().copy()

    def with_rows(self, rows: np.ndarray) -> Self:
        """Return a state with copies of chosen rows' lengths, and all else in common."""
        chosen: Any = object.__new__(type(self))
        vars(chosen).update(vars(self))
        with torch.inference_mode(False):
            chosen.lengths = self.lengths[torch.from_numpy(rows).to(self.lengths.device)]
        chosen.host_lengths = self.host_lengths[rows]
        return chosen
