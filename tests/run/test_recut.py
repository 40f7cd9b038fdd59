"""A checkpoint goes on with any number of ranks, inside a rollout and between two."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from envs.darkroom import DarkroomVectorEnv
from relic.files import StateError
from relic.run.compose import compose
from relic.run.metrics import is_clock, read_metrics
from relic.run.run_directory import CheckpointStore

from .conftest import TINY
from .rank_threads import train_on_ranks

BASE = dict(key.split("=", 1) for key in TINY) | {
    "ppo.num_minibatches": 1,
    "ppo.lr_end": 1,
    "ppo.ent_coef_end": None,
    "total_steps": 1024,
    "threads": 1,
}
KEEPING = {
    "updates.refresh_memory": False,
    "updates.refresh_values": False,
    "updates.shuffle": False,
    "updates.prefix_gradient": "detached",
}
"""The memory is not made anew, so it is saved."""
MEMORIES = {
    "transformer": {},
    "gru": {"policy.memory": "gru", "ppo.credit": "trial"},
    "transformer_xl": {"policy.memory": "transformer_xl"},
    "memo": {"policy.memory": "memo"},
    "depth": {"policy.transformer.depth_dropout": 0.5, "policy.transformer.num_layers": 2},
}
HOUSES = {
    "experiment": "houses_small",
    "env.options.sensors": ["detections"],
    "env.options.task.max_episode_steps": 12,
    "policy.encoder.keys": ["gps", "compass", "goal", "outcome"],
    "policy.encoder.visual": "blind",
    "policy.encoder.checkpoint": None,
    "policy.encoder.sightings": None,
    "ppo.lesson_steps": 256,
    "ppo.clone_steps": 768,
}


def run_of(run_dir, **changes):
    return compose({**BASE, **changes, "run_dir": str(run_dir)})


def weights(run_dir):
    latest = CheckpointStore(run_dir / "checkpoints").latest()
    assert latest is not None
    return load_file(latest.path / "policy.safetensors")


def assert_same(one, other):
    lines = [read_metrics(d / "metrics.jsonl") for d in (one, other)]
    assert len(lines[0]) == len(lines[1])
    for a, b in zip(*lines, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"time/evaluate"}:
            if not is_clock(key) and isinstance(a[key], float):
                assert b[key] == pytest.approx(a[key], rel=1e-3, abs=1e-5), key
            elif not is_clock(key):
                assert np.shape(a[key]) == np.shape(b[key]), key
    first, second = weights(one), weights(other)
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one rank that is never stopped."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train_on_ranks(run_of(run_dir), 1)
    return run_dir


@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_trains_the_same_run(alone, tmp_path, ranks):
    train_on_ranks(run_of(tmp_path / "run"), ranks)
    assert_same(alone, tmp_path / "run")


@pytest.mark.parametrize("updates", [4, 6], ids=["between_rollouts", "inside_a_rollout"])
@pytest.mark.parametrize("ranks", [(1, 2), (2, 1), (2, 4), (4, 1, 2)], ids=str)
def test_a_run_goes_on_with_another_number_of_ranks(alone, tmp_path, ranks, updates):
    run_dir = tmp_path / "run"
    *before, last = ranks
    for number, count in enumerate(before):
        # After the first, one update each: chunks of several numbers of ranks come together.
        train_on_ranks(run_of(run_dir), count, updates=updates if number == 0 else 1)
    train_on_ranks(run_of(run_dir), last)
    assert_same(alone, run_dir)


@pytest.mark.parametrize("ranks", [(1, 2), (2, 1)], ids=str)
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_memory_that_is_saved_is_shared_out_anew(tmp_path, memory, ranks):
    changes = {**KEEPING, **MEMORIES[memory]}
    train_on_ranks(run_of(tmp_path / "alone", **changes), 1)
    train_on_ranks(run_of(tmp_path / "run", **changes), ranks[0], updates=6)
    train_on_ranks(run_of(tmp_path / "run", **changes), ranks[1])
    assert_same(tmp_path / "alone", tmp_path / "run")


@pytest.mark.parametrize("ranks", [(1, 2), (2, 1)], ids=str)
def test_final_observations_are_shared_out_anew(tmp_path, ranks):
    """They were collected before the cut, and the last update values them anew."""
    changes = {"ppo.time_limit": "bootstrap"}
    train_on_ranks(run_of(tmp_path / "alone", **changes), 1)
    train_on_ranks(run_of(tmp_path / "run", **changes), ranks[0], updates=6)
    train_on_ranks(run_of(tmp_path / "run", **changes), ranks[1])
    assert_same(tmp_path / "alone", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(1, 2), (2, 1)], ids=str)
def test_houses_and_demonstrations_are_shared_out_anew(tmp_path, ranks):
    changes = {**HOUSES, "validation.every_rollouts": None, "checkpoint.best_metric": None}
    base = {key: value for key, value in BASE.items() if key != "env.options.horizon"}

    def houses(name):
        return compose({**base, **changes, "run_dir": str(tmp_path / name)})

    train_on_ranks(houses("alone"), 1)
    train_on_ranks(houses("run"), ranks[0], updates=6)
    train_on_ranks(houses("run"), ranks[1])
    assert_same(tmp_path / "alone", tmp_path / "run")


class Whole(DarkroomVectorEnv):
    """Its state holds an array that is no array of rows."""

    def save_rows(self):
        return {**super().save_rows(), "wind": np.arange(7)}


def test_a_state_that_cannot_be_cut_is_refused_and_goes_on_with_as_many(tmp_path):
    changes = {"env.id": f"{__name__}:Whole", "validation.every_rollouts": None}
    changes |= {"checkpoint.best_metric": None}
    train_on_ranks(run_of(tmp_path / "run", **changes), 2, updates=6)
    message = (
        r"saved within a rollout by 2 ranks.*among 1: .*env\.wind: must have one entry.*ranks=2"
    )
    with pytest.raises(StateError, match=message):
        train_on_ranks(run_of(tmp_path / "run", **changes), 1)
    train_on_ranks(run_of(tmp_path / "run", **changes), 2)
