"""Limits of the context against a slow definition, and what they are refused for."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from relic.evaluate import evaluate as main
from relic.evaluation.controls import ContextControl, limited
from relic.evaluation.curves import episodes_within
from relic.evaluation.evaluator import evaluate, make_env
from relic.evaluation.report.plots import plot_curve, trained_context
from relic.evaluation.trained_agent import check_memory, check_reach
from relic.noise import key, row_uniforms
from relic.policy.attention.kinds import AttentionBackend
from relic.policy.config import PolicyConfig
from relic.policy.loading import save_policy
from relic.policy.memory.kv_cache import KVCache
from relic.policy.policy import Policy
from relic.schema import build
from tests.evaluation.conftest import HORIZON, small_protocol
from tests.evaluation.test_cli import SMALL, refused
from tests.memories import CHOICES

SHORT = (*SMALL, "controls=[]")


def with_memory(policy: Policy, fields: dict) -> Policy:
    return Policy(
        build(PolicyConfig, fields),
        policy.observation_space,
        policy.action_space,
        max_episode_steps=HORIZON,
    ).eval()


def slow_returns(policy, protocol, trial, first_seen):
    """Evaluate a trial with a memory that is filled anew for each step.

    The memory of the one layer that there is holds what tokens say, not what was seen before them:
    so it is that of the steps from `first_seen(t)` on, each at the place where it stood.
    """
    assert policy.config.transformer.num_layers == 1
    env = make_env(replace(protocol, block=1))
    noise_key = np.array([int(key(trial, 0)) & (1 << 63) - 1])
    observation, _ = env.reset(options={"trial": np.array([trial])})
    seen, actions, returns = [], [], []
    for t in range(protocol.episodes * HORIZON):
        seen.append({k: torch.from_numpy(v.copy()) for k, v in observation.items()})
        begin = first_seen(t)
        state = policy.initial_state(1, t + 1)
        assert isinstance(state.memory, KVCache)
        if begin:
            state.memory.last.in_episode.fill_((begin - 1) % HORIZON)
            state.memory.last.episode.fill_((begin - 1) // HORIZON)
            state.record_action(actions[begin - 1])
        for s in range(begin, t):
            policy.step(seen[s], state, episode_starts=np.array([s % HORIZON == 0]))
            state.record_action(actions[s])
        noise = row_uniforms(protocol.seed, noise_key, t, policy.noise_size)
        starts = np.array([t % HORIZON == 0])
        action = policy.step(seen[t], state, episode_starts=starts, noise=noise).action
        actions.append(action)
        observation, reward, *_ = env.step(action.numpy())
        returns.append(float(reward[0]))
    return np.reshape(returns, (-1, HORIZON)).sum(1).tolist()


@pytest.mark.parametrize(
    ("limit", "first_seen"),
    [
        ("last:7", lambda t: max(0, t - 6)),
        ("drop_first:17", lambda t: 17 if t >= 17 else 0),
        ("none", lambda t: 0),
    ],
)
def test_limits_are_what_the_slow_definition_says(policy, limit, first_seen):
    protocol = small_protocol(trials=2, repeats=1, block=2, episodes=3, context_limit=limit)
    records = evaluate(policy, protocol)
    for trial in range(2):
        found = [r["return"] for r in records if r["trial"] == trial]
        assert found == slow_returns(policy, protocol, trial, first_seen)


@pytest.mark.parametrize("limit", ["last:7", "drop_first:17"])
def test_a_limit_decides_what_is_done(policy, limit):
    whole = evaluate(policy, small_protocol())
    assert evaluate(policy, small_protocol(context_limit=limit)) != whole


def test_limits_as_long_as_the_trial_give_the_bytes_of_none(run, tmp_path):
    limits = ["none", f"last:{4 * HORIZON}", f"drop_first:{4 * HORIZON}"]
    assert main([f"run={run}", f"out={tmp_path}", f"context_limits={limits}", *SMALL]) == 0
    for name in ("records.jsonl", "records_cleared.jsonl"):
        of_limit = {file.parent.name: file.read_bytes() for file in tmp_path.glob(f"*/{name}")}
        assert sorted(of_limit) == ["drop_first-48", "last-48", "none"]
        assert len(set(of_limit.values())) == 1


def test_a_limited_cache_keeps_no_more_than_is_seen(policy):
    slots = {
        limit: limited(policy, limit).memory.initial_state(2, 1000).slots  # type: ignore[attr-defined]
        for limit in ("none", "last:5", "drop_first:600")
    }
    assert slots == {"none": 1001, "last:5": 5, "drop_first:600": 600}


def test_a_limited_policy_shares_weights_and_is_limited_once(policy):
    other = limited(policy, "last:5")
    weights = zip(policy.parameters(), other.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in weights)
    assert not other.training
    assert limited(other, "last:5") is other
    assert limited(policy, "none") is policy
    assert policy.config.transformer.attention_window is None


@pytest.mark.parametrize("backend", ["compiled", "varlen"])
def test_a_backend_that_knows_no_windows_is_replaced(policy, backend):
    fixed = with_memory(policy, {"transformer": {"attention_backend": backend}})
    changed = limited(fixed, "last:5").config.transformer
    assert changed.attention_backend is AttentionBackend.AUTO
    assert changed.attention_window == 5


def test_a_limit_stands_in_the_place_of_the_policys_own(policy):
    windowed = with_memory(policy, {"transformer": {"attention_window": 9}})
    changed = limited(windowed, "drop_first:5").config.transformer
    assert (changed.attention_window, changed.drop_first) == (None, 5)
    assert limited(windowed, "none") is windowed


@pytest.mark.parametrize("limit", ["last:9", "drop_first:17"])
def test_controls_act_within_the_limit(policy, limit):
    # A first episode has nothing before it that a control could change.
    protocol = small_protocol(context_limit=limit, deterministic=True)
    kept, cleared, foreign = (
        evaluate(policy, protocol, control=control)
        for control in (ContextControl.KEPT, ContextControl.CLEARED, ContextControl.FOREIGN)
    )
    first = [r for r in kept if r["episode"] == 0]
    assert first == [r for r in cleared if r["episode"] == 0]
    assert first == [r for r in foreign if r["episode"] == 0]


def test_limits_of_one_checkpoint_are_compared(run, tmp_path, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "rollout": {"num_steps": 18}}))
    assert main([f"run={run}", "context_limits=[none, last:5]", *SHORT]) == 0
    said = capsys.readouterr().out
    (file,) = run.glob("evaluations/*/context_limits/comparison.json")
    entries = json.loads(file.read_text())["entries"]
    assert [e["name"] for e in entries] == ["no limit", "last 5 steps"]
    assert [e["context_limit"] for e in entries] == ["none", "last:5"]
    assert said.count("CHANGED: episodes=4 instead of 40") == 1
    assert "CHANGED: context_limit=last:5 instead of none" in said
    assert (file.parent / "plots" / "return.png").exists()
    assert not (file.parent / "plots" / "return_by_steps.png").exists()
    for entry in entries:
        (root,) = run.glob(f"evaluations/*-{entry['protocol_hash']}/step_000000000200")
        summary = json.loads((root / "summary.json").read_text())
        assert summary["context_limit"] == entry["context_limit"]
        assert (summary["trained_steps"], summary["trained_episodes"]) == (18, 1.5)
        identity = json.loads((root / "evaluation.json").read_text())
        assert identity["protocol"]["context_limit"] == entry["context_limit"]
        assert "Limit of the context" in (root / "report.html").read_text()
    assert entries[0]["protocol_hash"] != entries[1]["protocol_hash"]


def test_checkpoints_within_limits_have_a_series_for_each_limit(run, tmp_path):
    limits = "context_limits=[none, last:5]"
    assert main([f"run={run}", f"out={tmp_path}", "checkpoint=all", limits, *SHORT]) == 0
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert [e["name"] for e in comparison["entries"]] == [
        f"step_{steps:012d}, {words}"
        for steps in (100, 200)
        for words in ("no limit", "last 5 steps")
    ]
    assert len(list(tmp_path.glob("run/step_*/last-5/records.jsonl"))) == 2
    assert (tmp_path / "plots" / "return_by_steps.png").exists()


def test_the_end_of_the_trained_context_is_marked():
    curve = {"mean": [0, 1, 2], "low": [0, 1, 2], "high": [0, 1, 2], "count": [3, 3, 3]}
    facts = {"trained_steps": 1800, "trained_episodes": 1.5}
    (axes,) = plot_curve(curve, "return", trained=trained_context(facts)).axes
    assert np.array_equal(axes.lines[-1].get_xdata(), [1.5, 1.5])
    assert axes.lines[-1].get_label() == "trained context ends (1,800 steps)"
    assert trained_context({"trained_steps": 1800, "trained_episodes": None}) is None


def test_episodes_of_the_trained_context_by_hand():
    def made(*lengths):
        return [
            {"trial": t, "repeat": 0, "episode": e, "length": length}
            for t, own in enumerate(lengths)
            for e, length in enumerate(own)
        ]

    assert episodes_within(made((100, 100, 100)), 150) == 1.5
    assert episodes_within(made((100, 100, 100)), 200) == 2
    assert episodes_within(made((100, 100, 100)), 300) is None  # nothing goes beyond
    assert episodes_within(made((10, 30, 20), (40, 40), (5, 5)), 30) == pytest.approx(1 + 20 / 30)
    assert episodes_within(made((10, 30), (5, 5), (5, 5)), 30) is None  # most end before
    assert episodes_within(made((10, 30)), None) is None
    assert episodes_within([{"trial": 0, "repeat": 0, "episode": 0}], 30) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["context_limit=last:0"], "context_limit: must be none, last:N or drop_first:N"),
        (["context_limit=last:-3"], "with N of at least 1, got 'last:-3'"),
        (["context_limit=drop_first:0"], "got 'drop_first:0'"),
        (["context_limit=512"], "context_limit: must be none, last:N or drop_first:N with N of at"),
        (["context_limit=last"], "got 'last'. Write last:512"),
        (["context_limit=last:5,drop_first:5"], "got 'last:5,drop_first:5'"),
        (["context_limits=[none, first:5]"], "got 'first:5'"),
        (["context_limits=[none, none]"], "context_limits: must differ"),
        (["context_limits=[none]", "context_limit=last:5"], "must not be given with"),
        (["context_limt=last:5"], "Did you mean 'context_limit'?"),
        (["episodes=100_000_000", "block=64"], "GiB of memory that are free"),
    ],
)
def test_wrong_limits_are_refused_with_a_reason(run, capsys, arguments, message):
    given = {argument.partition("=")[0] for argument in arguments}
    small = [a for a in SMALL if a.partition("=")[0] not in given]
    assert message in refused(capsys, f"run={run}", *small, *arguments)
    assert not (run / "evaluations").exists()


@pytest.mark.parametrize("memory", [m for m in CHOICES if m != "transformer"])
def test_memories_without_such_a_cache_are_refused(policy, run, capsys, memory):
    save_policy(run / "checkpoints" / "step_000000000200", with_memory(policy, {"memory": memory}))
    said = refused(capsys, f"run={run}", *SMALL, "context_limits=[none, last:5]")
    assert f"context_limit: must be none for a memory of kind {memory}, got 'last:5'" in said
    assert not (run / "evaluations").exists()


def test_trials_beyond_a_table_of_positions_are_refused(policy, run, capsys):
    learned = {"episode_position": "learned", "max_episodes": 3}
    fields = {"transformer": learned}
    save_policy(run / "checkpoints" / "step_000000000200", with_memory(policy, fields))
    said = refused(capsys, f"run={run}", *SMALL)
    assert "protocol.episodes: must be at most 3" in said
    by_steps = ("episodes=null", f"steps={3 * HORIZON + 1}")
    said = refused(capsys, f"run={run}", *(a for a in SMALL if a != "episodes=4"), *by_steps)
    assert "got trials of 4 or more" in said
    running = {"reset_position": False, "max_positions": 40}
    save_policy(
        run / "checkpoints" / "step_000000000200", with_memory(policy, {"transformer": running})
    )
    said = refused(capsys, f"run={run}", *SMALL)
    assert "within the 40 steps that the policy has learned positions for, got up to 48" in said


def test_what_reaches_and_fits_passes(policy):
    check_reach(policy, 10**6, 10**9)  # rotary, and anew in each episode: no table to leave
    learned = {"episode_position": "learned", "max_episodes": 3, "reset_position": False}
    tables = with_memory(policy, {"transformer": {**learned, "max_positions": 40}})
    check_reach(tables, 3, 40)
    check_memory(limited(policy, "last:5"), 64, 10**12, "cpu")
    check_memory(with_memory(policy, {"memory": "gru"}), 64, 10**12, "cpu")
