"""Training where an action is a vector in a box: environments see its units, the policy its own."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from relic.ppo.collector import Collector
from relic.ppo.config import Objective, PPOConfig, UpdatesConfig
from relic.ppo.learner import Learner
from relic.ppo.loop import run_rollout
from relic.ppo.rollout import Rollout

from .blind import BlindEnv
from .conftest import Training, make_policy

LOW, HIGH = np.float32([10.0, -3.0]), np.float32([20.0, 1.0])


class Valves(BlindEnv):
    """Two valves in a box; the expert turns each three quarters open."""

    def __init__(self, num_envs, dtype=np.float32):
        space = spaces.Box(LOW.astype(dtype), HIGH.astype(dtype), dtype=dtype)
        super().__init__(num_envs, space, name="valves")

    def earn(self, actions):
        return -np.abs(actions - self.ask_expert()).sum(1)

    def ask_expert(self):
        return np.tile(LOW + 0.75 * (HIGH - LOW), (self.num_envs, 1))


def make_training(ppo=None, dtype=np.float32):
    ppo = PPOConfig(**{"warmup_steps": 0, "num_minibatches": 1, "lr": 3e-3, **(ppo or {})})
    env, updates = Valves(6, dtype), UpdatesConfig(per_rollout=4)
    policy = make_policy(env)
    rollout = Rollout(
        6, 40, policy.stored_space,
        action_space=env.single_action_space, demonstrations=ppo.expert_steps > 0,
    )  # fmt: skip
    share = ppo.expert_share if ppo.expert_steps else 0.0
    steps = ppo.expert_steps
    collector = Collector(env, policy, rollout, seed=3, expert_share=share, expert_steps=steps)
    sizes = {"num_envs": 6, "num_steps": 40, "total_steps": 100_000}
    learner = Learner(policy, ppo, updates, seed=3, **sizes)
    return Training(policy, collector, learner, rollout), env


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_first_ratio_is_one(dtype):
    built, _ = make_training(dtype=dtype)
    built.run(2)
    assert max(r.metrics["ratio_drift_first"] for r in built.reports) <= 1e-5


def test_environments_are_given_all_of_the_box():
    built, env = make_training()
    built.run(1)
    given = np.concatenate(env.given)
    assert ((given >= LOW) & (given <= HIGH)).all()
    inside = ((given > LOW) & (given < HIGH)).mean(0)
    assert (inside > 0.3).all()
    own = built.policy.to_environment(built.rollout.action).numpy()
    np.testing.assert_array_equal(np.clip(own[:, 0], LOW, HIGH), env.given[0])


def test_an_experts_actions_are_kept_in_the_policys_units():
    built, env = make_training({"objective": Objective.CLONE, "expert_share": 1.0})
    built.collector.begin_rollout()
    built.collector.collect(10)
    for given in env.given:
        np.testing.assert_allclose(given, env.ask_expert(), rtol=1e-6)
    rollout = built.rollout
    for column in (rollout.expert_action, rollout.action):
        torch.testing.assert_close(column[:, :10], torch.full((6, 10, 2), 0.5))
    # What was executed is what the next step is told.
    batch = rollout.batch(np.arange(6), 0, 10)
    with torch.no_grad():
        output = built.policy.evaluate_actions(batch)
    torch.testing.assert_close(output.value, rollout.value_NT[:, :10], atol=1e-5, rtol=0)


def test_cloning_reaches_the_expert():
    clone = {"objective": Objective.CLONE, "expert_share": 0.5, "lr": 1e-2, "vf_coef": 0.0}
    built, env = make_training(clone)
    for _ in range(10):
        list(run_rollout(built.collector, built.learner, built.learner.schedule))
    observation = {"zero": np.zeros((1, 1), np.float32)}
    step = built.policy.step(observation, built.policy.initial_state(1, 2), deterministic=True)
    given = built.policy.clip_action(built.policy.to_environment(step.action))
    np.testing.assert_allclose(given, env.ask_expert()[:1], atol=0.8)
