"""The guess of where the goal lies: geometry, loss, and what it may know."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.objectnav.rules import compass, gps
from relic.policy.auxiliary_config import GoalLocationConfig
from relic.policy.config import PolicyConfig
from relic.policy.encoders.config import EncoderConfig
from relic.policy.goal_location import (
    GoalGuess,
    GoalLocationHead,
    guess_errors,
)
from relic.policy.memory.config import TransformerConfig
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch

ROWS, STEPS, WIDTH = 3, 12, 16
SPACE = spaces.Dict(
    gps=spaces.Box(-100, 100, (2,), np.float32),
    compass=spaces.Box(-np.pi, np.pi, (1,), np.float32),
    goal=spaces.Discrete(4),
    goal_places=spaces.Box(-100, 100, (5, 2), np.float32),
)


def make_policy(**goal_location):
    torch.manual_seed(0)
    config = PolicyConfig(
        encoder=EncoderConfig(scale_vectors=False),
        transformer=TransformerConfig(num_layers=2, num_heads=2, width=WIDTH, mlp_width=32),
        goal_location=GoalLocationConfig(**goal_location),
    )
    policy = Policy(config, SPACE, spaces.Discrete(4), max_episode_steps=STEPS)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return policy


def make_batch():
    draw = torch.Generator().manual_seed(1)
    shape = (ROWS, STEPS)
    starts = torch.rand(shape, generator=draw) < 0.2
    starts[:, 0] = True
    action = torch.randint(0, 4, shape, generator=draw)
    return SequenceBatch(
        observation={
            "gps": 4 * torch.randn((*shape, 2), generator=draw),
            "compass": torch.randn((*shape, 1), generator=draw),
            "goal": torch.randint(0, 4, shape, generator=draw),
            "goal_places": 4 * torch.randn((*shape, 5, 2), generator=draw),
        },
        action=action,
        prev_action=torch.cat([action[:, :1], action[:, :-1]], 1),
        episode_starts=starts,
    )


def test_a_guess_is_told_as_the_agent_would_see_it() -> None:
    """Derived in the house's own coordinates, with the environment's odometry."""
    rng = np.random.default_rng(0)
    head = GoalLocationHead(GoalLocationConfig(), WIDTH)
    for _ in range(50):
        origin, agent, thing = (rng.uniform(-5, 5, 2) for _ in range(3))
        turned, heading = rng.uniform(-np.pi, np.pi, 2)
        frame = tuple(np.array([v]) for v in (*origin, turned))
        place, position = (torch.from_numpy(gps(p[:1], p[1:], frame)[0]) for p in (thing, agent))
        angle = torch.from_numpy(compass(np.array([heading]), np.array([turned])).reshape(1))
        guess = GoalGuess(place, torch.tensor(0.7))
        seen = head.as_seen(guess, {"gps": position, "compass": angle})
        away = thing - agent
        distance = math.hypot(*away)
        bearing = math.atan2(away[1], away[0]) - heading  # to the left is positive
        got = math.atan2(-float(seen[1]), float(seen[0]))
        assert math.remainder(got - bearing, 2 * math.pi) == pytest.approx(0, abs=1e-4)
        assert float(seen[3]) * 5.0 == pytest.approx(distance, abs=1e-4)


def test_errors_are_those_to_the_nearest_place() -> None:
    mean, log_std = torch.randn(7, 2), torch.randn(7)
    places = torch.randn(7, 4, 2)
    loss, error = guess_errors(GoalGuess(mean, log_std), places)
    for i in range(7):
        distance = min(math.dist(mean[i].tolist(), p) for p in places[i].tolist())
        assert float(error[i]) == pytest.approx(distance, rel=1e-5)
        normal = torch.distributions.Normal(0.0, float(log_std[i].exp()))
        want = -normal.log_prob(torch.tensor(distance)) - normal.log_prob(torch.tensor(0.0))
        assert float(loss[i]) == pytest.approx(float(want), rel=1e-4)


def test_steps_say_what_a_full_pass_says() -> None:
    policy, batch = make_policy(), make_batch()
    whole = policy.evaluate_actions(batch)
    state = policy.initial_state(ROWS, STEPS)
    for t in range(STEPS):
        # Acting is told nothing of where the goal is.
        seen = {k: v[:, t] for k, v in batch.observation.items() if k != "goal_places"}
        step = policy.step(seen, state, episode_starts=batch.episode_starts[:, t])
        state.record_action(batch.action[:, t])
        torch.testing.assert_close(step.value, whole.value[:, t].detach(), rtol=1e-4, atol=1e-5)


def test_no_output_depends_on_the_target() -> None:
    policy, batch = make_policy(), make_batch()
    other = dataclasses.replace(
        batch, observation={**batch.observation, "goal_places": torch.zeros(ROWS, STEPS, 5, 2)}
    )
    for name in ("log_prob", "value", "entropy"):
        assert torch.equal(
            getattr(policy.evaluate_actions(batch), name),
            getattr(policy.evaluate_actions(other), name),
        )


def test_only_its_own_loss_moves_the_guess() -> None:
    policy, batch = make_policy(), make_batch()
    head = policy.auxiliary["goal_location"]
    output = policy.evaluate_actions(batch)
    (output.log_prob.sum() + output.value.sum()).backward()
    assert head.guess.weight.grad is None
    assert head.told[0].weight.grad.abs().sum() > 0
    answers = policy.auxiliary_losses(policy.evaluate_actions(batch), batch)
    answers["goal_location"].losses["goal_location_loss"].sum().backward()
    assert head.guess.weight.grad.abs().sum() > 0
    assert policy.token.weight.grad.abs().sum() > 0


def test_the_target_is_stored_but_never_an_input() -> None:
    policy = make_policy()
    assert "goal_places" in policy.stored_space.spaces
    assert "goal_places" not in policy.encoder.plan.vectors
    plain = Policy(PolicyConfig(), SPACE, spaces.Discrete(4), max_episode_steps=STEPS)
    assert "goal_places" not in plain.stored_space.spaces


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "goal_place"}, "goal_place must be observed with 2 numbers, got nothing"),
        ({"heading": "gps"}, r"gps must be observed with 1 numbers, got the shape \(2,\)"),
        ({"scale": 0.0}, "scale: must be positive, got 0.0"),
        ({"weight": -1.0}, r"weight: must be at least 0, got -1\.0"),
    ],
)
def test_what_cannot_be_read_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy(**options)


def test_a_target_is_no_input_even_where_it_is_named() -> None:
    config = dataclasses.replace(
        make_policy().config, encoder=EncoderConfig(keys=("gps", "goal_places"))
    )
    with pytest.raises(ValueError, match="must not name what is learned from, got 'goal_places'"):
        Policy(config, SPACE, spaces.Discrete(4), max_episode_steps=STEPS)


def test_what_a_guess_is_told_by_must_be_an_input() -> None:
    config = dataclasses.replace(make_policy().config, encoder=EncoderConfig(keys=("gps", "goal")))
    with pytest.raises(
        ValueError, match=r"encoder\.keys: must hold 'compass', which policy\.goal_location reads"
    ):
        Policy(config, SPACE, spaces.Discrete(4), max_episode_steps=STEPS)
