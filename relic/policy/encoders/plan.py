"""The plan of observations: which become inputs and how, decided before a network is built.

What an observation holds follows from its space: shape, type and bounds. Where these cannot tell,
`encoder.kinds` says it, which `relic.run` fills with the environment's own word; nothing is taken
for what would lose a part of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from gymnasium import spaces

from relic.policy.encoders.config import LESSONS, PREV_REWARD, EncoderConfig, Kind, VisualKind
from relic.policy.encoders.images import SMALLEST_SIDE, ImageSpec, image_spec
from relic.policy.encoders.inputs import CategorySpace, VectorSpace, choices_in
from relic.schema import nearest

MOST_GUESSED_ROWS = 1024
"""Embeddings up to which whole numbers are classes where nothing is said."""
MOST_CATEGORIES = 1_000_000
"""Most rows of a table of embeddings: what has more values is a number, and no name."""
_CHANNELS = 4
"""A first dimension of no more than that is one of channels, if the others are larger."""


@dataclass(frozen=True)
class ObservationPlan:
    """The observations that are used, by the way they are encoded, and by key."""

    adds_reward: bool
    """The previous reward is an input that the environment does not show."""
    images: dict[str, ImageSpec] = field(default_factory=dict)
    vectors: dict[str, VectorSpace] = field(default_factory=dict)
    categories: dict[str, CategorySpace] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Why the others are no inputs."""

    @property
    def inputs(self) -> list[str]:
        """The observations that tokens hold."""
        return [*self.images, *self.vectors, *self.categories]


def plan_observations(
    config: EncoderConfig, space: spaces.Dict, *, targets: Sequence[str] = ()
) -> ObservationPlan:
    """Choose among the observations of a space.

    Args:
        config: Which, and how.
        space: Of one row.
        targets: Observations that are learned from and must not be inputs.

    Raises:
        ValueError: If a configured key is not there, a chosen space cannot be encoded, or no
            observation is left though none but some were asked for.
        TypeError: If the space is no Dict.
    """
    if not isinstance(space, spaces.Dict):
        raise TypeError(
            f"observation_space: must be a Dict, got {space}. Wrap it: spaces.Dict(name=space)."
        )
    _check_names(config, space, targets)
    plan = ObservationPlan(config.prev_reward and PREV_REWARD not in space.spaces)
    # Sorted, as weights must not depend on the order in which a space lists its parts.
    for key in sorted(space.spaces):
        reason = _reason_against(config, key, targets)
        if reason is None and 0 in (space[key].shape or ()):
            reason = _emptiness(config, key, space[key])
        if reason is None:
            _add_to(plan, config, key, space[key])
        else:
            plan.left_out[key] = reason
    if config.keys != () and not plan.inputs:
        why = "; ".join(f"{key} is {reason}" for key, reason in plan.left_out.items())
        raise ValueError(
            f"encoder.keys: must leave an observation as input, got none: {why or 'there are none'}"
            ". Name what the agent may see, or set encoder.keys=[] to train it blind."
        )
    return plan


def _check_names(config: EncoderConfig, space: spaces.Dict, targets: Sequence[str]) -> None:
    for key in config.keys or ():
        _check_known("encoder.keys", key, space)
        if key in targets:
            raise ValueError(
                f"encoder.keys: must not name what is learned from, got {key!r}. Leave it out."
            )
    usual = EncoderConfig()  # names keys that many environments lack
    for name in ("privileged", "kinds", "vector_widths", "angles", "vector_units"):
        for key in getattr(config, name):
            if key not in getattr(usual, name):
                _check_known(f"encoder.{name}", key, space)
    for key in config.same_categories:
        if key not in usual.same_categories:
            _check_known("encoder.same_categories", key, space)


def _check_known(path: str, key: str, space: spaces.Dict) -> None:
    if key not in space.spaces:
        raise ValueError(
            f"{path}: must name observations of the environment, got {key!r}. "
            f"{nearest(key, space.spaces)}"
        )


def _reason_against(config: EncoderConfig, key: str, targets: Sequence[str]) -> str | None:
    """Return why an observation is no input, None if it is one."""
    if config.keys is not None and key in config.keys:
        return None
    if key in targets:
        return "left out, as it is for learning only"
    if config.keys is not None:
        return "left out, as policy.encoder.keys does not name it"
    if key in (*LESSONS, *config.privileged):
        return "left out, as the agent must not know it (policy.encoder.keys can name it)"
    return None


def _emptiness(config: EncoderConfig, key: str, space: spaces.Space) -> str:
    """Return that an observation holds nothing; refuse one that is named as an input."""
    if config.keys is not None:
        raise ValueError(
            f"encoder.keys: must name observations that hold numbers, got {key!r}, which is "
            f"{space}. Leave it out."
        )
    return "left out, as it holds no numbers"


def _add_to(plan: ObservationPlan, config: EncoderConfig, key: str, space: spaces.Space) -> None:
    named = config.kinds.get(key)
    if isinstance(space, spaces.Box):
        kind = _kind_of(key, space) if named is None else _checked(key, space, named)
        if kind == "flat":
            plan.vectors[key] = space
        elif len(space.shape) < 2:
            plan.categories[key] = _few(key, _as_categories(key, space))
        elif config.visual is VisualKind.BLIND:
            plan.left_out[key] = "left out, as policy.encoder.visual is blind"
        else:
            plan.images[key] = image_spec(key, space, kind, depth_max=config.depth_max)
        return
    if named is not None:
        raise ValueError(
            f"encoder.kinds.{key}: must be of a Box, got one of {space}. Leave it out."
        )
    if isinstance(space, spaces.MultiBinary):
        plan.vectors[key] = space
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        plan.categories[key] = _few(key, space)
    else:
        raise ValueError(
            f"observation_space[{key!r}]: must be a Box, MultiBinary, Discrete or MultiDiscrete, "
            f"got {space}. Turn it into numbers, or leave it out by encoder.keys."
        )


def _few(key: str, space: CategorySpace) -> CategorySpace:
    """Return a space whose categories are few enough for a table of embeddings."""
    total = sum(choices_in(space))
    if total > MOST_CATEGORIES:
        raise ValueError(
            f"observation_space[{key!r}]: must have at most {MOST_CATEGORIES:,} categories, as "
            f"each is learned by itself, got {total:,}. Observe a number as a Box, or leave it out "
            "by encoder.keys."
        )
    return space


def _kind_of(key: str, space: spaces.Box) -> Kind:
    """Say what an array holds of which nothing is said."""
    shape = space.shape
    if len(shape) < 2:
        return "flat"
    if len(shape) > 3:
        raise ValueError(
            f"observation_space[{key!r}]: must be pictures, height x width x channels, or a flat "
            f"vector, got shape {shape}. Set encoder.kinds.{key}=flat to let its numbers enter as "
            "a vector, or leave it out by encoder.keys."
        )
    if len(shape) == 3 and shape[0] <= _CHANNELS < min(shape[1:]):
        raise ValueError(
            f"observation_space[{key!r}]: pictures must be height x width x channels, got shape "
            f"{shape}, which looks like channels x height x width. Move the channels last, or say "
            f"by encoder.kinds.{key} what it holds as it is."
        )
    if min(shape[:2]) < SMALLEST_SIDE:
        return "flat"
    if space.dtype is None or space.dtype.kind not in "iub":
        return "numbers"
    low, high = int(space.low.min()), int(space.high.max())
    if (low, high) == (0, 255):
        return "colour"
    # Two numbers say as much as two embeddings.
    rows = (high - min(low, 0) + 1) * math.prod(shape[2:])
    return "classes" if high - low > 1 and rows <= MOST_GUESSED_ROWS else "numbers"


def _checked(key: str, space: spaces.Box, kind: Kind) -> Kind:
    """Return the kind that is named, where an array of such a shape can be it.

    Raises:
        ValueError: If it cannot.
    """
    shape = space.shape
    if kind == "flat" or (len(shape) < 2 and kind == "classes"):
        return kind
    if len(shape) < 2 and kind == "numbers":
        return "flat"
    if len(shape) not in (2, 3) or min(shape[:2]) < SMALLEST_SIDE:
        raise ValueError(
            f"encoder.kinds.{key}: {kind} must be pictures of at least {SMALLEST_SIDE} rows and "
            f"columns, got shape {shape}. Use flat."
        )
    return kind


def _as_categories(key: str, space: spaces.Box) -> spaces.MultiDiscrete:
    """Return the space of a vector of class numbers."""
    low, high = (bound.astype(np.float64).reshape(-1) for bound in (space.low, space.high))
    whole = space.dtype is not None and space.dtype.kind in "iub"
    if not whole or not (high - low < MOST_GUESSED_ROWS).all():
        raise ValueError(
            f"encoder.kinds.{key}: classes must be whole numbers with fewer than "
            f"{MOST_GUESSED_ROWS} values each, got {space}. Give its bounds, or use flat."
        )
    return spaces.MultiDiscrete((high - low + 1).astype(np.int64), start=low.astype(np.int64))
