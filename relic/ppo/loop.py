"""One rollout from its first step to its last update; the local trainer and Ray both run it.

The whole of a partial update is on this page and on that of `relic.ppo.learner`: collect a chunk,
learn from it, shuffle the episodes in the context, refresh the memory, and go on in the same trial.
`relic.ppo.schedule` says when, and which steps an update sees.

Shapes: N rows, K rows of a batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from relic.ppo.config import FullOrder, Precision, UpdatesConfig
from relic.ppo.final_values import (
    let_values_stand_in,
    needs_old_final_values,
    refresh_final_values,
)
from relic.ppo.learner import Learner
from relic.ppo.rollout import Rollout
from relic.ppo.schedule import PlannedUpdate, UpdateKind, UpdateSchedule
from relic.ppo.source import RolloutSource


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What happened up to and including one update."""

    planned: PlannedUpdate
    env_steps: int
    """Environment steps of the run so far, all rows and ranks."""
    metrics: dict[str, float]
    episodes: dict[str, np.ndarray[Any, Any]]
    """Records of this process's episodes that ended since the last report; empty if none did."""
    crashes: int
    """How often rows of this process have crashed since the last report."""
    times: dict[str, float]
    """Seconds since the last report: simulate, act, learn, refresh."""


def run_rollout(
    collector: RolloutSource, learner: Learner, schedule: UpdateSchedule
) -> Iterator[UpdateReport]:
    """Collect a rollout and learn from it as scheduled, one report per update.

    Reports come at update boundaries: after shuffle and refresh, when a checkpoint can be taken.
    The caller may stop iterating after any of them. A rollout that was restored in the middle goes
    on; a finished or empty one begins anew, in new trials.

    Args:
        collector: Acts and owns the rollout.
        learner: Changes the policy.
        schedule: The updates of a rollout.

    Yields:
        A report after each update.
    """
    rollout = collector.rollout
    if rollout.size in (0, schedule.num_steps):
        collector.begin_rollout()
    for planned in schedule.remaining(rollout.size):
        collector.collect(planned.at_step)
        # Before the update, as all values of the chunk: advantages compare values of one policy.
        bootstrap_N = collector.bootstrap_value()
        times = collector.take_times()
        began = time.perf_counter()
        order_for(planned, rollout, learner.updates)
        metrics = learner.update(
            rollout,
            planned,
            groups=collector.groups,
            bootstrap_N=bootstrap_N,
            env_steps=collector.env_steps,
        )
        times["learn"] = time.perf_counter() - began
        # After the last update new trials begin: nothing is left to be seen in another order.
        if not planned.last and learner.updates.renews_after(planned.index):
            began = time.perf_counter()
            renew_context(
                collector,
                learner.updates,
                draw=learner.num_updates,
                precision=learner.ppo.precision,
                final_values=needs_old_final_values(schedule, learner.updates, planned),
            )
            times["refresh"] = time.perf_counter() - began
        episodes, crashes = collector.take_episodes(), collector.take_crashes()
        yield UpdateReport(planned, collector.env_steps, metrics, episodes, crashes, times)


def order_for(planned: PlannedUpdate, rollout: Rollout, updates: UpdatesConfig) -> None:
    """Bring the context into the order that an update sees."""
    if planned.kind is UpdateKind.FULL and updates.full_order is FullOrder.TIME:
        # The pass reads the context from its beginning, so no memory of another order enters.
        rollout.restore_time_order()


def renew_context(
    collector: RolloutSource,
    updates: UpdatesConfig,
    *,
    draw: int,
    precision: Precision,
    final_values: bool = False,
) -> None:
    """Shuffle the completed episodes and refresh the memory, as far as the configuration says.

    In this order, so that the agent acts on exactly the context that the next update sees.

    Args:
        collector: Holds the rollout and the memory.
        updates: Says whether to shuffle and to refresh.
        draw: Updates of the run so far, which number the shuffle.
        precision: Of the refresh, as learning has it.
        final_values: Value final observations anew, too.
    """
    if updates.shuffle:
        collector.rollout.shuffle(collector.seed, draw)
    if final_values:
        refresh_final_values(collector, updates, precision=precision)
    restore_memory(collector, updates, precision=precision)
    if final_values:
        let_values_stand_in(collector.rollout)


def restore_memory(
    collector: RolloutSource, updates: UpdatesConfig, *, precision: Precision
) -> None:
    """Refresh the memory, if the configuration does so: at an update boundary, and after a restart.

    With refresh off, weights and rollout do not determine the memory, and nothing happens here.
    """
    if updates.refresh_memory and collector.rollout.size:
        refresh(collector, updates, precision=precision)


def refresh(collector: RolloutSource, updates: UpdatesConfig, *, precision: Precision) -> None:
    """Refill the memory, and the rollout's values and log-probs as far as `updates` says.

    Afterwards the memory is a pure function of weights, rollout and context order, made by the same
    code in the same batches whether a run goes on or is resumed: a resumed run continues bit for
    bit without a saved memory.

    Args:
        collector: Holds the memory, the rollout, and the policy with its present weights.
        updates: Says which columns to take over, and how many tokens go through at once.
        precision: Of the passes, as learning has it.
    """
    policy, rollout = collector.policy, collector.rollout
    for group in collector.groups:
        for rows_K in collector.row_batches(group.rows_N, updates.refresh_tokens):
            batch = rollout.batch(rows_K, 0, rollout.size, policy.device)
            # Keys under old weights, in the old order, are of no use: the context is read from its
            # beginning.
            group.state.memory.reset(group.index(rows_K))
            with precision.autocast(policy.device):
                output = policy.replay(batch, group.state, group.index(rows_K))
            # The pass has made them anyway.
            if updates.refresh_values:
                rollout.scatter(rollout.value_NT, rows_K, output.value)
            if updates.refresh_log_probs:
                rollout.scatter(rollout.log_prob_NT, rows_K, output.log_prob)
