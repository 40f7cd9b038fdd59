import itertools

import numpy as np
import pytest
import torch

from relic.policy.memory.config import PositionKind
from relic.policy.steps import SequenceBatch
from relic.ppo.collector import Collector
from relic.ppo.config import ExpertKind, Objective
from relic.ppo.returns import Credit, TimeLimit

COLUMNS = ("reward_NT", "episode_starts_NT", "terminated_NT", "truncated_NT", "crashed_NT")


def collected(built, until=None):
    built.collector.begin_rollout()
    built.collector.collect(until or built.rollout.num_steps)
    return built.rollout


def assert_same(a, b, rows=slice(None)):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(a, name)[rows], getattr(b, name))
    assert torch.equal(a.action[rows], b.action)
    torch.testing.assert_close(a.log_prob_NT[rows], b.log_prob_NT, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.value_NT[rows], b.value_NT, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.final_value_NT[rows], b.final_value_NT, atol=1e-5, rtol=0)


def test_a_row_acts_alike_whatever_rows_are_beside_it(training):
    whole = collected(training(num_envs=6))
    part = collected(training(num_envs=2, first_row=3))
    assert_same(whole, part, rows=slice(3, 5))


def test_groups_that_overlap_change_nothing(training):
    one, three = training(num_envs=6), training(num_envs=6, groups=3)
    for built in (one, three):
        built.run(2)
    assert_same(one.rollout, three.rollout)
    one_episodes = np.sort(np.concatenate([r.episodes["return"] for r in one.reports]))
    three_episodes = np.sort(np.concatenate([r.episodes["return"] for r in three.reports]))
    np.testing.assert_array_equal(one_episodes, three_episodes)
    three.collector.close()


def test_the_learners_draws_do_not_move_the_acting_noise(training):
    frozen = [
        training({"lr": 0.0, "update_epochs": epochs}, {"shuffle": False}) for epochs in (1, 3)
    ]
    for built in frozen:
        built.run(2)
    assert_same(frozen[0].rollout, frozen[1].rollout)


def test_columns_tell_one_story(training):
    rollout = collected(training())
    ended = rollout.terminated_NT | rollout.truncated_NT
    assert rollout.episode_starts_NT[:, 0].all()
    np.testing.assert_array_equal(rollout.episode_starts_NT[:, 1:], ended[:, :-1])
    assert not (rollout.terminated_NT & rollout.truncated_NT).any()
    assert (rollout.crashed_NT <= rollout.truncated_NT).all()
    for kind in (rollout.terminated_NT, rollout.truncated_NT, rollout.crashed_NT):
        assert kind.any()


def test_each_rollout_has_new_trials(training):
    built = training()
    built.run(1)
    first = built.collector.groups[0].env.trial
    built.run(1)
    assert (built.collector.groups[0].env.trial != first).any()
    assert built.rollout.episode_starts_NT[:, 0].all()


def test_episode_records_arrive_once(training):
    built = training(num_envs=4)
    rollout = collected(built)
    episodes = built.collector.take_episodes()
    ended = rollout.terminated_NT | rollout.truncated_NT
    assert len(episodes["return"]) == ended.sum()
    for row in range(4):
        own = episodes["row"] == row
        np.testing.assert_array_equal(episodes["episode"][own], np.arange(own.sum()))
        last = np.flatnonzero(ended[row])[-1]
        total = rollout.reward_NT[row, : last + 1].sum()
        assert episodes["return"][own].sum() == pytest.approx(total)
    assert built.collector.take_episodes() == {}


def judged_with_final_observation(built, row, column):
    """Value of an episode's final observation, by one full pass over all before it."""
    rollout = built.rollout
    observation = rollout.observation["seen"][row : row + 1, : column + 1]
    final = observation[:, -1:].clone()
    final[..., 1] += 0.1  # the counter
    actions = rollout.action[row : row + 1, : column + 1]
    starts = torch.from_numpy(rollout.episode_starts_NT[row : row + 1, : column + 1])
    zero = torch.zeros(1, 1)
    batch = SequenceBatch(
        observation={"seen": torch.cat([observation, final], 1)},
        action=torch.cat([actions, zero.long()], 1),
        prev_action=torch.cat([zero.long(), actions], 1),
        episode_starts=torch.cat([starts, zero.bool()], 1),
    )
    with torch.no_grad():
        return built.policy.evaluate_actions(batch).value[0, -1]


@pytest.mark.parametrize("time_limit", list(TimeLimit))
@pytest.mark.parametrize("credit", list(Credit))
def test_final_values(training, time_limit, credit):
    built = training({"time_limit": time_limit, "credit": credit})
    rollout = collected(built)
    wanted = rollout.crashed_NT.copy()
    if time_limit is TimeLimit.BOOTSTRAP:
        wanted |= rollout.truncated_NT
    if credit is Credit.TRIAL:
        wanted[:, :-1] = False
    assert (rollout.final_value_NT.numpy() != 0)[~wanted].sum() == 0
    for row, column in np.argwhere(wanted)[:12]:
        expected = judged_with_final_observation(built, row, column)
        got = rollout.final_value_NT[row, column]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_the_bootstrap_value_is_not_remembered(training):
    built = training()
    collected(built, until=11)
    first = built.collector.bootstrap_value()
    assert torch.equal(first, built.collector.bootstrap_value())
    built.collector.collect(12)
    torch.testing.assert_close(built.rollout.value_NT[:, 11], first, atol=1e-6, rtol=0)


def test_demonstrations_are_acted_and_remembered(training):
    built = training({"objective": Objective.CLONE, "expert_share": 0.5})
    rollout = collected(built)
    assert rollout.expert_action is not None
    trial = built.collector.groups[0].env.trial
    np.testing.assert_array_equal(rollout.expert_action[:, 5], trial % 3)
    same = (rollout.expert_action == rollout.action).numpy()
    whole, episodes = 0, 0
    for row in range(rollout.num_envs):
        bounds = [*np.flatnonzero(rollout.episode_starts_NT[row]), rollout.num_steps]
        for begin, end in itertools.pairwise(bounds):
            episodes += 1
            whole += same[row, begin:end].all()
    # Half of the episodes are the expert's; the policy rarely matches it throughout.
    assert 0.3 * episodes < whole < 0.8 * episodes
    # What was executed is what the context says was executed.
    batch = rollout.batch(np.arange(rollout.num_envs), 0, rollout.num_steps)
    with torch.no_grad():
        output = built.policy.evaluate_actions(batch)
    torch.testing.assert_close(output.value, rollout.value_NT, atol=1e-5, rtol=0)


def test_the_memory_oracle_can_be_cloned(training):
    ppo = {"objective": Objective.CLONE, "expert_share": 0.5, "expert": ExpertKind.MEMORY}
    rollout = collected(training(ppo, env="houses", num_envs=3))
    assert rollout.expert_action is not None
    again = training(env="houses", num_envs=3).collector.groups[0].env
    again.reset(seed=3)
    for column in range(rollout.num_steps):
        expected = again.expert_actions("memory")
        np.testing.assert_array_equal(rollout.expert_action[:, column], expected)
        again.step(rollout.action[:, column].numpy())
    again.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"envs": 5}, r"environments must have 6 rows together, .* got 5"),
        ({"expert_share": 0.5}, r"expert_share must be 0 in a rollout without demonstrations"),
    ],
)
def test_what_does_not_fit_is_refused(training, arguments, message):
    built = training()
    other = training(num_envs=5)
    env = (other if "envs" in arguments else built).collector.groups[0].env
    share = arguments.get("expert_share", 0.0)
    with pytest.raises(ValueError, match=message):
        Collector(env, built.policy, built.rollout, seed=0, expert_share=share)


@pytest.mark.parametrize(
    "transformer",
    [
        {},
        {"max_positions": 8},
        {"reset_position": False, "max_positions": 40},
        {"episode_position": PositionKind.LEARNED, "max_episodes": 5},
    ],
)
def test_time_limits_are_bootstrapped_from_positions_that_learn(training, transformer):
    """A rollout of whole episodes, after which each table ends."""
    ppo = {"time_limit": TimeLimit.BOOTSTRAP}
    first, second = (training(ppo, env="darkroom", transformer=transformer) for _ in range(2))
    # Where the table has a row that no step stands at, whatever is in it must not matter.
    table = second.policy.memory.step_embedding.weight
    steps = 40 if "reset_position" in transformer else 8
    with torch.no_grad():
        table[steps:] += 5.0
    for built in (first, second):
        collected(built)
        built.last = built.collector.bootstrap_value()
    assert (first.rollout.final_value_NT[:, 7::8] != 0).all()
    assert torch.equal(first.rollout.final_value_NT, second.rollout.final_value_NT)
    assert torch.equal(first.last, second.last)
