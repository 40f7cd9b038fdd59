"""What the policy remembers of a rollout, recomputed under its present weights.

Right after a refresh the memory is a pure function of weights, rollout and context order, made by
the same code in the same batches whether a run goes on or is resumed.

Legend: N rows, K rows of a batch, C steps of the context.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from relic.policy.policy import Policy
from relic.ppo.autocast import autocast
from relic.ppo.config import Precision, UpdatesConfig
from relic.ppo.rollout import Rollout
from relic.ppo.source import RowGroup


def refresh(
    policy: Policy,
    rollout: Rollout,
    groups: Sequence[RowGroup],
    updates: UpdatesConfig,
    *,
    precision: Precision,
) -> None:
    """Refill the memory, and the rollout's values and log-probs as far as `updates` says.

    Args:
        policy: Under whose weights.
        rollout: Its context order must be the one that the policy will act on.
        groups: Whose memory is emptied and written.
        updates: Which columns are taken over, and how many tokens go through at once.
        precision: Of the passes, as learning has it.
    """
    rows_at_once = rollout.num_envs
    if updates.refresh_tokens is not None:
        rows_at_once = max(1, updates.refresh_tokens // max(rollout.size, 1))
    for group in groups:
        for begin in range(group.rows.start, group.rows.stop, rows_at_once):
            rows_K = np.arange(begin, min(begin + rows_at_once, group.rows.stop))
            batch = rollout.batch(rows_K, 0, rollout.size, policy.device)
            local_K = rows_K - group.rows.start
            group.state.memory.reset(local_K)
            with autocast(precision, policy):
                output = policy.replay(batch, group.state, local_K)
            if updates.refresh_values:
                rollout.scatter(rollout.value_NT, rows_K, output.value)
            if updates.refresh_log_probs:
                rollout.scatter(rollout.log_prob_NT, rows_K, output.log_prob)
