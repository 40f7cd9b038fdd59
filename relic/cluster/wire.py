"""State on its way between actors: tensors travel as numpy arrays, which Ray shares in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shipped:
    """A tensor on its way."""

    array: np.ndarray[Any, Any]


def pack(state: Any) -> Any:
    """Return nested state ready to be sent; types that numpy lacks stay tensors."""
    return _map(state, _ship)


def unpack(state: Any) -> Any:
    """Return what was packed, with memory of its own: arrays that Ray hands out are read-only."""
    return _map(state, _receive)


def _ship(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    host = leaf.detach().cpu()
    return host if host.dtype is torch.bfloat16 else Shipped(host.numpy())


def _receive(leaf: Any) -> Any:
    if isinstance(leaf, Shipped):
        return torch.from_numpy(leaf.array.copy())
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _map(state: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(state, dict):
        return {key: _map(value, change) for key, value in state.items()}
    if isinstance(state, list):
        return [_map(value, change) for value in state]
    return change(state)
