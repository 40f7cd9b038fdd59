from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.core.vector import TrialVectorEnv
from envs.make import make_trial_env
from relic.evaluation.controls import ContextControl
from relic.evaluation.evaluator import evaluate, make_env, run_block
from relic.policy.config import PolicyConfig
from relic.policy.loading import load
from relic.policy.origin import check_fit
from relic.policy.policy import Policy
from relic.schema import build
from tests.evaluation.conftest import HORIZON, OPTIONS, small_policy, small_protocol


def outcomes(records):
    """What happened, without the number of the block that it happened in."""
    return [{k: v for k, v in r.items() if k != "block"} for r in records]


def test_every_unit_has_every_episode_once(policy):
    records = evaluate(policy, small_protocol())
    units = Counter((r["repeat"], r["trial"], r["episode"]) for r in records)
    assert set(units) == {(r, t, e) for r in range(2) for t in range(3) for e in range(4)}
    assert set(units.values()) == {1}
    assert [(r["repeat"], r["trial"], r["episode"]) for r in records] == sorted(units)
    assert all(r["length"] == HORIZON for r in records)


def test_records_are_plain_and_equal_when_evaluated_again(policy):
    first, second = (evaluate(policy, small_protocol()) for _ in range(2))
    assert first == second
    assert {type(v) for r in first for v in r.values()} <= {int, float, bool}


def test_blocks_alone_and_in_any_order_give_what_the_whole_gives(policy):
    protocol = small_protocol()
    env = make_env(protocol)
    blocks = reversed(list(protocol.blocks()))
    parts = [r for block in blocks for r in run_block(policy, env, protocol, block)]
    assert sorted(map(str, parts)) == sorted(map(str, evaluate(policy, protocol)))


@pytest.mark.parametrize("block", [1, 6, 7])
def test_outcomes_do_not_depend_on_how_units_share_blocks(policy, block):
    # Sums may differ in the last bits with the batch; no sample of this small agent is that close.
    whole = evaluate(policy, small_protocol())
    assert outcomes(evaluate(policy, small_protocol(block=block))) == outcomes(whole)


def test_noise_is_keyed_by_seed_trial_and_repeat(policy):
    records = evaluate(policy, small_protocol(trials=4, episodes=6))
    by_repeat = [[r["distance_end"] for r in records if r["repeat"] == n] for n in range(2)]
    assert by_repeat[0] != by_repeat[1]
    other = evaluate(policy, small_protocol(trials=4, episodes=6, seed=1))
    assert outcomes(other) != outcomes(records)
    # A trial's noise is its own: it is met again when evaluated without the trials before it.
    alone = evaluate(policy, small_protocol(trials=1, first_trial=2, episodes=6))
    assert outcomes(alone) == outcomes(r for r in records if r["trial"] == 2)


def test_deterministic_acting_ignores_the_seed(policy):
    first, second = (evaluate(policy, small_protocol(deterministic=True, seed=s)) for s in (0, 1))
    assert first == second


def test_trials_limited_by_steps_drop_the_unfinished_episode(policy):
    records = evaluate(policy, small_protocol(episodes=None, steps=2 * HORIZON + 5))
    assert Counter(r["episode"] for r in records) == {0: 6, 1: 6}


def test_cleared_context_acts_as_if_each_episode_began_a_trial(policy):
    # With the memory emptied and noise out of play, all episodes of a trial are the first again.
    protocol = small_protocol(deterministic=True)
    records = evaluate(policy, protocol, control=ContextControl.CLEARED)
    for record in records:
        first = next(
            r
            for r in records
            if (r["trial"], r["repeat"], r["episode"]) == (record["trial"], record["repeat"], 0)
        )
        assert record["return"] == first["return"]
        assert record["distance_end"] == first["distance_end"]
    kept = evaluate(policy, protocol)
    assert [r for r in kept if r["episode"] == 0] == [r for r in records if r["episode"] == 0]


def test_cleared_context_still_draws_new_noise(policy):
    kept = evaluate(policy, small_protocol())
    cleared = evaluate(policy, small_protocol(), control=ContextControl.CLEARED)
    first = [r for r in kept if r["episode"] == 0]
    assert first == [r for r in cleared if r["episode"] == 0]
    assert kept != cleared


class Slider(TrialVectorEnv):
    """Pays the action that it was given, which must lie in the action space."""

    def __init__(self, num_envs: int = 1, **kwargs):
        super().__init__(
            num_envs,
            spaces.Dict({"zero": spaces.Box(-1.0, 1.0, (1,), np.float32)}),
            dataset_name="slider",
            num_trials=4,
            max_episode_steps=3,
            **{"single_action_space": spaces.Box(-0.1, 0.1, (1,), np.float32), **kwargs},
        )

    def begin_trials(self, rows, trials):
        pass

    def begin_episodes(self, rows):
        pass

    def advance(self, actions):
        never = np.zeros(self.num_envs, bool)
        assert (np.abs(actions) <= np.float32(0.1)).all()
        return actions[:, 0].astype(np.float32), never, never.copy()

    def observe_rows(self, rows, out):
        out["zero"][slice(None) if rows is None else rows] = 0.0


def test_vector_actions_are_clipped_and_the_previous_reward_is_shown(monkeypatch):
    env = Slider(2)
    config = build(PolicyConfig, {"memory": "gru", "encoder": {"prev_reward": True}})
    space = env.single_observation_space
    assert isinstance(space, spaces.Dict)
    policy = Policy(config, space, env.single_action_space, max_episode_steps=3).eval()
    seen = []
    encode = policy.encoder.forward

    def watched(observation, *rest):
        seen.append(observation["prev_reward"].clone())
        return encode(observation, *rest)

    monkeypatch.setattr(policy.encoder, "forward", watched)
    protocol = small_protocol(env=f"{__name__}:Slider", trials=2, repeats=1, episodes=2, block=2)
    (block,) = protocol.blocks()
    records = list(run_block(policy, env, protocol, block))
    shown = torch.stack(seen).reshape(6, 2).numpy()
    # First steps of episodes are shown no reward; the others are paid at most 0.1.
    assert (shown[[0, 3]] == 0).all()
    assert (np.abs(shown[[1, 2, 4, 5]]) == np.float32(0.1)).any()
    paid = shown[[1, 2]].sum(0)
    assert all(abs(r["return"] - paid[r["trial"]]) < 0.11 for r in records if r["episode"] == 0)


class Dial(Slider):
    """Pays the action, which lies far from zero."""

    def __init__(self, num_envs: int = 1):
        super().__init__(num_envs, single_action_space=spaces.Box(10.0, 20.0, (1,), np.float32))

    def advance(self, actions):
        never = np.zeros(self.num_envs, bool)
        return actions[:, 0].astype(np.float32), never, never.copy()


def run_dial(on_act=None):
    """Evaluate an agent, and return the previous actions that it was told with the records."""
    env, told = Dial(2), []
    space = env.single_observation_space
    assert isinstance(space, spaces.Dict)
    torch.manual_seed(0)
    config = build(PolicyConfig, {"memory": "gru"})
    policy = Policy(config, space, env.single_action_space, max_episode_steps=3).eval()
    encode = policy.encoder.forward

    def watched(observation, prev_action, *rest):
        told.append(prev_action.clone())
        return encode(observation, prev_action, *rest)

    policy.encoder.forward = watched
    protocol = small_protocol(env=f"{__name__}:Dial", trials=2, repeats=1, episodes=2, block=2)
    (block,) = protocol.blocks()
    records = list(run_block(policy, env, protocol, block, on_act=on_act))
    return torch.stack(told), records


def test_watching_an_agent_changes_nothing_and_shows_the_environments_units():
    seen = []

    def watch(env, observation, starts_N, action_N):
        seen.append(action_N.copy())
        return action_N

    (told, records), (told_watched, records_watched) = run_dial(), run_dial(watch)
    assert torch.equal(told, told_watched)
    assert records == records_watched
    assert 12 < np.mean(seen) < 19
    assert all(30 < r["return"] < 60 for r in records)


def test_shown_actions_are_the_environments_and_are_remembered_in_the_policys_units():
    shown = np.full((2, 1), 17.5, np.float32)
    told, records = run_dial(lambda *seen: shown)
    assert all(r["return"] == 3 * 17.5 for r in records)
    assert (told[1:] == 0.5).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("relic/Darkroom-v0", {**OPTIONS, "horizon": 50}, "within the 12 steps.*got 50"),
        ("relic/FourBoxes-v0", {}, "must let the environment show position.*got nothing"),
    ],
)
def test_environments_that_do_not_fit_are_refused(policy, name, options, message):
    with pytest.raises(ValueError, match=message):
        check_fit(policy, make_trial_env(name, 1, options))


def test_what_is_only_learned_from_need_not_be_shown():
    options = {"split": "val", "compass": True, "outcome": True, "task": {"max_episode_steps": 100}}
    check_fit(load("pretrained/houses_small"), make_trial_env("relic/Houses-v0", 1, options))


def test_policy_of_other_actions_is_refused(policy):
    policy.action_space = spaces.Discrete(7)
    with pytest.raises(ValueError, match=r"must have the policy's actions Discrete\(7\)"):
        evaluate(policy, small_protocol())


def test_other_weights_act_otherwise(policy):
    protocol = replace(small_protocol(), repeats=1)
    assert evaluate(small_policy(1), protocol) != evaluate(policy, protocol)


def test_executed_actions_are_remembered_in_the_place_of_the_policys(policy, monkeypatch):
    protocol = small_protocol(trials=2, repeats=1, block=2, episodes=2)
    moves = np.random.default_rng(0).integers(0, 5, (2 * HORIZON, 2))
    shown, remembered = [], []
    encode = policy.encoder.forward

    def watched(observation, prev_action, starts_N):
        remembered.append(prev_action.clone().numpy())
        return encode(observation, prev_action, starts_N)

    def force(env, observation, starts_N, action_N):
        step = len(shown)
        assert (starts_N == (step % HORIZON == 0)).all()
        shown.append(observation["position"])
        return moves[step]

    monkeypatch.setattr(policy.encoder, "forward", watched)
    env = make_env(protocol)
    (block,) = protocol.blocks()
    list(run_block(policy, env, protocol, block, on_act=force))
    np.testing.assert_array_equal(remembered[1:], moves[:-1])
    # The environment did what was forced, too: walk the first episode again.
    observation, _ = env.reset(options={"trial": np.arange(2)})
    for step in range(HORIZON):
        np.testing.assert_array_equal(observation["position"], shown[step])
        observation = env.step(moves[step])[0]
