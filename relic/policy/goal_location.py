"""The auxiliary head that predicts where the goal is, for the heads of action and value.

To return to an object, an agent must remember a place and turn it into a direction. The reward
teaches neither skill while the other is missing. Here the first is learned by regression: in
training, an environment may observe the positions of the goal's instances (`goal_places`), and a
head on the memory's output guesses the nearest of them. The second is computed: the heads of action
and value get the guess relative to the agent's position and heading.

Shapes: ``...`` stands for N rows or N rows x T steps; K places, E model dim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from relic.policy.auxiliary import AuxiliaryHead, AuxiliaryLosses
from relic.policy.auxiliary_config import PlaceConfig
from relic.policy.linear import Linear
from relic.policy.steps import SequenceBatch

TOLD = 5
"""Numbers that say how a guess looks from where the agent stands."""
_LOG_STD_MID, _LOG_STD_HALF = 0.7, 2.3
"""The standard deviation of a guess is held between 0.2 m and 20 m."""


class GoalGuess(NamedTuple):
    """A normal distribution over places, alike in both directions."""

    mean: Tensor
    """(..., 2), in the frame of the observed position."""
    log_std: Tensor
    """(...,)"""


class GoalLocationHead(AuxiliaryHead):
    """Guesses a place from the memory's output, and tells the other heads.

    Args:
        config: Names of observations.
        width: E.
    """

    def __init__(self, config: PlaceConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.guess = Linear(width, 3)
        self.told = nn.Sequential(Linear(width + TOLD, width), nn.ReLU(), Linear(width, width))

    def forward(
        self, y_E: Tensor, observation: Mapping[str, Tensor | np.ndarray]
    ) -> tuple[Tensor, GoalGuess]:
        """Return what the heads of action and value are told, (..., E), and the guess."""
        out = self.guess(y_E)
        log_std = _LOG_STD_MID + _LOG_STD_HALF * torch.tanh(out[..., 2].float())
        guess = GoalGuess(out[..., :2].float() * self.config.scale, log_std)
        seen = self.as_seen(guess, observation).to(y_E.dtype)
        return self.told(torch.cat([y_E, seen], -1)), guess

    def auxiliary_losses(self, output: GoalGuess, batch: SequenceBatch) -> AuxiliaryLosses:
        """Return the guess's negative log-likelihood in nats, and how far it is off."""
        loss, error = guess_errors(output, batch.observation[self.config.target])
        return AuxiliaryLosses({"goal_location_loss": loss}, {"goal_location_error": error})

    def as_seen(self, guess: GoalGuess, observation: Mapping[str, Tensor | np.ndarray]) -> Tensor:
        """Return direction (ahead, right), nearness, distance and certainty, (..., TOLD)."""
        config, device = self.config, guess.mean.device
        position = torch.as_tensor(observation[config.position], device=device).float()
        heading = torch.as_tensor(observation[config.heading], device=device).float()
        # Detached: the losses of action and value would pull the guess away from the goal.
        ahead, aside = into_view(guess.mean.detach() - position, heading).unbind(-1)
        distance = torch.hypot(ahead, aside)
        # At the place itself a direction means nothing; 0.1 keeps it small there.
        parts = [ahead / (distance + 0.1), aside / (distance + 0.1), 1 / (1 + distance)]
        parts += [distance / config.scale, guess.log_std.detach() - _LOG_STD_MID]
        return torch.stack(parts, -1)


def into_view(offset_2: Tensor, heading_1: Tensor) -> Tensor:
    """Return offsets (forward, right) in the frame of the position as (ahead, right) of an agent.

    Args:
        offset_2: (..., 2).
        heading_1: (..., 1), in radians, counter-clockwise.
    """
    cos, sin = heading_1[..., 0].cos(), heading_1[..., 0].sin()
    forward, right = offset_2.unbind(-1)
    # The frame's axes are forward and right, and a heading turns to the left.
    return torch.stack([forward * cos - right * sin, forward * sin + right * cos], -1)


def into_frame(seen_2: Tensor, heading_1: Tensor) -> Tensor:
    """Undo `into_view`."""
    return into_view(seen_2, -heading_1)


def guess_errors(guess: GoalGuess, places_K2: Tensor) -> tuple[Tensor, Tensor]:
    """Compare guesses with the nearest of the places.

    Args:
        guess: (...).
        places_K2: (..., K, 2); a place may be repeated.

    Returns:
        Negative log-likelihood in nats, and distance, (...) each.
    """
    # The nearest one: to have found any instance of the goal is enough.
    square = (guess.mean.unsqueeze(-2) - places_K2.float()).square().sum(-1).amin(-1)
    normal = math.log(2 * math.pi) + 2 * guess.log_std
    return 0.5 * square * (-2 * guess.log_std).exp() + normal, square.detach().sqrt()
