"""The units of actions: the policy's own, and the environment's.

A policy counts choices from zero, wherever a `Discrete` or `MultiDiscrete` begins. It draws vectors
of numbers from a normal distribution that begins with mean 0 and deviation 1; in its own units a
box with bounds lies around that: its centre is 0 and its half-width 1. Everything that the policy
says, learns and remembers is in these units: samples, log-probabilities, previous actions,
demonstrations. They are left in one place, on the way to the environment.

Shapes: A action dimensions, D dimensions of choices; ``...`` stands for N or N, T.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from relic.policy.encoders.inputs import UNBOUNDED

Floats = NDArray[np.float64]


def natural_units(space: spaces.Box) -> tuple[Floats, Floats]:
    """Return what 0 stands for in each dimension (A,), and how long 1 is (A,).

    Between two bounds these are the centre and the half-width; a dimension that has only one value
    stays there. With one bound, 1 is the environment's unit, and 0 stays 0 where that is at least
    one unit inside, else it is one unit inside. Without bounds nothing is changed.
    """
    low, high = (bound.astype(np.float64) for bound in (space.low, space.high))
    has_low, has_high = low >= -UNBOUNDED, high <= UNBOUNDED
    both = has_low & has_high
    centre = np.zeros_like(low)
    centre[both] = (low[both] + high[both]) / 2
    centre = np.where(has_low & ~has_high, np.maximum(low + 1, 0.0), centre)
    centre = np.where(has_high & ~has_low, np.minimum(high - 1, 0.0), centre)
    half = np.ones_like(low)
    wide = both & (high > low)
    half[wide] = (high[wide] - low[wide]) / 2
    return centre, half


class ActionUnits(nn.Module):
    """From the policy's units to the environment's, and back.

    What they are is saved with the weights: a policy is worth nothing in other units than those it
    has learned in. Both directions are computed in float64, so that bounds near to each other and
    far from zero stay apart.

    Args:
        space: Of one row's action.
    """

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        centre, half = natural_units(space)
        self.dtype = torch.from_numpy(np.empty(0, space.dtype)).dtype
        self.register_buffer("centre_A", torch.from_numpy(centre))
        self.register_buffer("half_A", torch.from_numpy(half))
        self.centre_A: Tensor
        self.half_A: Tensor

    def to_environment(self, action: Tensor) -> Tensor:
        """Return the policy's actions (..., A) in the units and the type of the environment."""
        return (action.double() * self.half_A + self.centre_A).to(self.dtype)

    def from_environment(self, action: Tensor) -> Tensor:
        """Return the environment's actions (..., A) in the policy's units, float32."""
        return ((action.double() - self.centre_A) / self.half_A).float()


class ActionCounts(nn.Module):
    """From choices counted from zero to the environment's numbers, and back.

    Args:
        space: Of one row's action.
    """

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        super().__init__()
        # It follows from the space, which is saved with the policy.
        start = torch.from_numpy(np.asarray(space.start, np.int64))
        self.register_buffer("start_D", start, persistent=False)
        self.start_D: Tensor

    def to_environment(self, action: Tensor) -> Tensor:
        """Return the policy's actions (...) or (..., D) as the environment counts them."""
        return action.long() + self.start_D

    def from_environment(self, action: Tensor) -> Tensor:
        """Return the environment's actions as the policy counts them."""
        return action.long() - self.start_D


def action_units(space: spaces.Space) -> ActionUnits | ActionCounts | None:
    """Return what turns actions of a space into the environment's; None if they are the same."""
    if isinstance(space, spaces.Box):
        return ActionUnits(space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start):
        return ActionCounts(space)
    return None
