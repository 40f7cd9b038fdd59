"""The data of one update, and its division into minibatches and microbatches of rows.

Sequences are never cut: a minibatch, from which one optimiser step learns, is the whole contexts of
some rows. A microbatch is the part of them that goes through the policy at once; the gradients of a
minibatch's microbatches add up.

Shapes: N rows, T steps, K rows of a batch, C steps of the context that carry loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from relic.noise import Stream, keyed_permutation
from relic.policy.auxiliary import AuxiliaryLosses
from relic.ppo.config import Objective, num_strata
from relic.ppo.loss import LossTargets
from relic.ppo.rollout import Rollout
from relic.ppo.schedule import PlannedUpdate
from relic.ppo.source import RowGroup

Rows = np.ndarray[Any, Any]
"""Numbers of rows in this process."""


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

    def microbatches(self, rows: Rows, limit: int) -> Iterator[tuple[RowGroup, Rows]]:
        """Cut a minibatch into parts of at most `limit` rows."""
        for group in self.groups:
            # Memories of different groups are different tensors, which one pass cannot read.
            inside = rows[(rows >= group.rows.start) & (rows < group.rows.stop)]
            for first in range(0, len(inside), limit):
                yield group, inside[first : first + limit]

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
        return f"{rollout.global_row_N[rows_K].tolist()}: {seen}"


class ActionEvaluation(NamedTuple):
    """What the policy says of the steps that carry loss, (K, C) each."""

    log_prob: Tensor
    """Of the actions taken, or with the objective `clone` of the expert's."""
    value: Tensor
    entropy: Tensor
    auxiliary: dict[str, AuxiliaryLosses]
    """Of the auxiliary heads, by their names."""


@dataclass(frozen=True, slots=True)
class RowSampler:
    """Draws the minibatches of one process: a function of seed, update and epoch.

    Neighbouring rows form strata, as small as can be: every minibatch takes the same number from
    each, drawn by the stratum's own permutation. However many ranks share out the strata, together
    they draw the same minibatches, and each has an equal part of every one.
    """

    seed: int
    num_envs: int
    """Rows of this process; all ranks have as many."""
    rank: int
    world_size: int
    num_minibatches: int

    def minibatches(self, update: int, epoch: int, row_fraction: float) -> list[Rows]:
        """Return the rows of each minibatch of one epoch.

        Args:
            update: Number of the update in the run.
            epoch: Number of the epoch in the update.
            row_fraction: Share of the rows that the update uses, the same ones in every epoch.
        """
        all_rows = self.num_envs * self.world_size
        all_used = round(all_rows * row_fraction)
        total = num_strata(all_rows, all_used, self.num_minibatches)
        size, used, own = all_rows // total, all_used // total, total // self.world_size
        strata = []
        for i in range(own):
            stratum = self.rank * own + i
            rows = np.arange(size)
            if used < size:
                rows = keyed_permutation(size, self.seed, Stream.FRACTION, update, stratum)
                # Drawn without the epoch, so that all epochs of an update use the same rows.
                rows = np.sort(rows[:used])
            order = keyed_permutation(used, self.seed, Stream.ROWS, update, epoch, stratum)
            strata.append(rows[order].reshape(self.num_minibatches, -1) + i * size)
        return list(np.concatenate(strata, axis=1))


def microbatch_rows(rows: int, steps: int, tokens: int | None) -> int:
    """Return how many rows of a minibatch go through the policy at once.

    Args:
        rows: Of the minibatch.
        steps: Of each row that go through.
        tokens: Most tokens at once, but for a single row; None: no limit.
    """
    # Never less than a row: contexts are not cut.
    return rows if tokens is None else min(max(tokens // steps, 1), rows)


def _describe(column: Tensor) -> str:
    values = column.double()
    finite = values[values.isfinite()]
    bad = values.numel() - finite.numel()
    span = f"{finite.min():.4g} to {finite.max():.4g}" if finite.numel() else "nothing finite"
    return f"{span} ({bad} not finite)" if bad else span
