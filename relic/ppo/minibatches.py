"""Which rows each optimiser step learns from: a function of seed, update and epoch. Pure.

Rows are stratified by shard: every minibatch takes the same number from each, drawn by the
shard's own permutation. One process with two shards and two ranks with one each therefore draw
the same minibatches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from relic.noise import Stream, keyed_permutation

Rows = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class RowSampler:
    """Draws the minibatches of one process."""

    seed: int
    num_envs: int
    """Rows of this process."""
    shards: int
    """Shards of this process."""
    first_shard: int
    """Global number of its first shard."""
    num_minibatches: int

    def minibatches(self, update: int, epoch: int, row_fraction: float) -> list[Rows]:
        """Return the local rows of each minibatch of one epoch.

        Args:
            update: Number of the update in the run.
            epoch: Number of the epoch in the update.
            row_fraction: Share of the rows that the update uses, the same ones in every epoch.
        """
        per_shard = self.num_envs // self.shards
        used = round(per_shard * row_fraction)
        strata = []
        for local in range(self.shards):
            shard = self.first_shard + local
            rows = np.arange(per_shard)
            if used < per_shard:
                rows = keyed_permutation(per_shard, self.seed, Stream.FRACTION, update, shard)
                rows = np.sort(rows[:used])
            order = keyed_permutation(used, self.seed, Stream.ROWS, update, epoch, shard)
            strata.append(rows[order].reshape(self.num_minibatches, -1) + local * per_shard)
        return list(np.concatenate(strata, axis=1))


def microbatch_rows(rows: int, steps: int, tokens: int | None) -> int:
    """Return how many rows of a minibatch go through the policy at once.

    Args:
        rows: Of the minibatch.
        steps: Of each row that go through.
        tokens: Most tokens at once, but for a single row; None: no limit.
    """
    return rows if tokens is None else min(max(tokens // steps, 1), rows)


def split_rows(rows: Rows, bounds: list[slice], limit: int) -> list[tuple[int, Rows]]:
    """Cut a minibatch into microbatches that stay within one group of rows and one size.

    Args:
        rows: Local rows.
        bounds: The rows of each group.
        limit: Most rows of a microbatch.

    Returns:
        (group, rows) of each microbatch.
    """
    pieces = []
    for group, bound in enumerate(bounds):
        inside = rows[(rows >= bound.start) & (rows < bound.stop)]
        for begin in range(0, len(inside), limit):
            pieces.append((group, inside[begin : begin + limit]))
    return pieces
