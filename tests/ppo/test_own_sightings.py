"""Learning to recall what the agent's own encoder found: a run that is told nothing else."""

from functools import partial

import numpy as np
import pytest
import torch

from envs.houses.env import HousesVectorEnv
from envs.objectnav.goals import GOAL_CATEGORIES
from relic.policy.auxiliary_config import RecallConfig
from relic.policy.encoders.config import SightingsConfig
from relic.ppo.loop import run_rollout
from relic.ppo.schedule import PrefixGradient

TOLD = ("detections", "goal_recall", "goal_detection", "named", "named_place", "depth_scan")


SEEN = {"resolution": 32, "compass": True, "task": {"max_episode_steps": 12}}
TELLING = {**SEEN, "sensors": ("rgb", "detections"), "goal_recall": True}


class MisledEnv(HousesVectorEnv):
    """The same houses, but what the environment says of them is wrong."""

    def observe_rows(self, rows, out):
        super().observe_rows(rows, out)
        where = slice(None) if rows is None else rows
        for key in TOLD:
            out[key][where] = 1


telling = partial(HousesVectorEnv, **TELLING)
misled = partial(MisledEnv, **TELLING)
bare = partial(HousesVectorEnv, sensors=("rgb",), **SEEN)


@pytest.fixture
def built(training):
    """The function that builds a run whose untrained encoder finds what it likes."""

    def build(env, prefix=PrefixGradient.DETACHED, **recall):
        encoder = {
            "frozen": True,
            "feature_width": 12 * len(GOAL_CATEGORIES) + 8,
            "sightings": SightingsConfig(least_evidence=0.05),
        }
        # The untrained encoder's features are small.
        found = {"seen": None, "goal_seen": None, "least_evidence": 0.05, "relabelled": 0.5}
        return training(
            {"lr": 3e-3, "lesson_steps": 1, "num_minibatches": 2},
            {"prefix_gradient": prefix},
            env=env,
            num_envs=4,
            keys=("rgb", "gps", "compass", "goal"),
            encoder=encoder,
            auxiliary={"recall": RecallConfig(**(found | recall))},
        )

    return build


def test_what_the_environment_says_changes_nothing(built):
    """Detections that are wrong, or none at all: the same weights, and the same acting."""
    runs = [built(env) for env in (telling, misled, bare)]
    for run in runs:
        run.run(2)
    first, *others = runs
    assert first.reports[-1].metrics["lesson_recall_share"] > 0.3
    assert first.reports[-2].metrics["recall_share"] > 0.01
    for other in others:
        for a, b in zip(first.policy.parameters(), other.policy.parameters(), strict=True):
            assert torch.equal(a, b)
        assert np.array_equal(first.rollout.reward_NT, other.rollout.reward_NT)
    told = [built(env, seen="detections", least_evidence=4.0) for env in (telling, misled)]
    for run in told:
        run.run(2)
    same = [torch.equal(a, b) for a, b in zip(*(r.policy.parameters() for r in told), strict=True)]
    assert not all(same), "who is told by the environment is misled"


@pytest.mark.parametrize("prefix", [PrefixGradient.DETACHED, PrefixGradient.FULL])
def test_a_restored_run_goes_on_the_same_and_ratios_are_one(built, prefix):
    straight, stopped, resumed = (built(bare, prefix) for _ in range(3))
    straight.run(2)
    stopped.run(1)
    loop = run_rollout(stopped.collector, stopped.learner, stopped.learner.schedule)
    next(loop), next(loop)  # stops inside a rollout
    rollout = stopped.rollout
    chunks = [rollout.chunk_state(0, 10), rollout.chunk_state(10, 20)]
    resumed.take_over(stopped, chunks)
    resumed.run(1)
    for a, b in zip(straight.reports[-2:], resumed.reports, strict=True):
        assert a.metrics == b.metrics
    for a, b in zip(straight.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    drift = [r.metrics["ratio_drift_first"] for r in straight.reports]
    assert max(drift) <= 1e-5
