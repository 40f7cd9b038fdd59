import copy

import numpy as np
import pytest
import torch

from relic.policy.attention.kinds import SinkKind
from relic.ppo.config import FullOrder, Precision, PrefixGradient
from relic.ppo.learner import Learner
from relic.ppo.loop import refresh, run_rollout
from relic.ppo.rollout import Rollout
from relic.ppo.schedule import UpdateKind
from tests.memories import CHOICES


def stop_after(built, updates):
    """Run one rollout until its given update, and leave it there."""
    loop = run_rollout(built.collector, built.learner, built.learner.schedule)
    for _ in range(updates):
        built.reports.append(next(loop))


def halve_passes(monkeypatch):
    def half(precision, device):
        return torch.autocast("cpu", torch.bfloat16)

    monkeypatch.setattr(Precision, "autocast", half)


def test_after_a_refresh_the_cache_is_a_fresh_prefill(training):
    built = training({"lr": 3e-3}, {"refresh_tokens": None})
    stop_after(built, 3)
    rollout, group = built.rollout, built.collector.groups[0]
    fresh = built.policy.initial_state(rollout.num_envs, rollout.num_steps)
    output = built.policy.replay(rollout.batch(np.arange(6), 0, rollout.size), fresh)
    assert torch.equal(fresh.memory.kv, group.state.memory.kv)
    assert torch.equal(fresh.memory.lengths, group.state.memory.lengths)
    order = torch.from_numpy(rollout.context_order_NT[:, : rollout.size])
    assert torch.equal(rollout.value_NT.gather(1, order), output.value)


def test_batches_of_a_refresh_change_memory_only(training):
    whole, pieces = (training({"lr": 3e-3}, {"refresh_tokens": n}) for n in (None, 20))
    for built in (whole, pieces):
        built.run(1)
    torch.testing.assert_close(pieces.rollout.value_NT, whole.rollout.value_NT, atol=1e-5, rtol=0)


def test_without_refresh_values_stay_as_acted(training):
    updates = {"shuffle": False, "refresh_memory": False, "refresh_values": False}
    built = training({"lr": 3e-3}, updates)
    stop_after(built, 1)
    before = built.rollout.value_NT.clone()
    kv = built.collector.groups[0].state.memory.kv
    built.collector.collect(20)
    assert torch.equal(built.rollout.value_NT[:, :10], before[:, :10])
    assert kv is built.collector.groups[0].state.memory.kv


@pytest.mark.parametrize("in_pass", [False, True])
def test_between_refreshes_the_learner_sees_what_the_agent_acted_on(training, in_pass):
    """Keys and values of older weights stay, and they are the same for both."""
    updates = {"refresh_every": 2, "per_rollout": 8, "refresh_in_pass": in_pass}
    built = training({"lr": 3e-3}, updates)
    stop_after(built, 2)
    order = built.rollout.context_order_NT.copy()
    kv = built.collector.groups[0].state.memory.kv.clone()
    built.collector.collect(15)
    state = built.collector.groups[0].state.memory
    used = slice(state.num_sinks, state.num_sinks + 10)
    assert torch.equal(state.kv[..., used, :], kv[..., used, :])
    reports = built.run(1)
    renewed = ["refresh" in r.times for r in reports]
    assert renewed == [False, True, True, False, True, False, False]
    assert (built.rollout.context_order_NT != order).any()
    partial = [r.metrics["ratio_drift_first"] for r in reports if not r.planned.last]
    assert max(partial) < 1e-5


@pytest.mark.parametrize(
    ("updates", "transformer"),
    [
        ({}, {}),
        ({"prefix_window": 4}, {"gradient_checkpointing": True}),
        ({"loss_chunks": 2}, {"sink": SinkKind.TOKEN}),
        ({"prefix_gradient": PrefixGradient.FULL}, {}),
    ],
)
def test_the_last_pass_leaves_its_keys_in_the_cache(training, updates, transformer):
    """They are what the weights before the last step make of the steps that it went over."""
    updates = {"refresh_in_pass": True, "refresh_every": 4, "per_rollout": 8, **updates}
    ppo = {"lr": 3e-3, "num_minibatches": 3}
    built = training(ppo, updates, num_envs=12, groups=2, transformer=transformer)
    passes = []
    evaluate_rows = built.learner.evaluate_rows

    def watch(update, group, rows_K):
        kv = group.state.memory.kv.clone()
        passes.append((update.planned, group, rows_K, copy.deepcopy(built.policy), kv))
        return evaluate_rows(update, group, rows_K)

    built.learner.evaluate_rows = watch
    loop = run_rollout(built.collector, built.learner, built.learner.schedule)
    for _ in range(3):
        passes.clear()
        next(loop)
        last_epoch = passes[len(passes) // 2 :]
        assert sorted(np.concatenate([rows_K for _, _, rows_K, *_ in last_epoch])) == list(
            range(12)
        )
        for planned, group, rows_K, policy, before in last_epoch:
            local_K, begin = group.index(rows_K), planned.begin
            state = state_at(begin, before[:, :, local_K], built, rows_K, policy)
            policy.replay(built.rollout.batch(rows_K, begin, planned.at_step), state)
            used = state.memory.num_sinks + planned.at_step
            steps = slice(state.memory.num_sinks, used)  # sinks are written by the next step
            got = group.state.memory.kv[:, :, local_K, :, steps]
            torch.testing.assert_close(got, state.memory.kv[..., steps, :], atol=1e-5, rtol=1e-5)
            assert (got - before[:, :, local_K, :, steps]).abs().max() > 1e-4
    built.collector.close()


def state_at(begin, kv, built, rows_K, policy):
    """A state of some rows after their first steps, which left these keys and values."""
    state = policy.initial_state(len(rows_K), built.rollout.num_steps)
    memory = state.memory
    used = memory.num_sinks + begin
    memory.kv[..., :used, :] = kv[..., :used, :]
    memory.host_lengths[:] = begin
    memory.lengths.fill_(begin)
    memory.segment_steps.fill_(begin)
    for k, row in enumerate(rows_K):
        for t in built.rollout.context_order_NT[row, :begin]:
            starts = built.rollout.episode_starts_NT[row, t]
            memory.last.in_episode[k] = 0 if starts else memory.last.in_episode[k] + 1
            memory.last.episode[k] += int(starts and t != built.rollout.context_order_NT[row, 0])
    return state


@pytest.mark.parametrize("prefix", [PrefixGradient.DETACHED, PrefixGradient.FULL])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_cache_of_half_the_precision_changes_little(training, prefix, groups):
    updates = {"per_rollout": 8, "prefix_gradient": prefix}
    exact, half = (
        training({"lr": 3e-3}, updates, groups=groups, cache_dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    kv, kv_half = (t.collector.groups[0].state.memory.kv for t in (exact, half))
    assert kv_half.nbytes * 2 == kv.nbytes
    drift = [r.metrics["ratio_drift_first"] for r in half.run(1) if not r.planned.last]
    assert 1e-4 < max(drift) < 0.01


def test_reports_cover_the_rollout(training):
    built = training(num_envs=4, num_steps=40)
    reports = built.run(2)
    assert [r.env_steps for r in reports] == [40 * (i + 1) for i in range(8)]
    assert [r.planned.last for r in reports] == [False, False, False, True] * 2
    for report in reports:
        assert {"simulate", "act", "learn"} <= set(report.times)
        assert ("refresh" in report.times) == (not report.planned.last)
        assert all(np.isfinite(v) for v in report.metrics.values())


@pytest.mark.parametrize(
    ("memory", "transformer"),
    [
        ("transformer", {"depth_dropout": 0.2}),
        ("transformer", {"sink": SinkKind.TOKEN, "rotate_sink_query": False}),
        *((memory, {}) for memory in CHOICES if memory != "transformer"),
    ],
)
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_restored_run_equals_one_that_went_on(
    training, memory, transformer, half, groups, monkeypatch
):
    if half:
        halve_passes(monkeypatch)
    kinds = {"memory": memory, "groups": groups, "transformer": transformer}
    straight, stopped, resumed = (training({"lr": 3e-3}, **kinds) for _ in range(3))
    straight.run(2)
    stopped.run(1)
    stop_after(stopped, 2)
    rollout = stopped.rollout
    chunks = [rollout.chunk_state(0, 10), rollout.chunk_state(10, 20)]
    resumed.take_over(stopped, chunks)
    resumed.run(1)
    assert len(resumed.reports) == 2
    for a, b in zip(straight.reports[-2:], resumed.reports, strict=True):
        assert a.metrics == b.metrics
        assert a.env_steps == b.env_steps
    for a, b in zip(straight.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    for built in (straight, stopped, resumed):
        built.collector.close()


def test_a_rollout_wants_all_its_chunks(training):
    built = training()
    stop_after(built, 2)
    rollout = built.rollout
    with pytest.raises(ValueError, match="chunks must cover all 20 steps, got the first 10"):
        training().rollout.load_state_dict(rollout.state_dict(), [rollout.chunk_state(0, 10)])


def test_rollout_counts_its_bytes(training):
    rollout: Rollout = training(num_envs=2, num_steps=8).rollout
    # 3 floats of observation, an int64 action, log-prob, value, final value, reward, 4 flags and
    # an int64 of context order.
    assert rollout.nbytes == 2 * 8 * (12 + 8 + 3 * 4 + 4 + 4 + 8)


def test_refresh_needs_nothing_but_weights_and_rollout(training):
    built = training({"lr": 3e-3})
    stop_after(built, 2)
    before = built.collector.groups[0].state.memory.kv.clone()
    built.collector.groups[0].state.memory.kv.fill_(float("nan"))
    learner = built.learner
    refresh(built.collector, learner.updates, precision=learner.ppo.precision)
    size = built.rollout.size
    assert torch.equal(
        built.collector.groups[0].state.memory.kv[..., :size, :], before[..., :size, :]
    )


@pytest.mark.parametrize("prefix", [PrefixGradient.DETACHED, PrefixGradient.FULL])
def test_passes_of_half_the_precision_change_little(training, monkeypatch, prefix):
    """As on a GPU, where learning and refreshes share the number format."""
    halve_passes(monkeypatch)
    built = training({"lr": 3e-3}, {"prefix_gradient": prefix})
    stop_after(built, 3)
    drift = [r.metrics["ratio_drift_first"] for r in built.reports]
    assert 1e-4 < max(drift) < 0.05
    rollout, memory = built.rollout, built.collector.groups[0].state.memory
    assert memory.kv.dtype == torch.float32
    exact = built.policy.initial_state(rollout.num_envs, rollout.num_steps)
    output = built.policy.replay(rollout.batch(np.arange(6), 0, rollout.size), exact)
    order = torch.from_numpy(rollout.context_order_NT[:, : rollout.size])
    for got, want in [
        (memory.kv, exact.memory.kv),
        (rollout.value_NT.gather(1, order), output.value),
    ]:
        assert 1e-4 < (got - want).abs().max() < 0.05


@pytest.mark.parametrize("groups", [1, 2])
def test_steps_of_cuda_graphs_collect_the_same(training, groups):
    plain, captured = (training({"lr": 3e-3}, groups=groups, cuda_graph=on) for on in (False, True))
    reports = plain.run(2), captured.run(2)
    for group in captured.collector.groups:
        assert group.state.memory.cuda_graph.graph_slots
    assert torch.equal(plain.rollout.action, captured.rollout.action)
    torch.testing.assert_close(plain.rollout.log_prob_NT, captured.rollout.log_prob_NT)
    assert max(r.metrics["ratio_drift_first"] for r in reports[1]) <= 1e-5
    for built in (plain, captured):
        built.collector.close()
    assert all(group.state.memory.cuda_graph is None for group in captured.collector.groups)


@pytest.mark.parametrize("env", ["ragged", "darkroom"])
def test_between_rollouts_rows_may_be_cut_otherwise(training, env):
    kinds = {"env": env, "num_envs": 4}
    straight, stopped = (training({"lr": 3e-3}, **kinds) for _ in range(2))
    cut = training({"lr": 3e-3}, groups=2, **kinds)
    straight.run(2)
    stopped.run(1)
    cut.policy.load_state_dict(stopped.policy.state_dict())
    cut.learner.load_state_dict(stopped.learner.state_dict())
    cut.collector.load_state_dict({**stopped.collector.state_dict(), "groups": None})
    cut.run(1)
    trials = np.concatenate([group.env.trial for group in cut.collector.groups])
    assert np.array_equal(trials, straight.collector.groups[0].env.trial)
    for a, b in zip(straight.policy.parameters(), cut.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    cut.collector.close()


def ratios_of_a_full_update(training, **updates):
    """Ratios (N, T), in the context's order, of a policy that has learned nothing."""
    built = training({"lr": 0.0, "update_epochs": 1, "num_minibatches": 1}, updates)
    found = []

    def evaluate(update, group, rows_K):
        evaluation = Learner.evaluate_rows(built.learner, update, group, rows_K)
        if update.planned.kind is UpdateKind.FULL:
            old = update.targets(rows_K, torch.device("cpu")).log_prob
            found.append((evaluation.log_prob.detach() - old).exp())
        return evaluation

    built.learner.evaluate_rows = evaluate
    built.run(1)
    return torch.cat(found)


def test_full_updates_in_time_order_see_what_was_acted_on(training):
    orders = [
        ratios_of_a_full_update(training, full_order=order, refresh_values=False)
        for order in (FullOrder.SHUFFLED, FullOrder.TIME)
    ]
    shuffled, in_time = [(ratio - 1).abs().mean().item() for ratio in orders]
    assert in_time < 0.6 * shuffled
    # Where the agent's context was never shuffled, not even that is left.
    exact = ratios_of_a_full_update(training, full_order=FullOrder.TIME, shuffle=False)
    torch.testing.assert_close(exact, torch.ones_like(exact), atol=1e-5, rtol=0)


def test_after_a_full_update_in_time_order_the_agent_acts_on_what_is_learned_from(training):
    updates = {"full_order": FullOrder.TIME, "per_rollout": 8, "full_per_rollout": 2}
    reports = training({"lr": 3e-3}, updates).run(2)
    assert [r.planned.kind for r in reports[:8]].count(UpdateKind.FULL) == 2
    partial = [r.metrics["ratio_drift_first"] for r in reports if r.planned.kind.value == "partial"]
    assert max(partial) < 1e-5
