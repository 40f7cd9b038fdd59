"""One update's work: what it learns from, and what the policy says of it.

Legend: N rows, T steps, K rows of a batch, C steps of the context that carry loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from relic.policy.auxiliary import AuxiliaryLosses
from relic.ppo.config import Objective
from relic.ppo.loss import LossTargets
from relic.ppo.rollout import Rollout
from relic.ppo.schedule import PlannedUpdate
from relic.ppo.source import RowGroup

Rows = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class UpdateBatch:
    """One update: what it learns from."""

    rollout: Rollout
    planned: PlannedUpdate
    groups: Sequence[RowGroup]
    advantage_NT: Tensor
    """In time order, as the returns; never normalised."""
    ret_NT: Tensor
    ent_coef: float
    objective: Objective

    def targets(self, rows_K: Rows, device: torch.device) -> LossTargets:
        """Gather what the loss compares with, in the context's order."""
        rollout, span = self.rollout, (self.planned.loss_from, self.planned.at_step)
        columns = (rollout.log_prob_NT, rollout.value_NT, self.advantage_NT, self.ret_NT)
        return LossTargets(*(rollout.in_context(c, rows_K, *span).to(device) for c in columns))

    def covered(self, column_NT: Tensor) -> Tensor:
        """Gather all rows of a column where the loss counts, (N, C), in the context's order."""
        rows_N = np.arange(self.rollout.num_envs)
        return self.rollout.in_context(
            column_NT, rows_N, self.planned.loss_from, self.planned.at_step
        )

    def describe(self, rows_K: Rows) -> str:
        """Say between which values the columns of some rows lie, and how many are not finite."""
        rollout = self.rollout
        targets = self.targets(rows_K, rollout.device)
        columns = {
            "log_prob": targets.log_prob,
            "value": targets.value,
            "advantage": targets.advantage,
            "return": targets.ret,
            "reward": torch.from_numpy(rollout.reward_NT[rows_K, : self.planned.at_step]),
        }
        columns |= {f"observation {k}": v[rows_K] for k, v in rollout.observation.items()}
        seen = "; ".join(f"{name} {_describe(column)}" for name, column in columns.items())
        return f"{rollout.row_N[rows_K].tolist()}: {seen}"


class ActionEvaluation(NamedTuple):
    """What the policy says of the steps that carry loss, (K, C) each."""

    log_prob: Tensor
    """Of the actions taken, or with the objective `clone` of the expert's."""
    value: Tensor
    entropy: Tensor
    auxiliary: dict[str, AuxiliaryLosses]
    """Of the auxiliary heads, by their names."""


def _describe(column: Tensor) -> str:
    values = column.double()
    finite = values[values.isfinite()]
    bad = values.numel() - finite.numel()
    span = f"{finite.min():.4g} to {finite.max():.4g}" if finite.numel() else "nothing finite"
    return f"{span} ({bad} not finite)" if bad else span
