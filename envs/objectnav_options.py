"""Options that the environments of ExtObjNav share: their checks, and the space that follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from gymnasium import spaces

from envs.errors import unknown_name
from envs.houses.scene import GOAL_CATEGORIES, GOAL_SEMANTIC
from envs.objectnav_config import ObjectNavConfig
from envs.validation import check_flag

SENSORS: Final = ("rgb", "depth", "semantic", "instance")
MAX_DEPTH: Final = 100.0
"""Bound of depth, `gps` and `prev_reward`: wider than any house."""
MAX_PLACES: Final = 8
"""Instances of the goal that `goal_places` names; houses have fewer of a category."""
MIN_RESOLUTION: Final = 8
MAX_RESOLUTION: Final = 1024


def parse_task(
    task: ObjectNavConfig | Mapping[str, Any] | None,
    *,
    where: str,
    base: ObjectNavConfig | None = None,
) -> ObjectNavConfig:
    """Return the rules: those of `base` (default: the paper's) but for what `task` says.

    Args:
        task: the rules, or some of their constants.
        where: the environment's name, for messages; so in all functions here.
        base: what the others are.
    """
    if isinstance(task, ObjectNavConfig):
        return task
    if task is not None and not isinstance(task, Mapping):
        raise TypeError(
            f"{where}.task: must be an ObjectNavConfig or a dict of its options, got "
            f"{type(task).__name__}."
        )
    return ObjectNavConfig.create(base, **(task or {}))


def parse_resolution(resolution: int | Sequence[int], *, where: str) -> tuple[int, int]:
    """Return (height, width)."""
    sides = tuple(resolution) if isinstance(resolution, Sequence) else (resolution, resolution)
    good = len(sides) == 2 and all(
        isinstance(s, int | np.integer)
        and not isinstance(s, bool)
        and MIN_RESOLUTION <= s <= MAX_RESOLUTION
        for s in sides
    )
    if not good:
        raise ValueError(
            f"{where}.resolution: must be the side of a square or (height, width), each in "
            f"[{MIN_RESOLUTION}, {MAX_RESOLUTION}], got {resolution!r}."
        )
    return int(sides[0]), int(sides[1])


def parse_sensors(sensors: Sequence[str], *, where: str) -> tuple[str, ...]:
    """Return the names of the images, each once, in the order of `SENSORS`."""
    if isinstance(sensors, str) or not isinstance(sensors, Iterable):
        known = ", ".join(map(repr, SENSORS))
        raise TypeError(
            f"{where}.sensors: must be a list of names, got {sensors!r}. Use some of [{known}]."
        )
    for name in sensors:
        if name not in SENSORS:
            raise unknown_name(f"{where}.sensors", "a sensor", name, SENSORS)
    return tuple(name for name in SENSORS if name in sensors)


def observation_space(
    images: tuple[str, ...],
    shape: tuple[int, int],
    *,
    compass: bool,
    prev_reward: bool,
    goal_places: bool = False,
    where: str,
    max_semantic: int = GOAL_SEMANTIC + len(GOAL_CATEGORIES) - 1,
) -> spaces.Dict:
    """Return the space of what one row sees. `max_semantic` bounds semantic images."""
    for name, flag in (
        ("compass", compass),
        ("prev_reward", prev_reward),
        ("goal_places", goal_places),
    ):
        check_flag(f"{where}.{name}", flag)
    known = {
        "rgb": spaces.Box(0, 255, (*shape, 3), np.uint8),
        "depth": spaces.Box(0.0, MAX_DEPTH, shape, np.float32),
        "semantic": spaces.Box(0, max_semantic, shape, np.int16),
        "instance": spaces.Box(0, np.iinfo(np.int16).max, shape, np.int16),
        "gps": spaces.Box(-MAX_DEPTH, MAX_DEPTH, (2,), np.float32),
        "compass": spaces.Box(-np.pi, np.pi, (1,), np.float32),
        "goal": spaces.Discrete(len(GOAL_CATEGORIES)),
        "prev_reward": spaces.Box(-MAX_DEPTH, MAX_DEPTH, (1,), np.float32),
        "goal_places": spaces.Box(-MAX_DEPTH, MAX_DEPTH, (MAX_PLACES, 2), np.float32),
    }
    wanted = {*images, "gps", "goal"}
    wanted |= {"compass"} if compass else set()
    wanted |= {"prev_reward"} if prev_reward else set()
    wanted |= {"goal_places"} if goal_places else set()
    return spaces.Dict({name: space for name, space in known.items() if name in wanted})
