"""Nested state on disk: JSON for the tree, safetensors for arrays; neither can execute code.

A state is made of dicts with string or integer keys, lists, tuples, None, booleans, numbers,
strings, numpy arrays and torch tensors. Tuples come back as lists.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

_ARRAY = "__array__"
_TENSOR = "__tensor__"
_ITEMS = "__items__"


class StateError(ValueError):
    """A saved state that cannot be read back."""


def save_state(directory: Path, name: str, state: Any) -> None:
    """Write `state` as `name`.json and, where it holds any, `name`.{numpy,torch}.safetensors.

    Every file is flushed to disk before this returns, so that a later rename publishes it whole.

    Raises:
        TypeError: If the state holds something else than the types above.
    """
    arrays: dict[str, np.ndarray] = {}
    tensors: dict[str, torch.Tensor] = {}
    tree = _pack(state, name, arrays, tensors)
    directory.mkdir(parents=True, exist_ok=True)
    if arrays:
        save_numpy(arrays, directory / f"{name}.numpy.safetensors")
        _sync(directory / f"{name}.numpy.safetensors")
    if tensors:
        save_torch(tensors, directory / f"{name}.torch.safetensors")
        _sync(directory / f"{name}.torch.safetensors")
    path = directory / f"{name}.json"
    path.write_text(json.dumps(tree))
    _sync(path)


def load_state(directory: Path, name: str) -> Any:
    """Read what `save_state` wrote. Tensors come back on the CPU.

    Raises:
        StateError: If a file is missing or damaged; it names the file.
    """
    path = directory / f"{name}.json"
    try:
        tree = json.loads(path.read_text())
    except FileNotFoundError:
        raise StateError(
            f"{path}: must exist, found nothing. The checkpoint is incomplete."
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StateError(f"{path}: must be JSON, but it is damaged ({error}).") from None
    arrays = _load(load_numpy, directory / f"{name}.numpy.safetensors")
    tensors = _load(load_torch, directory / f"{name}.torch.safetensors")
    try:
        return _unpack(tree, arrays, tensors)
    except KeyError as error:
        raise StateError(f"{path}: refers to the array {error}, which its files lack.") from None


def _pack(
    value: Any, key: str, arrays: dict[str, np.ndarray], tensors: dict[str, torch.Tensor]
) -> Any:
    if isinstance(value, dict):
        packed = {k: _pack(v, f"{key}.{k}", arrays, tensors) for k, v in value.items()}
        if all(isinstance(k, str) for k in value):
            return packed
        # Optimisers number their parameters; JSON would turn the numbers into text.
        if all(isinstance(k, int) for k in value):
            return {_ITEMS: [[k, v] for k, v in packed.items()]}
        raise TypeError(f"{key}: keys must be all text or all integers, got {list(value)!r}.")
    if isinstance(value, list | tuple):
        return [_pack(v, f"{key}.{i}", arrays, tensors) for i, v in enumerate(value)]
    if isinstance(value, np.ndarray):
        # safetensors has no zero-dimensional numpy arrays; the shape restores them.
        arrays[key] = np.ascontiguousarray(value).reshape(-1)
        return {_ARRAY: key, "shape": list(value.shape)}
    if isinstance(value, torch.Tensor):
        # A clone, as safetensors refuses tensors that share memory.
        tensors[key] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: key}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{key}: a state must hold plain data and arrays only, got {type(value)}.")


def _unpack(tree: Any, arrays: dict[str, np.ndarray], tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(tree, list):
        return [_unpack(v, arrays, tensors) for v in tree]
    if not isinstance(tree, dict):
        return tree
    if _ITEMS in tree:
        return {k: _unpack(v, arrays, tensors) for k, v in tree[_ITEMS]}
    if _ARRAY in tree:
        return arrays[tree[_ARRAY]].reshape(tree["shape"])
    if _TENSOR in tree:
        return tensors[tree[_TENSOR]]
    return {k: _unpack(v, arrays, tensors) for k, v in tree.items()}


def _load(loader: Any, path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return loader(path)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise StateError(
            f"{path}: must be a safetensors file, but it is damaged ({error})."
        ) from None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
