from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.core.demonstrations import DemonstrationError, Demonstrations
from envs.make import make_trial_env
from relic.evaluation.evaluator import evaluate
from relic.evaluation.maps import DarkroomMap, HouseMap, map_of
from relic.evaluation.recorded_trial import attention_of, record_trial
from relic.evaluation.report.trial_plots import plot_paths, plot_shares, plot_where
from relic.policy.config import PolicyConfig
from relic.policy.policy import Policy
from relic.schema import build
from tests.evaluation.conftest import HORIZON, OPTIONS, small_protocol

HOUSES = {"split": "val", "resolution": 16, "task": {"max_episode_steps": 25}}


@pytest.fixture
def recorded(policy):
    return record_trial(policy, small_protocol(), 1, episodes=3, shown=1)


def test_a_trace_is_what_an_evaluation_of_the_trial_does(policy):
    recorded = record_trial(policy, small_protocol(), 2, episodes=3)
    alone = small_protocol(first_trial=2, trials=1, repeats=1, episodes=3, block=1)
    assert list(recorded.records) == evaluate(policy, alone)
    assert recorded.episode_T.tolist() == [e for e in range(3) for _ in range(HORIZON)]
    assert recorded.episode(1) == slice(HORIZON, 2 * HORIZON)


def test_positions_and_actions_retrace_the_trial(recorded):
    env = make_trial_env("relic/Darkroom-v0", 1, {**OPTIONS, "split": "test"})
    observation, _ = env.reset(options={"trial": np.array([1])})
    for step, action in enumerate(recorded.batch.action[0].numpy()):
        x, y = recorded.position_T2[step]
        np.testing.assert_allclose(observation["position"][0], np.array([x, y]) * 2 / 3 - 1)
        if step < HORIZON:
            assert action == env.expert_actions()[0]
        observation = env.step(np.array([action]))[0]
    assert recorded.goals(0).tolist() == [list(divmod(recorded.records[0]["goal"], 4))]


def test_the_batch_holds_what_the_policy_saw(policy):
    # A full pass over it chooses, greedily, the actions that were taken step by step.
    protocol = replace(small_protocol(), deterministic=True)
    recorded = record_trial(policy, protocol, 0, episodes=3)
    with torch.no_grad():
        chosen = policy.evaluate_actions(recorded.batch).distribution.mode()
    assert torch.equal(chosen, recorded.batch.action)


def test_unfit_demonstrations_are_refused(policy):
    foreign = Demonstrations("other", {}, "x")
    with pytest.raises(DemonstrationError, match="must be of relic-darkroom"):
        record_trial(policy, small_protocol(), 0, episodes=2, shown=1, demonstrations=foreign)


def test_shares_add_up_the_weights(policy, recorded):
    attention = attention_of(policy, recorded)
    shares = attention.shares()
    total = shares.sink_LHT + shares.own_LHT + shares.earlier_LHT
    np.testing.assert_allclose(total, 1.0, atol=1e-5)
    (layer,) = attention.layers
    weights_HQJ = layer.weights()[0].numpy()
    for step in (0, 5, HORIZON, 3 * HORIZON - 1):
        first = step // HORIZON * HORIZON
        to_steps_HT = weights_HQJ[:, step, 1:]
        np.testing.assert_allclose(shares.sink_LHT[0, :, step], weights_HQJ[:, step, 0], atol=1e-6)
        earlier_H = to_steps_HT[:, :first].sum(1)
        np.testing.assert_allclose(shares.earlier_LHT[0, :, step], earlier_H, atol=1e-6)
        own_H = to_steps_HT[:, first:].sum(1)
        np.testing.assert_allclose(shares.own_LHT[0, :, step], own_H, atol=1e-6)
        at_step = attention.to_steps(slice(step, step + 1))
        np.testing.assert_allclose(at_step[0], to_steps_HT, atol=1e-6)
    assert (shares.earlier_LHT[..., :HORIZON] == 0).all()
    means = shares.by_episode()
    expected = weights_HQJ[:, HORIZON : 2 * HORIZON, 1 : 1 + HORIZON].sum(2).mean(1)
    np.testing.assert_allclose(means[0, :, 1, 0], expected, atol=1e-6)


def test_many_steps_are_looked_at_in_parts(policy, monkeypatch):
    recorded = record_trial(policy, small_protocol(), 1, episodes=3)
    whole = attention_of(policy, recorded).shares()
    monkeypatch.setattr("relic.evaluation.recorded_trial._AT_ONCE", 7)
    parts = attention_of(policy, recorded).shares()
    np.testing.assert_allclose(parts.episode_LHTI, whole.episode_LHTI, atol=1e-6)
    np.testing.assert_allclose(parts.sink_LHT, whole.sink_LHT, atol=1e-6)


def test_pictures_show_the_numbers(policy, recorded, tmp_path):
    attention = attention_of(policy, recorded)
    step = 2 * HORIZON + 1
    where = plot_where(attention, step)
    reference, first, second = (a for a in where.axes if a.get_title())
    to_earlier_H = attention.to_steps(slice(step, step + 1))[0][:, : 2 * HORIZON].sum(1)
    for axes, share in ((reference, 1.0), (first, to_earlier_H[0]), (second, to_earlier_H[1])):
        assert axes.collections[2].get_sizes().sum() == pytest.approx(600 * share, rel=1e-4)
    assert first.get_title() == f"layer 0, head 0: {100 * to_earlier_H[0]:.0f} %"
    paths = plot_paths(recorded, [0, 2])
    assert [a.get_title() for a in paths.axes] == [
        f"episode {e} ({w})\nreturn {recorded.records[e]['return']:.3g}"
        for e, w in ((0, "shown"), (2, "own"))
    ]
    plot_shares(attention.shares()).savefig(tmp_path / "shares.png")
    assert (tmp_path / "shares.png").stat().st_size > 5000


def test_houses_have_a_map():
    env = make_trial_env("relic/Houses-v0", 1, HOUSES)
    sizes = {"num_layers": 1, "num_heads": 2, "width": 16, "mlp_width": 16}
    policy = Policy(
        build(PolicyConfig, {"transformer": sizes}),
        env.single_observation_space,  # type: ignore[arg-type]
        env.single_action_space,
        max_episode_steps=env.max_episode_steps,
    ).eval()
    protocol = small_protocol(env="relic/Houses-v0", options=HOUSES)
    recorded = record_trial(policy, protocol, 3, episodes=2, shown=1)
    trial_map = recorded.map
    assert isinstance(trial_map, HouseMap)
    assert (recorded.position_T2 > 0).all()
    assert (recorded.position_T2 < np.array(trial_map.scene.house.extent)).all()
    # A step forward is a quarter of a metre, at most.
    moved_T = np.linalg.norm(np.diff(recorded.position_T2[recorded.episode(0)], axis=0), axis=1)
    assert 0 < moved_T.max() <= 0.25 + 1e-9
    categories = {(o.x, o.y): o.category for o in trial_map.scene.objects}
    goal = recorded.records[1]["goal"]
    assert [categories[x, y] for x, y in recorded.goals(1).tolist()] == [goal] * len(
        recorded.goals(1)
    )
    plot_paths(recorded, [0, 1], "success")
    plot_where(attention_of(policy, recorded), recorded.episode(1).start)


def test_environments_without_a_map_are_refused():
    env = make_trial_env("relic/FourBoxes-v0", 1, {})
    with pytest.raises(ValueError, match="must be Darkroom or Houses, got FourBoxesVectorEnv"):
        map_of(env)
    assert map_of(make_trial_env("relic/Darkroom-v0", 1, OPTIONS)) == DarkroomMap(4)
