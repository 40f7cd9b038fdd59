"""The recall of where the goal was last in view: its loss, and what it may know."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from relic.policy.auxiliary_config import RecallConfig
from relic.policy.config import PolicyConfig
from relic.policy.encoders.config import EncoderConfig
from relic.policy.memory.config import TransformerConfig
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch

ROWS, STEPS = 3, 12
SPACE = spaces.Dict(
    gps=spaces.Box(-100, 100, (2,), np.float32),
    compass=spaces.Box(-np.pi, np.pi, (1,), np.float32),
    goal=spaces.Discrete(4),
    goal_recall=spaces.Box(-100, 100, (3,), np.float32),
)


def make_policy(space=SPACE):
    torch.manual_seed(0)
    config = PolicyConfig(
        encoder=EncoderConfig(scale_vectors=False),
        transformer=TransformerConfig(num_layers=1, num_heads=2, width=16, mlp_width=32),
        recall=RecallConfig(),
    )
    policy = Policy(config, space, spaces.Discrete(4), max_episode_steps=STEPS)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return policy


def make_batch(recall):
    draw = torch.Generator().manual_seed(1)
    shape = (ROWS, STEPS)
    starts = torch.zeros(shape, dtype=torch.bool)
    starts[:, 0] = True
    action = torch.randint(0, 4, shape, generator=draw)
    observation = {
        "gps": 4 * torch.randn((*shape, 2), generator=draw),
        "compass": torch.randn((*shape, 1), generator=draw),
        "goal": torch.randint(0, 4, shape, generator=draw),
        "goal_recall": recall,
    }
    return SequenceBatch(observation, action, torch.roll(action, 1, 1), starts)


def targets():
    draw = torch.Generator().manual_seed(2)
    seen = torch.rand((ROWS, STEPS, 1), generator=draw) < 0.6
    place = 4 * torch.randn((ROWS, STEPS, 2), generator=draw)
    return torch.cat([seen.float(), place * seen], -1)


def test_only_what_was_seen_is_to_be_recalled() -> None:
    policy, recall = make_policy(), targets()
    batch = make_batch(recall)
    output = policy.evaluate_actions(batch)
    lesson = policy.auxiliary_losses(output, batch)["recall"]
    guess = output.auxiliary["recall"]
    for n in range(ROWS):
        for t in range(STEPS):
            normal = torch.distributions.Normal(guess.mean[n, t], guess.log_std[n, t].exp())
            expected = -normal.log_prob(recall[n, t, 1:]).sum() * recall[n, t, 0]
            torch.testing.assert_close(lesson.losses["recall_loss"][n, t], expected)
            away = (guess.mean[n, t] - recall[n, t, 1:]).norm() * recall[n, t, 0]
            torch.testing.assert_close(lesson.metrics["recall_error"][n, t], away)
    assert 0.3 < lesson.metrics["recall_share"].mean() < 0.9


def test_the_lesson_reaches_the_memory_but_is_no_input() -> None:
    policy = make_policy()
    one, other = make_batch(targets()), make_batch(targets() * 3.0 + 1.0)
    assert torch.equal(policy.evaluate_actions(one).value, policy.evaluate_actions(other).value)
    output = policy.evaluate_actions(one)
    policy.auxiliary_losses(output, one)["recall"].losses["recall_loss"].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.memory.parameters())


def test_without_the_observation_it_is_refused() -> None:
    bare = spaces.Dict({k: v for k, v in SPACE.spaces.items() if k != "goal_recall"})
    with pytest.raises(ValueError, match=r"policy\.recall: goal_recall must be observed with 3"):
        make_policy(bare)
