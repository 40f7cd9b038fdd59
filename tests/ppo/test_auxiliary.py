"""Learning from auxiliary heads beside the reward."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from relic.policy.auxiliary import AuxiliaryHead, AuxiliaryLosses
from relic.policy.auxiliary_config import AuxiliaryConfig, GoalLocationConfig
from relic.policy.config import PolicyConfig
from relic.ppo.schedule import PrefixGradient

METRICS = ("goal_location_loss", "goal_location_error")
HOUSES = {
    "env": "houses",
    "num_envs": 4,
    "auxiliary": {"goal_location": GoalLocationConfig(weight=1.0)},
}


@pytest.mark.parametrize("prefix", [PrefixGradient.FULL, PrefixGradient.DETACHED])
def test_the_first_ratio_is_one(training, prefix):
    built = training({"lr": 3e-3}, {"prefix_gradient": prefix}, **HOUSES)
    reports = built.run(2)
    assert max(r.metrics["ratio_drift_first"] for r in reports) <= 1e-5
    assert max(r.metrics["ratio_drift_max"] for r in reports) > 0.01


def test_the_loss_that_is_reported_is_that_of_the_whole_contexts(training):
    """With a learning rate of 0 the last, full update reports the mean over all steps."""
    built = training({"lr": 0.0, "update_epochs": 1}, **HOUSES)
    metrics = built.run(1)[-1].metrics
    with torch.no_grad():
        batch = built.rollout.batch(np.arange(4), 0, built.rollout.size)
        output = built.policy.evaluate_actions(batch)
        answers = built.policy.auxiliary_losses(output, batch)["goal_location"]
    for name, column in (answers.losses | answers.metrics).items():
        assert metrics[name] == pytest.approx(float(column.mean()), rel=1e-4)
    assert (*answers.losses, *answers.metrics) == METRICS


def test_the_weight_decides_what_is_learned(training):
    """Alone with the loss of places the guess gets better; without it nothing moves it."""

    def losses(weight):
        ppo = {"lr": 1e-2, "vf_coef": 0.0, "ent_coef": 0.0}
        auxiliary = {"goal_location": GoalLocationConfig(weight=weight)}
        built = training(ppo, **{**HOUSES, "auxiliary": auxiliary})
        guess = built.policy.auxiliary["goal_location"].guess
        first = guess.weight.detach().clone()
        reports = built.run(4)
        moved = not torch.equal(first, guess.weight)
        return moved, *(reports[i].metrics["goal_location_loss"] for i in (0, -1))

    moved, before, after = losses(1.0)
    assert moved
    assert after < before - 0.5
    moved, *_ = losses(0.0)
    assert not moved


def test_without_a_head_nothing_is_reported(training):
    metrics = training(env="houses", num_envs=4).run(1)[-1].metrics
    assert not set(METRICS) & set(metrics)


class ClockHead(AuxiliaryHead):
    """Says how far the episode has gone, and changes nothing of what the agent does."""

    def __init__(self, width):
        super().__init__()
        self.guess = nn.Linear(width, 1)

    def forward(self, y_E, observation):
        return None, self.guess(y_E)[..., 0].float()

    def auxiliary_losses(self, output, batch):
        error = output - batch.observation["seen"][..., 1]
        return AuxiliaryLosses({"clock_loss": error.square()}, {"clock_error": error.detach()})


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockConfig(AuxiliaryConfig):
    weight: float = 1.0

    @property
    def targets(self):
        return ("seen",)

    def build(self, space, width):
        return ClockHead(width)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockPolicyConfig(PolicyConfig):
    """With the one line that a head of one's own takes."""

    clock: ClockConfig | None = None


def test_a_head_of_ones_own_is_a_class_and_a_field(training):
    ppo = {"lr": 1e-2, "vf_coef": 0.0, "ent_coef": 0.0, "num_minibatches": 2}
    built = training(ppo, policy_config=ClockPolicyConfig, auxiliary={"clock": ClockConfig()})
    assert "auxiliary.clock.guess.weight" in built.policy.state_dict()
    assert "seen" in built.policy.stored_space.spaces
    assert "seen" not in built.policy.encoder.plan.vectors, "a target is no input"
    reports = built.run(6)
    assert max(r.metrics["ratio_drift_first"] for r in reports) <= 1e-5
    losses = [r.metrics["clock_loss"] for r in reports]
    assert losses[-1] < 0.5 * losses[0]
    assert all(abs(r.metrics["clock_error"]) ** 2 <= r.metrics["clock_loss"] for r in reports)
