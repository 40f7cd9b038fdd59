"""After a refresh, the values of final observations are of the same weights as all others."""

import itertools

import numpy as np
import pytest
import torch

from relic.policy.steps import SequenceBatch
from relic.ppo.config import UpdatesConfig
from relic.ppo.final_values import needs_old_final_values
from relic.ppo.loop import run_rollout
from relic.ppo.rollout import Rollout
from relic.ppo.schedule import UpdateSchedule
from tests.memories import CHOICES


def run_until_last(built):
    """Run a rollout until only its full update is left; all updates before were partial."""
    loop = run_rollout(built.collector, built.learner, built.learner.schedule)
    built.reports.extend(itertools.islice(loop, len(built.learner.schedule.table) - 1))


def value_in_context(built, row, column):
    """Judge a final observation by one full pass over all that stands before it in the context."""
    rollout = built.rollout
    order = rollout.context_order_NT[row, : rollout.size]
    times = order[: int(np.flatnonzero(order == column)[0]) + 1]
    seen = rollout.observation["seen"][row, times]
    final = seen[-1:].clone()
    final[:, 1] += 0.1  # the counter
    actions, zero = rollout.action[row, times], torch.zeros(1, dtype=torch.int64)
    before = rollout.action[row, np.maximum(times - 1, 0)]
    starts = torch.from_numpy(rollout.episode_starts_NT[row, times])
    batch = SequenceBatch(
        observation={"seen": torch.cat([seen, final])[None]},
        action=torch.cat([actions, zero])[None],
        prev_action=torch.cat([before, actions[-1:]])[None],
        episode_starts=torch.cat([starts, zero.bool()])[None],
    )
    mask_NL = built.collector.groups[0].state.memory.depth_mask_NL
    mask = None if mask_NL is None else mask_NL[row : row + 1]
    with torch.no_grad():
        return built.policy.evaluate_actions(batch, depth_mask_NL=mask).value[0, -1]


@pytest.mark.parametrize(
    ("memory", "transformer"),
    [
        ("transformer", {}),
        ("transformer", {"inter_episode_attention": False}),
        ("transformer", {"attention_window": 7}),
        ("transformer", {"depth_dropout": 0.3}),
        *((memory, {}) for memory in CHOICES if memory != "transformer"),
    ],
)
@pytest.mark.parametrize("tokens", [None, 70])
def test_final_values_follow_the_weights_and_the_order(training, memory, transformer, tokens):
    built = training(
        {"lr": 3e-3, "update_epochs": 4},
        {"refresh_tokens": tokens},
        memory=memory,
        transformer=transformer,
    )
    run_until_last(built)
    rollout = built.rollout
    ended = rollout.truncated_NT[:, : rollout.size]
    assert (rollout.context_order_NT[:, : rollout.size] != np.arange(rollout.size)).any()
    assert not rollout.final_value_NT[:, : rollout.size].numpy()[~ended].any()
    for row, column in np.argwhere(ended):
        got = rollout.final_value_NT[row, column]
        expected = value_in_context(built, row, column)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_values_stand_in_where_a_simulator_died(training):
    built = training({"lr": 3e-3})
    env = built.collector.groups[0].env
    step = env.step

    def dies(actions):
        *answer, infos = step(actions)
        for row in np.flatnonzero(infos.get("episode_record", {}).get("crashed", ())):
            infos["final_obs"][row] = None
        return *answer, infos

    env.step = dies
    run_until_last(built)
    rollout = built.rollout
    crashed = rollout.crashed_NT[:, : rollout.size]
    assert crashed.any()
    values = (
        column[:, : rollout.size][crashed] for column in (rollout.final_value_NT, rollout.value_NT)
    )
    assert torch.equal(*values)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_run_goes_on_from_refreshed_final_values(training, groups):
    straight, stopped, resumed = (training({"lr": 3e-3}, groups=groups) for _ in range(3))
    straight.run(1)
    run_until_last(stopped)
    rollout = stopped.rollout
    chunks = [rollout.chunk_state(begin, begin + 10) for begin in (0, 10, 20)]
    for chunk in chunks:
        chunk["final_value"].zero_()  # chunks are written before values are refreshed
    resumed.take_over(stopped, chunks)
    assert resumed.rollout.finals.kept.keys() == rollout.finals.kept.keys()
    resumed.run(1)
    assert straight.reports[-1].metrics == resumed.reports[-1].metrics
    for a, b in zip(straight.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    for built in (straight, stopped, resumed):
        built.collector.close()


def test_chunks_of_some_rows_take_their_final_observations_along(training):
    built = training()
    run_until_last(built)
    rollout = built.rollout
    space, actions = built.policy.stored_space, built.policy.action_space
    other = Rollout(6, 40, space, action_space=actions)
    for rows in (slice(0, 2), slice(2, 6)):
        other.load_chunk(rollout.chunk_state(0, 30, rows), rows)
    assert other.finals.kept.keys() == rollout.finals.kept.keys()
    for at, seen in rollout.finals.kept.items():
        assert torch.equal(other.finals.kept[at]["seen"], seen["seen"])
    assert rollout.finals.nbytes == 12 * len(rollout.finals.kept) > 0
    rollout.clear()
    assert rollout.finals.nbytes == 0
    older = other.chunk_state(0, 30)
    del older["finals"]
    rollout.load_chunk(older)
    assert not rollout.finals.kept


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [False, False, True]),
        ({"loss_chunks": 2}, [True, True, True]),
        ({"full_per_rollout": 2}, [True, False, True]),
        ({"refresh_every": 2}, [False, True, True]),
        ({"full_per_rollout": 0}, [False, False, False]),
        ({"refresh_values": False}, [False, False, False]),
    ],
)
def test_they_are_made_anew_where_an_update_will_read_them(fields, expected):
    updates = UpdatesConfig(per_rollout=4, **fields)
    plan = {k: v for k, v in fields.items() if not k.startswith("refresh")}
    schedule = UpdateSchedule(40, per_rollout=4, **plan)
    said = [needs_old_final_values(schedule, updates, planned) for planned in schedule.table[:-1]]
    assert said == expected
