"""Where what is asked for lies: guessed from the memory, learned from the environment's word.

To go back to where something was, an agent must remember a place and turn it into a direction, and
the reward teaches neither before the other is there. Here the first is regression: while training,
an environment may observe the places of what is asked for (`goal_places`), which no token ever
holds, and a head on the memory's output guesses the nearest of them. The second is geometry: the
guess as seen from where the agent stands is told to the heads of action and value. Their gradient
does not reach the guess, and acting needs no word from the environment.

Shapes: ``...`` stands for N rows or N rows x T steps; K places, E model dim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from relic.policy.encoders.observations import GOAL_PLACES
from relic.schema import POSITIVE, check_bounds

TOLD = 5
"""Numbers that say how a guess looks from where the agent stands."""
_LOG_STD_MID, _LOG_STD_HALF = 0.7, 2.3
"""A guess is between 0.2 m and 20 m unsure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceConfig:
    """The guess of where what is asked for lies."""

    target: str = GOAL_PLACES
    """Observation, (K, 2), that says it while training; it is never an input."""
    position: str = "gps"
    """Observed position (forward, right), in the frame and the unit of the places."""
    heading: str = "compass"
    """Observed heading in radians, counter-clockwise in that frame."""
    scale: Annotated[float, POSITIVE] = 5.0
    """Distance that is far, in the unit of the places."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_bounds(self)

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers in the last axis of each observation that is read."""
        return {self.target: 2, self.position: 2, self.heading: 1}


class PlaceGuess(NamedTuple):
    """A normal distribution over places, alike in both directions."""

    mean: Tensor
    """(..., 2), in the frame of the observed position."""
    log_std: Tensor
    """(...,)"""


class PlaceHead(nn.Module):
    """Guesses a place from the memory's output, and tells the other heads.

    Args:
        config: Names of observations.
        space: Space of one row's observation.
        width: E.

    Raises:
        ValueError: If an observation is missing or has another shape.
    """

    def __init__(self, config: PlaceConfig, space: spaces.Dict, width: int) -> None:
        super().__init__()
        for key, size in config.sizes.items():
            _check_observed(space, key, size)
        self.config = config
        self.guess = nn.Linear(width, 3)
        self.told = nn.Sequential(
            nn.Linear(width + TOLD, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(
        self, y_E: Tensor, observation: Mapping[str, Tensor | np.ndarray]
    ) -> tuple[Tensor, PlaceGuess]:
        """Return what the heads of action and value are given, (..., E), and the guess."""
        out = self.guess(y_E)
        log_std = _LOG_STD_MID + _LOG_STD_HALF * torch.tanh(out[..., 2].float())
        guess = PlaceGuess(out[..., :2].float() * self.config.scale, log_std)
        seen = self._as_seen(guess, observation).to(y_E.dtype)
        return y_E + self.told(torch.cat([y_E, seen], -1)), guess

    def _as_seen(self, guess: PlaceGuess, observation: Mapping[str, Tensor | np.ndarray]) -> Tensor:
        """Return direction (ahead, right), nearness, distance and certainty, (..., TOLD)."""
        config, device = self.config, guess.mean.device
        position = torch.as_tensor(observation[config.position], device=device).float()
        heading = torch.as_tensor(observation[config.heading], device=device).float()
        forward, right = (guess.mean.detach() - position).unbind(-1)
        cos, sin = heading.cos()[..., 0], heading.sin()[..., 0]
        # The frame's axes are forward and right, and a heading turns to the left.
        ahead, aside = forward * cos - right * sin, forward * sin + right * cos
        distance = torch.hypot(ahead, aside)
        parts = [ahead / (distance + 0.1), aside / (distance + 0.1), 1 / (1 + distance)]
        parts += [distance / config.scale, guess.log_std.detach() - _LOG_STD_MID]
        return torch.stack(parts, -1)


def place_errors(guess: PlaceGuess, places_K2: Tensor) -> tuple[Tensor, Tensor]:
    """Compare guesses with the nearest of the places.

    Args:
        guess: (...).
        places_K2: (..., K, 2); a place may be repeated.

    Returns:
        Negative log-likelihood in nats, and distance, (...) each.
    """
    square = (guess.mean.unsqueeze(-2) - places_K2.float()).square().sum(-1).amin(-1)
    normal = math.log(2 * math.pi) + 2 * guess.log_std
    return 0.5 * square * (-2 * guess.log_std).exp() + normal, square.detach().sqrt()


def _check_observed(space: spaces.Dict, key: str, size: int) -> None:
    shape = space[key].shape if key in space.spaces else None
    if not shape or shape[-1] != size:
        found = "nothing" if shape is None else f"the shape {shape}"
        raise ValueError(
            f"place: {key} must be observed with {size} numbers, got {found}. Houses show it with "
            "env.options.goal_places=true and env.options.compass=true."
        )
