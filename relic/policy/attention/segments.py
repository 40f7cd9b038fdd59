"""Segments: which steps of a pass may see each other and the steps cached before them.

Shapes: N rows, T steps, K sinks, P cached steps, J = K + P + T keys.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


class Segments:
    """Which steps of one pass may see each other; built once, used by every layer.

    Args:
        num_rows: N.
        num_steps: T.
        starts_NT: bool, where a segment begins; None: each row is one segment. Without a past,
            every row's first step begins one.
        past_steps: Per row, how many steps the segment that runs on from the past has so far.
        past_slots: Slots of the past. A row with more steps than slots holds its newest ones, step
            i in slot i % past_slots.
    """

    def __init__(
        self,
        num_rows: int,
        num_steps: int,
        *,
        starts_NT: Tensor | None = None,
        past_steps: np.ndarray | None = None,
        past_slots: int = 0,
        device: torch.device | str = "cpu",
    ):
        self.num_rows = num_rows
        self.num_steps = num_steps
        self.device = torch.device(device)
        self.past_slots = past_slots
        self.past_steps: np.ndarray = (
            np.zeros(num_rows, np.int64) if past_steps is None else past_steps
        )
        self.starts_NT = self._inner_starts(starts_NT)
        self._made: dict[Any, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what a backend works out for all layers, such as a block mask, made once."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _inner_starts(self, starts_NT: Tensor | None) -> Tensor | None:
        """Return the starts, or None if they divide nothing."""
        if starts_NT is None:
            return None
        starts_NT = starts_NT.bool()
        # A start where nothing came before divides nothing. Without it, rows whose only start is
        # their first step take the fast backends, which know no segments.
        begins_anew = torch.from_numpy(self.past_steps == 0).to(starts_NT.device)
        starts_NT = torch.cat([starts_NT[:, :1] & ~begins_anew[:, None], starts_NT[:, 1:]], dim=1)
        return starts_NT if bool(starts_NT.any()) else None

    @property
    def past_counts(self) -> np.ndarray:
        """Filled slots of each row's past."""
        return np.minimum(self.past_steps, self.past_slots)

    @property
    def has_past(self) -> bool:
        """Whether any row has cached steps."""
        return bool(self.past_steps.any())

    @cached_property
    def segment_NT(self) -> Tensor:
        """Number of the segment of each step; 0 is the one that runs on from the past."""
        if self.starts_NT is None:
            return torch.zeros(self.num_rows, self.num_steps, dtype=torch.long, device=self.device)
        return self.starts_NT.cumsum(1)

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """First step of each segment in the flattened (N * T) order, and the segment's length."""
        total = self.num_rows * self.num_steps
        starts = np.zeros((self.num_rows, self.num_steps), bool)
        if self.starts_NT is not None:
            starts |= self.starts_NT.cpu().numpy()
        starts[:, 0] = True
        first = np.flatnonzero(starts.reshape(-1))
        return first, np.diff(first, append=total)

    def places(self, num_sinks: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return segment and place in time of every query and every key.

        Returns:
            (query_segment_NT, query_place_NT, key_segment_NJ, key_place_NJ). Sinks are in segment
            -1, empty slots of the past in segment -2.
        """
        device = self.device
        steps_N = torch.as_tensor(self.past_steps, device=device)
        query_place_NT = steps_N[:, None] + torch.arange(self.num_steps, device=device)
        slot_P = torch.arange(self.past_slots, device=device)
        last_N1 = steps_N[:, None] - 1
        # Slots are a ring: step i went to slot i modulo P. So what a slot holds now is the newest
        # step that is congruent to it, at most the last one.
        past_place_NP = last_N1 - (last_N1 - slot_P) % max(self.past_slots, 1)
        past_segment_NP = torch.where(slot_P < steps_N[:, None], 0, -2)
        sink_NK = torch.full((self.num_rows, num_sinks), -1, device=device)
        key_segment_NJ = torch.cat([sink_NK, past_segment_NP, self.segment_NT], dim=1)
        key_place_NJ = torch.cat([torch.zeros_like(sink_NK), past_place_NP, query_place_NT], dim=1)
        return self.segment_NT, query_place_NT, key_segment_NJ, key_place_NJ

    def mask(
        self,
        num_sinks: int,
        window: int | None,
        rows: slice = slice(None),
        steps: slice = slice(None),
    ) -> Tensor:
        """Return which key each query sees, bool (rows, steps, J); for those who need it whole."""
        query_segment, query_place, key_segment, key_place = (
            a[rows] for a in self.places(num_sinks)
        )
        query_segment, query_place = query_segment[:, steps], query_place[:, steps]
        ahead = query_place[:, :, None] - key_place[:, None, :]
        seen = (query_segment[:, :, None] == key_segment[:, None, :]) & (ahead >= 0)
        if window is not None:
            seen &= ahead < window
        return seen | (key_segment[:, None, :] == -1)
