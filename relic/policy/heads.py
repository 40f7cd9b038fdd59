"""The heads of action and value; auxiliary heads are in `relic.policy.auxiliary`.

An actor head turns features into an action distribution. The distributions are small classes of
their own: they do what PPO needs, in float32 whatever the features are, and they sample from
uniforms that the caller gives, so that acting noise can be keyed by row. Masks of forbidden
actions and squashed Gaussians are not here.

Shapes: N rows, T steps, A actions, D dimensions of an action, E model dim; ``...`` stands for N or
N, T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEVER = -1e9
"""Logit of what is never chosen; finite, as zero times infinity is no number."""
MOST_CHOICES = 1_000_000
"""Most logits of a head: what is drawn from more is no choice that could be learned."""
ACTOR_GAIN = 0.01
"""Orthogonal gain of the actor head: the first policy is nearly uniform."""

# Half the spacing of float32 uniforms. Zero and one stand for it: they would draw actions that
# have no probability, or infinite ones.
_HALF_STEP = 2.0**-25


class Categorical:
    """Distribution over the actions 0 to A - 1.

    Args:
        logits_A: (..., A), any float type; kept as float32 log-probabilities.
    """

    __slots__ = ("logits_A",)

    def __init__(self, logits_A: Tensor) -> None:
        self.logits_A = torch.log_softmax(logits_A.float(), dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability of integer actions (...,)."""
        return self.logits_A.gather(-1, action.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy (...,) in nats."""
        return -(self.logits_A.exp() * self.logits_A).sum(-1)

    def mode(self) -> Tensor:
        """Return the most likely action."""
        return self.logits_A.argmax(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """Draw actions by inverse CDF from uniforms (..., 1) in [0, 1)."""
        cdf_A = _cumulative(self.logits_A.double().exp())
        # By the last sum, which rounding may leave beside 1. An action without probability adds
        # nothing to the sum before it, so `<=` passes it over.
        return (cdf_A <= _inner(noise) * cdf_A[..., -1:]).sum(-1)


def _cumulative(p_A: Tensor) -> Tensor:
    """Return the sums of a few numbers so far, also where CUDA must be deterministic."""
    if p_A.is_cuda and torch.are_deterministic_algorithms_enabled():
        return torch.stack(list(accumulate(p_A.unbind(-1))), dim=-1)  # cumsum would raise
    return p_A.cumsum(-1)


class MultiCategorical:
    """Independent choices, one for each of D dimensions of an action.

    Args:
        logits_DA: (..., D, A), where `NEVER` fills up those with fewer choices than A.
    """

    __slots__ = ("choices",)

    def __init__(self, logits_DA: Tensor) -> None:
        self.choices = Categorical(logits_DA)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the joint log-probability (...,) of integer actions (..., D)."""
        return self.choices.log_prob(action).sum(-1)

    def entropy(self) -> Tensor:
        """Return the entropy (...,) in nats."""
        return self.choices.entropy().sum(-1)

    def mode(self) -> Tensor:
        """Return the most likely action."""
        return self.choices.mode()

    def sample(self, noise: Tensor) -> Tensor:
        """Draw actions by inverse CDF from uniforms (..., D) in [0, 1)."""
        return self.choices.sample(noise.unsqueeze(-1))


class DiagonalGaussian:
    """Independent normal distributions, one for each of A action dimensions.

    Args:
        mean_A: (..., A).
        log_std_A: (A,) or (..., A).
    """

    __slots__ = ("log_std_A", "mean_A")

    def __init__(self, mean_A: Tensor, log_std_A: Tensor) -> None:
        self.mean_A = mean_A.float()
        self.log_std_A = log_std_A.float().expand_as(self.mean_A)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the joint log-density (...,) of actions (..., A)."""
        z_A = (action.float() - self.mean_A) * (-self.log_std_A).exp()
        return (-0.5 * (z_A.square() + math.log(2 * math.pi)) - self.log_std_A).sum(-1)

    def entropy(self) -> Tensor:
        """Return the differential entropy (...,) in nats."""
        return (self.log_std_A + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def mode(self) -> Tensor:
        """Return the mean."""
        return self.mean_A

    def sample(self, noise: Tensor) -> Tensor:
        """Draw actions by inverse CDF from uniforms (..., A) in [0, 1)."""
        z_A = torch.special.ndtri(_inner(noise)).float()
        return self.mean_A + self.log_std_A.exp() * z_A


ActionDistribution = Categorical | MultiCategorical | DiagonalGaussian


class CategoricalHead(nn.Module):
    """Features to a `Categorical`.

    Args:
        width: E.
        num_actions: A.
    """

    def __init__(self, width: int, num_actions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, num_actions)
        _orthogonal(self.linear, ACTOR_GAIN)

    @property
    def noise_size(self) -> int:
        """Uniforms that one sample takes."""
        return 1

    def forward(self, features_E: Tensor) -> Categorical:
        """Return the distribution of the next action."""
        return Categorical(self.linear(features_E))


class MultiCategoricalHead(nn.Module):
    """Features to a `MultiCategorical`.

    Args:
        width: E.
        choices: In each of D dimensions.
    """

    def __init__(self, width: int, choices: Sequence[int]) -> None:
        super().__init__()
        self.choices = list(choices)
        self.linear = nn.Linear(width, sum(self.choices))
        _orthogonal(self.linear, ACTOR_GAIN)

    @property
    def noise_size(self) -> int:
        """Uniforms that one sample takes."""
        return len(self.choices)

    def forward(self, features_E: Tensor) -> MultiCategorical:
        """Return the distribution of the next action."""
        most, parts = max(self.choices), self.linear(features_E).float().split(self.choices, -1)
        filled = [F.pad(part, (0, most - part.shape[-1]), value=NEVER) for part in parts]
        return MultiCategorical(torch.stack(filled, -2))


class GaussianHead(nn.Module):
    """Features to a `DiagonalGaussian` whose spread is a parameter of its own.

    Args:
        width: E.
        num_dims: A.
        log_std: Initial logarithm of every standard deviation.
    """

    def __init__(self, width: int, num_dims: int, log_std: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(width, num_dims)
        self.log_std_A = nn.Parameter(torch.full((num_dims,), log_std))
        _orthogonal(self.linear, ACTOR_GAIN)

    @property
    def noise_size(self) -> int:
        """Uniforms that one sample takes."""
        return self.linear.out_features

    def forward(self, features_E: Tensor) -> DiagonalGaussian:
        """Return the distribution of the next action."""
        return DiagonalGaussian(self.linear(features_E), self.log_std_A)


class ValueHead(nn.Module):
    """Features to the value of the state, float32.

    Args:
        width: E.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        _orthogonal(self.linear, 1.0)

    def forward(self, features_E: Tensor) -> Tensor:
        """Return the value (...,)."""
        return self.linear(features_E).squeeze(-1).float()


def actor_head(
    width: int, action_space: gymnasium.Space, log_std: float = 0.0
) -> CategoricalHead | MultiCategoricalHead | GaussianHead:
    """Return the head that an action space asks for.

    Raises:
        ValueError: If the space is no `Discrete`, and no `MultiDiscrete`, `MultiBinary` or float
            `Box` of one dimension, or has none to choose in it, or more than there can be logits.
    """
    spaces = gymnasium.spaces
    if 0 in (action_space.shape or ()):
        raise ValueError(
            f"action_space: must have an action to choose, got {action_space}. Leave out what "
            "never acts, or give it a Discrete(1)."
        )
    if isinstance(action_space, spaces.Discrete):
        return CategoricalHead(width, *_few([int(action_space.n)]))
    if len(action_space.shape or ()) == 1:
        if isinstance(action_space, spaces.MultiDiscrete):
            return MultiCategoricalHead(width, _few(action_space.nvec.tolist()))
        if isinstance(action_space, spaces.MultiBinary):
            return MultiCategoricalHead(width, [2] * math.prod(action_space.shape))
        if isinstance(action_space, spaces.Box) and np.dtype(action_space.dtype).kind == "f":
            return GaussianHead(width, int(action_space.low.size), log_std)
    raise ValueError(
        "action_space: must be Discrete, or a MultiDiscrete, MultiBinary or float Box of one "
        f"dimension, got {action_space}. Flatten the actions in the environment."
    )


def _few(sizes: list[int]) -> list[int]:
    """Return numbers of choices, if together they are few enough for a policy."""
    if (total := sum(sizes)) > MOST_CHOICES:
        raise ValueError(
            f"action_space: must have at most {MOST_CHOICES:,} choices, as the policy has a logit "
            f"for each, got {total:,}. Split the action into several, as a MultiDiscrete."
        )
    return sizes


def _inner(noise: Tensor) -> Tensor:
    """Return uniforms as float64 inside (0, 1)."""
    return noise.double().clamp(_HALF_STEP, 1 - _HALF_STEP)


def _orthogonal(linear: nn.Linear, gain: float) -> None:
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
