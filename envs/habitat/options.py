"""Options of the Habitat environment: their checks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import numpy as np

from envs.errors import unknown_name

WHERE = "Habitat"
"""What messages call the environment."""

_Choice = TypeVar("_Choice", bound=StrEnum)


def parse_choice(name: str, value: str, choices: type[_Choice]) -> _Choice:
    """Return a choice by its name."""
    if value not in list(choices):
        raise unknown_name(f"{WHERE}.{name}", "it", value, [str(c.value) for c in choices])
    return choices(value)


def parse_path(name: str, value: str | Path | None, instead: str) -> Path:
    """Return the path of a file that must be named.

    Args:
        name: of the option.
        value: what was given.
        instead: what to do if nothing was.
    """
    if value is None or value == "":
        raise ValueError(f"{WHERE}.{name}: must name a file, got none. {instead}")
    if not isinstance(value, str | Path):
        raise TypeError(f"{WHERE}.{name}: must be a path, got {value!r}.")
    return Path(value).expanduser().absolute()


def parse_gpus(gpus: Sequence[int]) -> tuple[int, ...]:
    """Return the devices that rows draw on, in turn."""
    numbers = tuple(gpus) if isinstance(gpus, Iterable) and not isinstance(gpus, str) else ()
    good = numbers and all(
        isinstance(g, int | np.integer) and not isinstance(g, bool) and g >= -1 for g in numbers
    )
    if not good:
        raise ValueError(
            f"{WHERE}.gpus: must be a list of CUDA devices that draw, got {gpus!r}. Use [0], or "
            "[-1] for the first device of EGL, which may be the CPU."
        )
    return tuple(int(g) for g in numbers)


def parse_spacing(spacing: float) -> float:
    """Return the spacing of the grid that viewpoints are looked for on, in metres."""
    good = isinstance(spacing, int | float) and not isinstance(spacing, bool)
    if not (good and math.isfinite(spacing) and 0.05 <= spacing <= 1.0):
        raise ValueError(
            f"{WHERE}.viewpoint_spacing: must lie in [0.05, 1] metres, got {spacing!r}."
        )
    return float(spacing)


def cache_directory(cache: str | Path | None) -> Path:
    """Return where viewpoints and computed navmeshes are kept."""
    if cache is not None:
        return Path(cache).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "relic" / "habitat"
