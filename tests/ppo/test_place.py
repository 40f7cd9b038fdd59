"""Learning where what is asked for lies, beside the reward."""

import pytest
import torch

from relic.policy.auxiliary import PlaceConfig, place_errors
from relic.ppo.loss import PLACE_PARTS
from relic.ppo.schedule import PrefixGradient

PLACE = PlaceConfig()


@pytest.mark.parametrize("prefix", [PrefixGradient.FULL, PrefixGradient.DETACHED])
def test_the_first_ratio_is_one(training, prefix):
    built = training(
        {"lr": 3e-3, "place_coef": 1.0},
        {"prefix_gradient": prefix},
        env="houses",
        num_envs=4,
        place=PLACE,
    )
    reports = built.run(2)
    assert max(r.metrics["ratio_drift_first"] for r in reports) <= 1e-5
    assert max(r.metrics["ratio_drift_max"] for r in reports) > 0.01


def test_the_loss_that_is_reported_is_that_of_the_whole_contexts(training):
    """With a learning rate of 0 the last, full update reports the mean over all steps."""
    built = training({"lr": 0.0, "update_epochs": 1}, env="houses", num_envs=4, place=PLACE)
    metrics = built.run(1)[-1].metrics
    rows = torch.arange(4).numpy()
    with torch.no_grad():
        batch = built.rollout.batch(rows, 0, built.rollout.size)
        guess = built.policy.evaluate_actions(batch).place
    loss, error = place_errors(guess, batch.observation["goal_places"])
    for name, want in zip(PLACE_PARTS, (loss, error), strict=True):
        assert metrics[name] == pytest.approx(float(want.mean()), rel=1e-4)


def test_the_weight_decides_what_is_learned(training):
    """Alone with the loss of places the guess gets better; without it nothing moves it."""

    def losses(place_coef):
        ppo = {"lr": 1e-2, "vf_coef": 0.0, "ent_coef": 0.0, "place_coef": place_coef}
        built = training(ppo, env="houses", num_envs=4, place=PLACE)
        first = built.policy.place.guess.weight.detach().clone()
        reports = built.run(4)
        moved = not torch.equal(first, built.policy.place.guess.weight)
        return moved, reports[0].metrics["place_loss"], reports[-1].metrics["place_loss"]

    moved, before, after = losses(1.0)
    assert moved
    assert after < before - 0.5
    moved, *_ = losses(0.0)
    assert not moved


def test_without_a_guess_nothing_is_reported(training):
    metrics = training(env="houses", num_envs=4).run(1)[-1].metrics
    assert not set(PLACE_PARTS) & set(metrics)
