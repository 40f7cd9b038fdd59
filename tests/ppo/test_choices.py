"""Training where an action is a choice in each of several dimensions, or counts from elsewhere."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs import check_trial_env
from relic.evaluation.evaluator import run_blocks
from relic.evaluation.protocol import Protocol
from relic.policy.loading import load, save_policy
from relic.ppo.collector import Collector
from relic.ppo.config import Objective, PPOConfig, UpdatesConfig
from relic.ppo.learner import Learner
from relic.ppo.loop import run_rollout
from relic.ppo.rollout import Rollout

from .blind import BlindEnv
from .conftest import Training, make_policy

SPACES = {
    "switches": (spaces.MultiBinary(3), np.int8([1, 0, 1])),
    "dials": (spaces.MultiDiscrete([3, 5, 2]), np.int64([2, 3, 0])),
    "shifted dials": (spaces.MultiDiscrete([3, 5], start=[1, -2]), np.int64([3, -2])),
    "shifted": (spaces.Discrete(4, start=-1), np.int64(2)),
    "bytes": (spaces.Discrete(4, dtype=np.uint8), np.uint8(2)),
}


class Lock(BlindEnv):
    """Opens to one combination; the reward is the share of its parts that are right."""

    def __init__(self, num_envs, kind="dials", **options):
        space, self.secret = SPACES[kind]
        super().__init__(num_envs, space, name="lock", **options)

    def earn(self, actions):
        return (actions == self.secret).reshape(self.num_envs, -1).mean(1)

    def ask_expert(self):
        return np.stack([self.secret] * self.num_envs)


def make_training(kind, **ppo):
    config = PPOConfig(**{"warmup_steps": 0, "num_minibatches": 1, "lr": 1e-2, **ppo})
    env, updates = Lock(6, kind), UpdatesConfig(per_rollout=4)
    policy = make_policy(env)
    shows = config.expert_steps > 0
    rollout = Rollout(
        6, 40, policy.stored_space, action_space=policy.action_space, demonstrations=shows
    )
    share = config.expert_share if shows else 0.0
    collector = Collector(
        env, policy, rollout, seed=3, expert_share=share, expert_steps=config.expert_steps
    )
    learner = Learner(policy, config, updates, num_envs=6, num_steps=40, total_steps=10**5, seed=3)
    return Training(policy, collector, learner, rollout), env


@pytest.mark.parametrize("kind", SPACES)
def test_every_choice_is_tried_and_the_first_ratio_is_one(kind):
    built, env = make_training(kind)
    built.run(2)
    assert max(r.metrics["ratio_drift_first"] for r in built.reports) <= 1e-5
    given = np.concatenate(env.given)
    assert all(action in env.single_action_space for action in given.astype(env.secret.dtype))
    low, high = (given.reshape(len(given), -1).min(0), given.reshape(len(given), -1).max(0))
    space = env.single_action_space
    counts = getattr(space, "nvec", getattr(space, "n", 2))
    counts = np.full(low.shape, 2) if isinstance(space, spaces.MultiBinary) else counts
    np.testing.assert_array_equal(high - low + 1, counts)


@pytest.mark.parametrize("kind", SPACES)
def test_cloning_reaches_the_expert_and_what_is_saved_acts_alike(kind, tmp_path):
    built, _ = make_training(kind, objective=Objective.CLONE, expert_share=0.5, vf_coef=0.0)
    for _ in range(4):
        list(run_rollout(built.collector, built.learner, built.learner.schedule))
    save_policy(tmp_path, built.policy)
    loaded = load(tmp_path)
    protocol = Protocol(name="x", env="x:y", trials=2, episodes=2, block=2, deterministic=True)
    for policy in (built.policy.eval(), loaded):
        records = list(run_blocks(policy, Lock(2, kind), protocol))
        assert [r["return"] for r in records] == [5.0] * 4
    # The next step is told what was done: another action makes another input.
    observation, starts = {"zero": torch.zeros(1, 1)}, torch.zeros(1, dtype=torch.bool)
    first = torch.zeros(1, *(policy.action_space.shape or ()), dtype=torch.int64)
    inputs = [policy.encoder(observation, action, starts) for action in (first, first + 1)]
    assert not torch.equal(*inputs)


@pytest.mark.parametrize("kind", SPACES)
def test_the_checker_passes_it(kind):
    check_trial_env(Lock(3, kind), make=lambda **options: Lock(kind=kind, **options))
