"""Gymnasium spaces as JSON: Dict, Box, Discrete, MultiDiscrete and MultiBinary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """Return a space as plain data.

    Raises:
        TypeError: If there is no rule for its kind.
    """
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {k: space_to_json(s) for k, s in space.spaces.items()}}
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "low": _bound_to_json(space.low),
            "high": _bound_to_json(space.high),
            "shape": list(space.shape),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.Discrete):
        return {
            "type": "Discrete",
            "n": int(space.n),
            "start": int(space.start),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "n": np.asarray(space.n).tolist()}
    raise TypeError(
        f"space: must be Dict, Box, Discrete, MultiDiscrete or MultiBinary, got {space}. "
        "Leave it out of the observations."
    )


def space_from_json(data: Mapping[str, Any]) -> spaces.Space:
    """Return the space that `space_to_json` wrote.

    Raises:
        KeyError: If an entry is missing.
        ValueError: If the kind is unknown.
    """
    kind = data["type"]
    if kind == "Dict":
        # Pairs keep their order, a plain dict would be sorted.
        return spaces.Dict([(k, space_from_json(s)) for k, s in data["spaces"].items()])
    if kind == "Box":
        shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
        low = _bound_from_json(data["low"], shape, dtype)
        high = _bound_from_json(data["high"], shape, dtype)
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        dtype = np.dtype(data["dtype"]).type
        return spaces.Discrete(data["n"], start=data["start"], dtype=dtype)
    if kind == "MultiDiscrete":
        dtype = np.dtype(data["dtype"]).type
        return spaces.MultiDiscrete(np.array(data["nvec"]), dtype=dtype, start=data["start"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    raise ValueError(
        f"space: type must be Dict, Box, Discrete, MultiDiscrete or MultiBinary, got {kind!r}. "
        "The file is damaged."
    )


def _bound_to_json(bound: np.ndarray) -> Any:
    # Pictures have thousands of equal bounds; JSON has no infinity.
    if bound.size and (bound == bound.flat[0]).all():
        return _number_to_json(bound.flat[0])
    return [_number_to_json(v) for v in bound.reshape(-1)]


def _number_to_json(value: np.generic) -> float | int | str:
    number = value.item()
    return number if np.isfinite(number) else str(number)


def _bound_from_json(bound: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if isinstance(bound, list):
        return np.array([_number_from_json(v) for v in bound], dtype).reshape(shape)
    return np.full(shape, _number_from_json(bound), dtype)


def _number_from_json(value: float | int | str) -> float | int:
    return float(value) if isinstance(value, str) else value
