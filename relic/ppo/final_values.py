"""Values of final observations, recomputed after a refresh.

Where a time limit or a crash ends an episode, the value of its final observation stands for what
would have come. It is made as the step happens, under the weights of the day. When a later update
learns from such steps, the values of all steps have been refreshed; then those of the final
observations must be of the same weights and the same context, too.

A final observation belongs behind its episode's last step, wherever a shuffle has put that, and no
other step may see it. So a context is replayed from one of them to the next, and each is looked at
as it was in acting: by a step that is not written.

Shapes: N rows of a group, K chosen rows, C steps of the context.
"""

from __future__ import annotations

import numpy as np
import torch

from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch
from relic.ppo.config import Precision, UpdatesConfig
from relic.ppo.rollout import Rollout
from relic.ppo.schedule import PlannedUpdate, UpdateSchedule
from relic.ppo.source import Array, RolloutSource, RowGroup


def needs_old_final_values(
    schedule: UpdateSchedule, updates: UpdatesConfig, renewed: PlannedUpdate
) -> bool:
    """Say whether an update before the next renewal learns from steps before its newest chunk.

    Only then do final values of older weights count. To value them anew costs more than the rest of
    a refresh where episodes are short, and most partial updates learn from their chunk alone.
    """
    if not updates.refresh_values:
        return False
    for planned in schedule.table[renewed.index + 1 :]:
        if planned.loss_from < planned.chunk_from:
            return True
        if updates.renews_after(planned.index):
            return False
    return False


def refresh_final_values(
    collector: RolloutSource, updates: UpdatesConfig, *, precision: Precision
) -> None:
    """Value all final observations anew, in the context's present order.

    The replay goes through the memory of the rows, which must be refreshed afterwards.

    Args:
        collector: Whose rollout and memory, under the present weights of its policy.
        updates: Says how many tokens go through at once.
        precision: Of the passes, as learning has it.
    """
    for group in collector.groups:
        rows_N = collector.rollout.finals.rows(group.rows_N)
        for rows_K in collector.row_batches(rows_N, updates.refresh_tokens):
            _refresh_rows(collector, group, rows_K, precision)


def let_values_stand_in(rollout: Rollout) -> None:
    """Where nothing was seen at an episode's end, take the present value of its last step."""
    for at, seen in rollout.finals.kept.items():
        if seen is None:
            rollout.final_value_NT[at] = rollout.value_NT[at]


def _refresh_rows(
    collector: RolloutSource, group: RowGroup, rows_K: Array, precision: Precision
) -> None:
    """Replay some rows' contexts from one final observation to the next, and look at each."""
    policy, rollout = collector.policy, collector.rollout
    ends_K = [_ends_in_context(rollout, int(row)) for row in rows_K]
    index_K = group.index(rows_K)
    batch = rollout.batch(rows_K, 0, rollout.size, policy.device)
    # The replay needs the rows' own memory; the refresh that must follow fills it again.
    group.state.memory.reset(index_K)
    begun_K = np.zeros(len(rows_K), np.int64)
    for number in range(max(map(len, ends_K))):
        has_K = [number < len(ends) for ends in ends_K]
        until_K = begun_K.copy()
        until_K[has_K] = [ends[number][0] for ends in ends_K if number < len(ends)]
        with precision.autocast(policy.device):
            policy.replay(
                _part(batch, begun_K, until_K), group.state, index_K, lengths=until_K - begun_K
            )
        places = [(int(rows_K[k]), ends_K[k][number][1]) for k in np.flatnonzero(has_K)]
        _look(policy, rollout, group, places)
        begun_K = until_K


def _ends_in_context(rollout: Rollout, row: int) -> list[tuple[int, int]]:
    """Return how many steps of the context each final observation follows, and its time step."""
    # The inverse of the order: where each time step stands.
    place_C = np.argsort(rollout.context_order_NT[row, : rollout.size])
    return sorted((int(place_C[t]) + 1, t) for t in rollout.finals.of_row(row))


def _part(batch: SequenceBatch, begun_K: Array, until_K: Array) -> SequenceBatch:
    """Gather each row's own span of a batch; rows with shorter ones are padded."""
    last = batch.episode_starts.shape[1] - 1
    longest = int((until_K - begun_K).max())
    # Padding may be any step, since `lengths` keeps it out of the memory.
    place_KC = np.minimum(begun_K[:, None] + np.arange(longest), last)
    device = batch.episode_starts.device
    place = torch.from_numpy(place_KC).to(device)
    rows = torch.arange(len(begun_K), device=device)[:, None]
    return SequenceBatch(
        observation={name: column[rows, place] for name, column in batch.observation.items()},
        action=batch.action[rows, place],
        prev_action=batch.prev_action[rows, place],
        episode_starts=batch.episode_starts[rows, place],
    )


def _look(policy: Policy, rollout: Rollout, group: RowGroup, places: list[tuple[int, int]]) -> None:
    """Value one final observation of each row that has one, behind what its memory holds."""
    count = len(group.rows_N)
    # What the other rows see does not matter, but must be something that can be seen.
    observation = {
        name: column[group.rows, 0].clone() for name, column in rollout.observation.items()
    }
    for row, column in places:
        for name, value in (rollout.finals.kept[row, column] or {}).items():
            observation[name][row - group.rows.start] = value
    seen = {name: column.to(policy.device) for name, column in observation.items()}
    value_N = policy.value(seen, group.state, episode_starts=np.zeros(count, bool))
    for row, column in places:
        rollout.final_value_NT[row, column] = value_N[row - group.rows.start]
