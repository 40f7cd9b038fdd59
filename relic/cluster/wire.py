"""State on its way between actors: tensors travel as numpy arrays, which Ray shares in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def pack(state: Any) -> Any:
    """Return nested state with numpy arrays for tensors, but for types that numpy lacks."""
    return _map(state, _to_numpy)


def unpack(state: Any) -> Any:
    """Return nested state with arrays of its own; those that Ray hands out are read-only."""
    return _map(state, lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf)


def _to_numpy(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    host = leaf.detach().cpu()
    return host if host.dtype is torch.bfloat16 else host.numpy()


def _map(state: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(state, dict):
        return {key: _map(value, change) for key, value in state.items()}
    if isinstance(state, list):
        return [_map(value, change) for value in state]
    return change(state)
