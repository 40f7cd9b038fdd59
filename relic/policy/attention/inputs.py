"""The inputs of one pass of attention: the record that every backend takes.

A pass has queries of T steps and keys of sinks, of steps cached before them (the past), and of the
T steps. A query sees every sink, and of its own segment the newest `window` steps up to itself.

Shapes: N rows, H heads, T steps, D head dim, K sinks, P cached steps, J = K + P + T keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from relic.policy.attention.segments import Segments


class Sinks(NamedTuple):
    """Keys and values that every query sees."""

    key: Tensor
    """(H, K, D), or (N, H, K, D) where rows differ."""
    value: Tensor
    """As key."""

    def per_row(self, num_rows: int) -> Sinks:
        """Return views of shape (N, H, K, D)."""
        return Sinks(*(part.expand(num_rows, *part.shape[-3:]) for part in self))


class Past(NamedTuple):
    """Cached steps before the first query; constants."""

    key: Tensor
    """(N, H, P, D); row n fills its first slots, what lies beyond them is never read."""
    value: Tensor
    """As key."""


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """One pass of attention."""

    q: Tensor
    """Queries (N, H, T, D)."""
    k: Tensor
    """Keys of the same steps."""
    v: Tensor
    """Values of the same steps."""
    segments: Segments
    """Who sees whom."""
    sinks: Sinks | None = None
    """What every query sees; gradients reach it."""
    past: Past | None = None
    """Cached steps; the segments know how many of them each row has."""
    window: int | None = None
    """Newest steps that a query sees, itself included; None: all."""
    scale: float = 1.0
    """Factor of the scores."""

    @property
    def num_sinks(self) -> int:
        """K."""
        return 0 if self.sinks is None else self.sinks.key.shape[-2]

    def joined(self) -> tuple[Tensor, Tensor]:
        """Put sinks and past before the steps' own keys and values, each (N, H, J, D)."""
        keys, values = [self.k], [self.v]
        for before in (self.past, self.sinks and self.sinks.per_row(self.k.shape[0])):
            if before is not None:
                # In the steps' type: the cache may be kept in another one than the pass runs in.
                keys.insert(0, before.key.to(self.k.dtype))
                values.insert(0, before.value.to(self.v.dtype))
        # Nothing to join, so nothing to copy.
        if len(keys) == 1:
            return self.k, self.v
        return torch.cat(keys, dim=2), torch.cat(values, dim=2)


Backend = Callable[[AttentionInputs], Tensor]
"""Returns (N, H, T, D) in the dtype of q, with gradients to q, k, v and the sinks."""
