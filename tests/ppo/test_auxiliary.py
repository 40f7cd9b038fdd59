"""Learning from auxiliary heads beside the reward."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from relic.noise import Stream, row_uniforms
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
    built = training(
        ppo, policy_config=ClockPolicyConfig, keys=(), auxiliary={"clock": ClockConfig()}
    )
    assert "auxiliary.clock.guess.weight" in built.policy.state_dict()
    assert "seen" in built.policy.stored_space.spaces
    assert "seen" not in built.policy.encoder.plan.vectors, "a target is no input"
    reports = built.run(6)
    assert max(r.metrics["ratio_drift_first"] for r in reports) <= 1e-5
    losses = [r.metrics["clock_loss"] for r in reports]
    assert losses[-1] < 0.5 * losses[0]
    assert all(abs(r.metrics["clock_error"]) ** 2 <= r.metrics["clock_loss"] for r in reports)


class DrawingHead(ClockHead):
    """Learns the clock, and in its lesson the numbers that the lesson is drawn by."""

    def lesson(self, batch, uniform_NT):
        drawn = uniform_NT[..., None].expand(*uniform_NT.shape, 2)
        return replace(batch, observation={**batch.observation, "seen": drawn})


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawingConfig(ClockConfig):
    of_lesson: float = 0.5

    @property
    def lesson_weight(self):
        return self.of_lesson

    def build(self, space, width):
        return DrawingHead(width)


def train_with_lesson(training, weight, lr=0.0, updates=None, **more):
    ppo = {
        "lr": lr,
        "update_epochs": 1,
        "num_minibatches": 2,
        **more,
        "vf_coef": 0.0,
        "ent_coef": 0.0,
    }
    head = DrawingConfig(weight=0.0, of_lesson=weight)
    return training(
        ppo, updates, policy_config=ClockPolicyConfig, keys=(), auxiliary={"clock": head}
    )


@pytest.mark.parametrize("full", [1, 0])
def test_a_lesson_is_a_pass_of_whole_rollouts_at_their_end(training, full):
    built = train_with_lesson(training, 0.5, updates={"full_per_rollout": full})
    reports = built.run(1)
    kinds = [r.metrics.get("lesson_clock_loss") for r in reports]
    assert kinds[:-1] == [None] * (len(kinds) - 1)
    rollout, rows = built.rollout, np.arange(built.rollout.num_envs)
    drawn = row_uniforms(
        built.learner.seed,
        rollout.global_row_N,
        len(reports) - 1,
        rollout.size,
        stream=Stream.LESSON,
    )
    with torch.no_grad():
        batch = rollout.batch(rows, 0, rollout.size)
        guess = built.policy.evaluate_actions(batch).auxiliary["clock"]
    expected = (guess - torch.from_numpy(drawn)).square().mean()
    assert kinds[-1] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("alone", "passes"), [(0, 2), (10_000, 4 * 2 * 2)])
def test_beside_other_losses_lessons_are_in_the_first_epoch(training, monkeypatch, alone, passes):
    """Of the last of four updates with two epochs of two minibatches; alone, in all of them."""
    none = {"full_per_rollout": 0}
    built = train_with_lesson(training, 0.5, updates=none, lesson_steps=alone, update_epochs=2)
    head, taught = built.policy.auxiliary["clock"], []
    lesson = head.lesson
    monkeypatch.setattr(head, "lesson", lambda *args: taught.append(args) or lesson(*args))
    reports = built.run(1)
    assert len(taught) == passes
    assert "lesson_clock_loss" in reports[-1].metrics
    assert ("policy_loss" in reports[-1].metrics) == (alone == 0)


def test_the_weight_of_a_lesson_decides_whether_it_is_learned(training):
    def moved(weight):
        built = train_with_lesson(training, weight, lr=1e-2)
        first = built.policy.auxiliary["clock"].guess.weight.detach().clone()
        reports = built.run(3)
        assert ("lesson_clock_loss" in reports[-1].metrics) == (weight > 0)
        return not torch.equal(first, built.policy.auxiliary["clock"].guess.weight)

    assert moved(0.5)
    assert not moved(0.0)


def test_lessons_alone_come_first_and_in_every_update(training):
    """Until `lesson_steps` nothing but the head and what it reads is moved."""
    # A rollout has 6 rows of 40 steps, so two begin before 300.
    built = train_with_lesson(training, 0.5, lr=1e-2, lesson_steps=300)
    first = {name: p.detach().clone() for name, p in built.policy.named_parameters()}
    built.run(2)
    moved = {n for n, p in built.policy.named_parameters() if not torch.equal(p, first[n])}
    assert any(name.startswith("auxiliary.clock") for name in moved)
    assert any(name.startswith("memory") for name in moved)
    assert not any(name.startswith(("actor", "critic", "features")) for name in moved)
    assert all("lesson_clock_loss" in r.metrics for r in built.reports)
    assert not any("policy_loss" in r.metrics for r in built.reports)
    reports = built.run(1)[len(built.reports) - 4 :]
    assert all("policy_loss" in r.metrics for r in reports)
    assert not torch.equal(built.policy.features.weight, first["features.weight"])


def test_what_lessons_left_alone_then_learns_as_from_its_first_step(training):
    """Adam's estimates for it do not count the steps in which it had no gradient."""
    built = train_with_lesson(training, 0.5, lr=1e-2, lesson_steps=300)
    built.run(3)
    per_rollout = 4 * 2  # updates and minibatches
    steps = {
        name: int(built.learner.optimizer.state[parameter]["step"])
        for name, parameter in built.policy.named_parameters()
    }
    assert steps["auxiliary.clock.guess.weight"] == 3 * per_rollout
    assert steps["features.weight"] == per_rollout


def test_lessons_alone_without_a_lesson_are_refused(training):
    with pytest.raises(ValueError, match=r"ppo\.lesson_steps: must be 0"):
        train_with_lesson(training, 0.0, lesson_steps=1)


@pytest.mark.parametrize("steps", [0, 10_000])
@pytest.mark.parametrize("tokens", [1, 90])
def test_a_lesson_keeps_to_the_tokens_of_a_microbatch(training, monkeypatch, steps, tokens):
    """Where an update's own pass is its newest chunk alone, too."""
    none = {"full_per_rollout": 0}
    more = {"lesson_steps": steps, "microbatch_tokens": tokens}
    built = train_with_lesson(training, 0.5, updates=none, **more)
    evaluate, sizes = built.policy.evaluate_actions, []

    def watched(batch, *args, **kwargs):
        sizes.append(batch.action.shape[:2])
        return evaluate(batch, *args, **kwargs)

    monkeypatch.setattr(built.policy, "evaluate_actions", watched)
    built.run(1)
    assert max(length for _, length in sizes) == 40
    assert all(
        rows == max(tokens // length, 1) or rows * length <= tokens for rows, length in sizes
    )
