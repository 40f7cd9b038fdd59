"""A run that is small enough to train in seconds, and ways to start it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TINY = (
    "experiment=darkroom",
    "total_steps=1536",
    "rollout.num_envs=4",
    "rollout.num_steps=128",
    "updates.per_rollout=4",
    "policy.transformer.width=16",
    "policy.transformer.mlp_width=16",
    "policy.transformer.num_layers=1",
    "policy.transformer.num_heads=2",
    "ppo.num_minibatches=2",
    "ppo.update_epochs=1",
    "env.options.horizon=20",
    "validation.every_rollouts=1",
    "validation.trials=2",
    "validation.episodes=3",
    "checkpoint.interval_s=0",
    "logging.progress=false",
)


def command(*overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *TINY, *overrides]


@pytest.fixture
def train(tmp_path):
    """Run `train.py` in a fresh process and return what it said."""

    def run(
        *overrides: str, check: int | None = 0, path: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*overrides),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{path}:{ROOT}"},
        )
        assert check is None or done.returncode == check, done.stderr
        return done

    return run


@pytest.fixture
def start(tmp_path):
    """Start `train.py` in the background; it is killed at the end of the test."""
    started = []

    def run(*overrides: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*overrides),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
