"""The privileged critic: what it sees never reaches the actor, and acting does without it."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.houses.env import HousesVectorEnv
from relic.policy.config import CriticConfig, PolicyConfig
from relic.policy.encoders.config import EncoderConfig
from relic.policy.memory.config import TransformerConfig
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch

ROWS, STEPS = 3, 10
SPACE = spaces.Dict(
    seen=spaces.Box(-1, 1, (4,), np.float32),
    critic_state=spaces.Box(-100, 100, (4,), np.float32),
)


def make_policy(space=SPACE, privileged=("critic_state",)):
    torch.manual_seed(0)
    config = PolicyConfig(
        encoder=EncoderConfig(scale_vectors=False),
        transformer=TransformerConfig(num_layers=1, num_heads=2, width=16, mlp_width=32),
        critic=CriticConfig(privileged=privileged, hidden=8),
    )
    policy = Policy(config, space, spaces.Discrete(4), max_episode_steps=STEPS)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return policy


def make_batch(told_seed=0):
    draw = torch.Generator().manual_seed(1)
    starts = torch.zeros((ROWS, STEPS), dtype=torch.bool)
    starts[:, 0] = True
    action = torch.randint(0, 4, (ROWS, STEPS), generator=draw)
    seen = torch.randn((ROWS, STEPS, 4), generator=draw)
    told = torch.randn((ROWS, STEPS, 4), generator=torch.Generator().manual_seed(told_seed))
    observation = {"seen": seen, "critic_state": 5 * told}
    return SequenceBatch(observation, action, torch.roll(action, 1, 1), starts)


def test_what_the_critic_sees_moves_the_value_and_never_the_actor() -> None:
    policy = make_policy()
    one, other = (policy.evaluate_actions(make_batch(seed)) for seed in (0, 1))
    assert torch.equal(one.log_prob, other.log_prob)
    assert torch.equal(one.entropy, other.entropy)
    assert ((one.value - other.value).abs() > 1e-4).all()


def test_no_gradient_of_the_actor_reaches_what_the_critic_sees() -> None:
    policy, batch = make_policy(), make_batch()
    told = batch.observation["critic_state"].requires_grad_()
    output = policy.evaluate_actions(batch)
    (by_actor,) = torch.autograd.grad(
        output.log_prob.sum(), told, retain_graph=True, allow_unused=True
    )
    (by_critic,) = torch.autograd.grad(output.value.sum(), told)
    assert by_actor is None
    assert by_critic.abs().min() > 0


def test_steps_say_what_a_pass_says_and_act_alike_without() -> None:
    policy, batch = make_policy().eval(), make_batch()
    whole = policy.evaluate_actions(batch)
    told, bare = (policy.initial_state(ROWS, STEPS) for _ in range(2))
    noise = np.random.default_rng(0).random((STEPS, ROWS, 1), np.float32)
    for t in range(STEPS):
        observation = {key: value[:, t] for key, value in batch.observation.items()}
        starts = batch.episode_starts[:, t]
        step = policy.step(observation, told, episode_starts=starts, noise=noise[t])
        del observation["critic_state"]
        alone = policy.step(observation, bare, episode_starts=starts, noise=noise[t])
        torch.testing.assert_close(step.value, whole.value[:, t], atol=1e-5, rtol=0)
        assert torch.equal(step.action, alone.action)
        assert torch.equal(step.log_prob, alone.log_prob)
        assert alone.value.isnan().all()
        for state in (told, bare):
            state.record_action(batch.action[:, t])


@pytest.mark.parametrize("key", ["critic_stat", "goal"])
def test_what_is_no_observed_vector_is_refused(key) -> None:
    space = spaces.Dict({**SPACE.spaces, "goal": spaces.Discrete(3)})
    with pytest.raises(ValueError, match=r"policy\.critic\.privileged: must name observed vectors"):
        make_policy(space, privileged=(key,))


def test_houses_tell_the_way_to_the_goal_and_the_time_left() -> None:
    """In the house's own coordinates."""
    task = {"max_episode_steps": 20}
    env = HousesVectorEnv(4, sensors=(), critic_state=True, task=task, seed=2)
    observation, _ = env.reset(seed=2)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(70):
        for n in range(4):
            x, y, heading, _ = env.simulator.pose_N4[n]
            scene, goal = env.simulator.task_scene(n), env.simulator.goal(n)
            away = min(scene.instance_xy(goal) - [x, y], key=lambda v: math.hypot(*v))
            facing = np.array([math.cos(heading), math.sin(heading)])
            right = np.array([math.sin(heading), -math.cos(heading)])
            left = 1 - env.elapsed_steps[n] / 20
            walk = scene.distance((x, y, 0.0), goal)
            expected = [walk, away @ facing, away @ right, left]
            np.testing.assert_allclose(observation["critic_state"][n], expected, 1e-4, 1e-4)
        action = rng.choice([0, 1, 2], 4, p=[0.03, 0.7, 0.27])
        observation, _, terminated, truncated, _ = env.step(action)
        ends += (terminated | truncated).sum()
    assert ends > 5
    env.close()
