"""Weights on disk: safetensors in, safetensors out, with errors that name key, shape and file."""

from __future__ import annotations

import difflib
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from relic.files import CheckpointError, is_intact, parse_json, publish


def write_weights(path: Path, module: nn.Module) -> dict[str, int]:
    """Write a module's state as safetensors and return the checksum of each tensor."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary)
    publish(temporary, path)
    return {k: _checksum(v) for k, v in tensors.items()}


def read_weights(path: Path, checksums: Mapping[str, int] | None = None) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Args:
        path: The file.
        checksums: What `write_weights` returned for it.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, or holds other weights than those summed up.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: must hold the weights, found no file. Check the path.")
    with _reading(path):
        tensors = load_file(path)
    for key, wanted in (checksums or {}).items():
        if key in tensors and _checksum(tensors[key]) != wanted:
            raise CheckpointError(
                f"{path}: {key} {list(tensors[key].shape)} must have the checksum {wanted}, got "
                f"{_checksum(tensors[key])}. The file is damaged or of another checkpoint."
            )
    return tensors


def count_weights(path: Path) -> int:
    """Return how many numbers a safetensors file holds, by its header alone.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: must hold the weights, found no file. Check the path.")
    with _reading(path), safe_open(path, framework="pt") as file:
        return sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())


class SizeGuard(TorchFunctionMode):
    """While entered, refuses to make a module that is much larger than the weights for it.

    Shapes are compared later, one by one; this stops before memory is asked for.
    """

    def __init__(self, numbers: int, path: Path) -> None:
        """Allow what a module of so many numbers may take while it is made."""
        super().__init__()
        # Initialising makes arrays besides, and buffers are not all saved.
        self._left = 4 * numbers + 2**22
        self._told = f"{path}: holds {numbers} numbers"

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count the size that is asked for, then run the function."""
        kwargs = kwargs or {}
        size = kwargs.get("size", args[0] if args else ())
        size = size if isinstance(size, list | tuple) else args
        if size and all(type(n) is int for n in size):
            self._left -= math.prod(size) if func is not torch.arange else max(size)
        if self._left < 0:
            raise CheckpointError(
                f"{self._told}, many fewer than what its description asks for. The files are "
                "damaged or of two checkpoints."
            )
        return func(*args, **kwargs)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: must be a safetensors file, got a damaged one ({error}). Use another copy."
        ) from None


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into a module, all of them and nothing else.

    Raises:
        CheckpointError: On a missing, unknown, wrong-shaped or non-finite tensor.
    """
    wanted = module.state_dict()
    for key, own in wanted.items():
        if key not in tensors:
            raise CheckpointError(
                f"{path}: must hold {key} {list(own.shape)}, got no such key. "
                f"{_hint(key, set(tensors) - set(wanted))}"
            )
        shape = list(tensors[key].shape)
        if shape != list(own.shape):
            raise CheckpointError(
                f"{path}: {key} must have shape {list(own.shape)}, got {shape}. "
                "Use the configuration that the checkpoint was made with."
            )
        # A policy that has diverged would load well, and act badly without a word.
        if not torch.isfinite(tensors[key]).all():
            raise CheckpointError(
                f"{path}: {key} {shape} must be finite, got NaN or infinity. "
                "Use a checkpoint from before the run diverged."
            )
    for key in tensors:
        if key not in wanted:
            raise CheckpointError(
                f"{path}: holds {key} {list(tensors[key].shape)}, which the model lacks. "
                f"{_hint(key, set(wanted) - set(tensors))}"
            )
    module.load_state_dict(dict(tensors))


def read_json(path: Path, newest_format: int) -> dict[str, Any]:
    """Read a JSON file whose key `format` counts versions from 1.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, or of a later version than `newest_format`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: must describe the weights, found no file.")
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(
            f"{path}: must be JSON, got a damaged file ({error}). Use another copy."
        ) from None
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(
            f"{path}: 'format' must be a whole number from 1, got {version!r}. "
            "The file is damaged or of another program."
        )
    if version > newest_format:
        raise CheckpointError(
            f"{path}: 'format' must be at most {newest_format}, got {version}. "
            "Update this program; the checkpoint was written by a newer one."
        )
    if not is_intact(path, content):
        raise CheckpointError(
            f"{path}: must be as it was written, but its checksum is another. Use another copy; if "
            "you changed it by hand, delete its entry sha256."
        )
    return content


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn errors about what a file says into a `CheckpointError` that names the file."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(
            f"{path}: must hold the key {error}, got none. The file is damaged."
        ) from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _checksum(tensor: Tensor) -> int:
    # Tensors without a dimension or of a type that numpy lacks are summed byte by byte as well.
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(flat.numpy().data)


def _hint(key: str, others: set[str]) -> str:
    close = difflib.get_close_matches(key, sorted(others), n=1)
    tail = f" It has {close[0]!r} instead." if close else ""
    return f"Use the configuration that the checkpoint was made with.{tail}"
