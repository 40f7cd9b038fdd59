"""Ranks of one run, as torchrun starts them: the same training as one process with two shards."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import relic.policy
from relic.run.metrics import is_clock, read_metrics
from relic.run.run_directory import CheckpointStore

from .conftest import ROOT, TINY

ALIKE = ("rollout.shards=2", "ppo.lr_end=1", "ppo.ent_coef_end=null")
"""Schedules that do not depend on where a run ends."""


def final_weights(run_dir):
    latest = CheckpointStore(run_dir / "checkpoints").latest()
    assert latest is not None
    return load_file(latest.path / "policy.safetensors")


def assert_alike(a, b, key):
    """Compare values of metrics; ranks add up in another order, which moves the last digits."""
    if isinstance(a, list):
        assert len(a) == len(b), key
        for x, y in zip(a, b, strict=True):
            assert_alike(x, y, key)
    elif isinstance(a, float):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-6), key
    else:
        assert a == b, key


def train_on_two_ranks(*overrides):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(ROOT / "train.py"), *TINY, *overrides],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_ranks_train_as_one_process_with_two_shards(tmp_path, train):
    one, two = tmp_path / "one", tmp_path / "two"
    train(*ALIKE, f"run_dir={one}")
    # The second start goes on from the checkpoint that both ranks wrote.
    train_on_two_ranks(*ALIKE, f"run_dir={two}", "total_steps=512")
    said = train_on_two_ranks(*ALIKE, f"run_dir={two}")
    assert said.count("finished: ") == 1
    lines = [read_metrics(d / "metrics.jsonl") for d in (one, two)]
    assert len(lines[0]) == len(lines[1]) == 12
    for a, b in zip(*lines, strict=True):
        keys = {k for k in a if not is_clock(k)}
        assert keys == {k for k in b if not is_clock(k)}
        for key in keys:
            assert_alike(a[key], b[key], key)
    first, second = final_weights(one), final_weights(two)
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=1e-6)
    assert relic.policy.load(two).max_episode_steps == 20
