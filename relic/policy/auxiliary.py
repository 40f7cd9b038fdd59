"""Auxiliary heads: losses that teach the memory in addition to the reward.

A head predicts something from the memory's output, and learns to by comparing it with observations
that no token holds (its targets). Only training has targets. A head may also add to what the heads
of action and value read.

Policy, update and metrics know this interface only. To add a head, write one file such as
`relic.policy.goal_location`, its configuration in `relic.policy.auxiliary_config`, and add one
field to `PolicyConfig`. The field's name is the head's section in the configuration, and part of
its weights' names.

Shapes: ``...`` stands for N rows or N rows x T steps; E model dim, T steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from relic.policy.steps import SequenceBatch


class AuxiliaryLosses(NamedTuple):
    """Losses and metrics of a head, one number per step (...), by the names of the metrics."""

    losses: dict[str, Tensor]
    """Their means, times the head's weight, are added to the loss."""
    metrics: dict[str, Tensor]
    """What is only reported."""

    def since(self, step: int) -> AuxiliaryLosses:
        """Return those of the steps from `step` on, of columns (N, T)."""
        losses = {name: column_NT[:, step:] for name, column_NT in self.losses.items()}
        metrics = {name: column_NT[:, step:] for name, column_NT in self.metrics.items()}
        return AuxiliaryLosses(losses, metrics)

    def of_lesson(self) -> AuxiliaryLosses:
        """Return them under the names of a lesson."""
        losses = {f"lesson_{name}": column for name, column in self.losses.items()}
        metrics = {f"lesson_{name}": column for name, column in self.metrics.items()}
        return AuxiliaryLosses(losses, metrics)


class AuxiliaryHead(nn.Module, ABC):
    """Predicts something from the memory's output, and learns it from observations."""

    @abstractmethod
    def forward(
        self, y_E: Tensor, observation: Mapping[str, Tensor | np.ndarray]
    ) -> tuple[Tensor | None, Any]:
        """Read the memory's output; called in acting and in learning.

        Args:
            y_E: The memory's output (..., E).
            observation: Of the same steps. Targets may be missing: acting has none.

        Returns:
            What is added to `y_E` for the heads of action and value (None: nothing), and the
            prediction, which `auxiliary_losses` takes.
        """

    @abstractmethod
    def auxiliary_losses(self, output: Any, batch: SequenceBatch) -> AuxiliaryLosses:
        """Compare the prediction with the targets.

        Args:
            output: What `forward` predicted of the batch.
            batch: The steps; its observation holds the targets.
        """

    def find_with(self, find: Callable[[Mapping[str, Tensor]], Any]) -> None:
        """Take what says which objects the policy's encoder finds in the pictures of steps.

        Args:
            find: Returns a `relic.policy.encoders.sightings.Found` without gradient; to be called
                only where the policy has `encoder.sightings`.
        """

    def lesson(self, batch: SequenceBatch, uniform_NT: Tensor) -> SequenceBatch:
        """Return steps that only this head learns from, made of those of whole rollouts.

        The last update of a rollout, and every full one, takes them through the policy in a pass
        of their own, if `lesson_weight` of the head's section is not 0.

        Args:
            batch: The steps (N, T), from the trials' beginning.
            uniform_NT: Numbers in [0, 1) to draw by, others in each epoch.
        """
        raise NotImplementedError(f"{type(self).__name__} has no lesson")
