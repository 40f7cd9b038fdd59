"""Which observations of a space a policy uses, and how: pure functions of spaces."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from relic.policy.encoders.config import EncoderConfig, VisualKind
from relic.policy.encoders.images import ImageSpec, image_spec

PREV_REWARD = "prev_reward"
"""Observation that carries the previous reward."""

GOAL_PLACES = "goal_places"
"""Observation that says where what is asked for lies: never an input unless named."""

VectorSpace = spaces.Box | spaces.MultiBinary
CategorySpace = spaces.Discrete | spaces.MultiDiscrete


@dataclass(frozen=True)
class ObservationPlan:
    """The observations that are used, by the way they are encoded.

    Attributes:
        images: Pictures by key.
        vectors: Spaces of numbers that are used as such, flattened.
        categories: Spaces of numbers that name categories.
        adds_reward: The previous reward is used and the environment does not observe it.
    """

    images: dict[str, ImageSpec]
    vectors: dict[str, VectorSpace]
    categories: dict[str, CategorySpace]
    adds_reward: bool


def feature_key(key: str) -> str:
    """Return the name under which the features of pictures are stored instead of these."""
    return f"{key}_features"


def plan_observations(
    config: EncoderConfig, space: spaces.Dict, *, targets: Sequence[str] = ()
) -> ObservationPlan:
    """Choose among the observations of a space.

    Args:
        config: Which, and how.
        space: Of one row.
        targets: Observations that are learned from and must not be inputs.

    Raises:
        ValueError: If a configured key is not there, or a chosen space cannot be encoded.
        TypeError: If the space is no Dict.
    """
    if not isinstance(space, spaces.Dict):
        raise TypeError(
            f"observation_space: must be a Dict, got {space}. Wrap it: spaces.Dict(name=space)."
        )
    for key in config.keys or ():
        _check_known("encoder.keys", key, space)
        if key in targets:
            raise ValueError(
                f"encoder.keys: must not name what is learned from, got {key!r}. Leave it out."
            )
    usual = EncoderConfig()  # names keys that many environments lack
    for name in ("vector_widths", "angles"):
        for key in getattr(config, name):
            if key not in getattr(usual, name):
                _check_known(f"encoder.{name}", key, space)
    plan = ObservationPlan({}, {}, {}, config.prev_reward and PREV_REWARD not in space.spaces)
    # Sorted, as weights must not depend on the order in which a space lists its parts.
    hidden = {GOAL_PLACES, *targets}
    for key in sorted(set(space.spaces) - hidden if config.keys is None else set(config.keys)):
        _place(plan, config, key, space[key])
    return plan


def vector_size(space: VectorSpace) -> int:
    """Return the numbers in a vector of the space."""
    return int(np.prod(space.shape, dtype=np.int64))


def vector_scale(space: VectorSpace) -> tuple[np.ndarray, np.ndarray] | None:
    """Return centre and half range, flat, where finite bounds leave [-1, 1]; else None."""
    if not isinstance(space, spaces.Box):
        return None
    low = space.low.astype(np.float64).reshape(-1)
    high = space.high.astype(np.float64).reshape(-1)
    # Some environments write the largest float where they mean infinity.
    if max(np.abs(low).max(initial=0), np.abs(high).max(initial=0)) > 1e6:
        return None
    if low.min(initial=0) >= -1 and high.max(initial=0) <= 1:
        return None
    half = np.where(high > low, (high - low) / 2, 1.0)
    return (low + high) / 2, half


def _place(plan: ObservationPlan, config: EncoderConfig, key: str, space: spaces.Space) -> None:
    spec = image_spec(key, space, config.depth_max)
    if spec is not None:
        privileged = spec.role == "semantic" and config.keys is None
        if config.visual is not VisualKind.BLIND and not privileged:
            plan.images[key] = spec
    elif isinstance(space, spaces.MultiBinary) or (
        isinstance(space, spaces.Box) and len(space.shape) < 2
    ):
        plan.vectors[key] = space
    elif isinstance(space, spaces.Discrete) or (
        isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1
    ):
        plan.categories[key] = space
    else:
        raise ValueError(
            f"observation_space[{key!r}]: must be pictures, a flat Box, MultiBinary, Discrete or "
            f"MultiDiscrete, got {space}. Flatten it, or leave it out by encoder.keys."
        )


def _check_known(path: str, key: str, space: spaces.Dict) -> None:
    if key not in space.spaces:
        raise ValueError(
            f"{path}: must name observations of the environment, got {key!r}. "
            f"{closest(key, space.spaces)}"
        )


def closest(key: str, valid: Iterable[str]) -> str:
    """Say which of the valid names was probably meant, or list them."""
    names = sorted(valid)
    close = difflib.get_close_matches(key, names, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Choose among: {', '.join(names)}."
