"""Long passes in slices of steps, so that what a step needs is not held for all steps at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Columns = Mapping[str, Tensor]
"""Tensors (N, T, ...) by name."""


def in_slices(function: Callable[[Columns], Tensor], columns: Columns, size: int) -> Tensor:
    """Apply a function that treats steps one by one to slices of them.

    With gradient, what a slice computes inside is dropped and computed again in the backward pass.

    Args:
        function: From columns to a tensor (N, T, ...), whatever T is.
        columns: What it is given.
        size: Steps of a slice. Where there are no more, nothing is computed again.
    """
    steps = next(iter(columns.values())).shape[1]
    if steps <= size:
        return function(columns)
    parts = []
    for begin in range(0, steps, size):
        part = {name: column[:, begin : begin + size] for name, column in columns.items()}
        if torch.is_grad_enabled():
            parts.append(checkpoint(function, part, use_reentrant=False))
        else:
            parts.append(function(part))
    return torch.cat(parts, dim=1)
