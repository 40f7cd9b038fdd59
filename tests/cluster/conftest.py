"""A run of three rollouts that takes seconds, by itself and on Ray."""

import os
from pathlib import Path

# Before anybody imports Ray, which reads them then. No token is written, and a machine on which
# other tests run may take its time.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_raylet_start_wait_time_s"] = "600"
os.environ["RAY_agent_register_timeout_ms"] = "600000"

import pytest
import ray
import torch
from safetensors.torch import load_file

from relic.run.compose import compose
from relic.run.distributed import join_ranks
from relic.run.metrics import is_clock, read_metrics
from relic.run.run_directory import CheckpointStore
from relic.run.trainer import Trainer

TINY = {
    "experiment": "darkroom",
    "total_steps": 1536,
    "device": "cpu",
    "threads": 1,
    "rollout.num_envs": 4,
    "rollout.num_steps": 128,
    "updates.per_rollout": 4,
    "policy.transformer.width": 16,
    "policy.transformer.mlp_width": 16,
    "policy.transformer.num_layers": 1,
    "policy.transformer.num_heads": 2,
    "ppo.num_minibatches": 2,
    "ppo.update_epochs": 1,
    "env.options.horizon": 20,
    "validation.every_rollouts": 1,
    "validation.trials": 2,
    "validation.episodes": 3,
    "checkpoint.interval_s": 0,
    "logging.progress": False,
}


def train_locally(run_dir: Path, *, updates: int | None = None, **options) -> Path:
    """Train TINY in this process, without Ray, and return the run directory.

    With `updates`, stop after so many.
    """
    config = compose({**TINY, **options, "run_dir": str(run_dir)})
    trainer = Trainer(config, join_ranks("cpu"))
    try:
        trainer.resume()
        for done, _ in enumerate(trainer.updates(lambda: False), start=1):
            if done == updates:
                break
    finally:
        trainer.close()
    return run_dir


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """Return the newest checkpoint's."""
    latest = CheckpointStore(run_dir / "checkpoints").latest()
    assert latest is not None
    return load_file(latest.path / "policy.safetensors")


def distance(a: Path, b: Path) -> float:
    """Return the largest difference of any weight of two runs."""
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    return max((first[k].double() - second[k].double()).abs().max().item() for k in first)


def metrics(run_dir: Path) -> list[dict]:
    """Return the lines of a run without what depends on the clock."""
    lines = read_metrics(run_dir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not is_clock(k)} for line in lines]


@pytest.fixture(scope="session")
def local(tmp_path_factory) -> Path:
    """The local run that the cluster's are compared with."""
    return train_locally(tmp_path_factory.mktemp("local") / "run")


@pytest.fixture(scope="session")
def cluster():
    """A Ray with enough logical CPUs for two learners and two EnvRunners."""
    ray.init(num_cpus=4, include_dashboard=False, ignore_reinit_error=True)
    yield
    ray.shutdown()
