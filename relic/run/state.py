"""State on disk: JSON for its tree, safetensors for its arrays, and checksums of their files.

State is a tree of dicts with string or integer keys, lists, None, booleans, numbers, strings, numpy
arrays and torch tensors. Neither format can execute code. Tuples come back as lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from relic.files import DamagedError, check_file, checksum, is_intact, parse_json, sync

CHECKSUMS_FILE = "checksums.json"
Checksums = Mapping[str, str]
"""Of files, by their names."""
_SUFFIXES = (".json", ".numpy.safetensors", ".torch.safetensors")
"""Of the files of a saved state."""
# Marks of what is no JSON. Tree and arrays are kept apart, and neither format can execute code.
_ARRAY = "__array__"
_TENSOR = "__tensor__"
_ITEMS = "__items__"


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
        sync(directory / f"{name}.numpy.safetensors")
    if tensors:
        save_torch(tensors, directory / f"{name}.torch.safetensors")
        sync(directory / f"{name}.torch.safetensors")
    path = directory / f"{name}.json"
    path.write_text(json.dumps(tree))
    sync(path)


def load_state(directory: Path, name: str, checksums: Checksums | None = None) -> Any:
    """Read what `save_state` wrote. Tensors come back on the CPU.

    Args:
        directory: Where it lies.
        name: What it was called.
        checksums: Of its files, among others; None: they are of an older version, which had none.

    Raises:
        DamagedError: If a file is missing or damaged; it names the file.
    """
    path = directory / f"{name}.json"
    tree = _read_json(path)
    if checksums is not None:
        for suffix in _SUFFIXES:
            check_file(directory / f"{name}{suffix}", checksums.get(f"{name}{suffix}"))
    arrays = _load(load_numpy, directory / f"{name}.numpy.safetensors")
    tensors = _load(load_torch, directory / f"{name}.torch.safetensors")
    try:
        return _unpack(tree, arrays, tensors)
    except KeyError as error:
        raise DamagedError(f"{path}: refers to the array {error}, which its files lack.") from None


def _read_json(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise DamagedError(
            f"{path}: must exist, found nothing. The checkpoint is incomplete."
        ) from None
    except ValueError as error:
        raise DamagedError(f"{path}: must be JSON, but it is damaged ({error}).") from None


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
        raise DamagedError(
            f"{path}: must be a safetensors file, but it is damaged ({error})."
        ) from None


def checksums_of(directory: Path, *names: str) -> dict[str, str]:
    """Return the checksums of the files of some states."""
    files = (directory / f"{name}{suffix}" for name in names for suffix in _SUFFIXES)
    return {file.name: checksum(file) for file in files if file.exists()}


def read_checksums(checkpoint: Path) -> dict[str, str] | None:
    """Return the checksums of a checkpoint's files; None for one of an older version.

    Raises:
        DamagedError: If they are damaged themselves.
    """
    path = checkpoint / CHECKSUMS_FILE
    if not path.exists():
        return None
    content = _read_json(path)
    if not isinstance(content, dict) or not is_intact(path, content):
        raise DamagedError(f"{path}: must be as it was written, but it is damaged.")
    return content["files"]
