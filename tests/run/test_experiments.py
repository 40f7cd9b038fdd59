"""Every experiment that ships starts and trains; here with few rows and short rollouts."""

import os
import subprocess
import sys

import pytest

from relic.run.compose import compose, groups
from relic.run.metrics import read_metrics
from tests.envs.habitat.habitat_tools import PLAIN, write_dataset

from .conftest import ROOT

SMALL = (
    "rollout.num_envs=4",
    "rollout.num_steps=80",
    "updates.per_rollout=4",
    "total_steps=640",
    "ppo.num_minibatches=2",
    "ppo.update_epochs=1",
    "validation.every_rollouts=2",
    "validation.trials=2",
    "validation.episodes=1",
    "validation.score_from_episode=0",
    "validation.final_trials=0",
    "logging.progress=false",
)

PACKAGES = ("minigrid", "popgym")
"""What experiments in a folder of that name need."""
HABITAT = ("hssd", "hssd_64k", "replica_cad")
"""Experiments that read scenes."""


def stand_ins(experiment, folder):
    """Return what lets an experiment start without the scenes and weights that it reads."""
    if experiment not in HABITAT:
        return ()
    config, episodes = write_dataset(folder)
    options = {
        "env.options.scene_dataset": config,
        "env.options.episodes": episodes,
        "validation.options.episodes": episodes,
        "env.options.objects": "[]",
        "env.options.resolution": 16,
        "+env.options.backend": PLAIN,
        "+env.options.cache": folder / "cache",
        "+env.options.viewpoint_spacing": 0.5,
        "+env.options.task": "{success_resolution: 64, success_pixels: 3, max_episode_steps: 30}",
        "policy.encoder.visual": "small_cnn",
        "policy.encoder.checkpoint": "null",
        "updates.per_rollout": 4,
    }
    return tuple(f"{key}={value}" for key, value in options.items())


@pytest.mark.slow
@pytest.mark.parametrize("experiment", groups()["experiment"])
def test_every_experiment_trains_for_two_rollouts(experiment, tmp_path):
    if experiment == "own":
        page = (ROOT / "docs" / "own_environment.md").read_text()
        (tmp_path / "my_env.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    package = experiment.partition("/")[0]
    if package in PACKAGES:
        pytest.importorskip(package)
    said = subprocess.run(
        [
            sys.executable,
            ROOT / "train.py",
            f"experiment={experiment}",
            *SMALL,
            "run_dir=run",
            *stand_ins(experiment, tmp_path / "scenes"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert said.returncode == 0, said.stderr
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert lines[-1]["env_steps"] == 640
    updates = compose({"experiment": experiment}).updates
    assert lines[-1]["update"] == ("full" if updates.full_per_rollout else "partial")
    # In so few steps nothing may have been in view that a lesson can ask for.
    assert all(line["grad_norm"] > 0 or line["lesson_recall_share"] == 0 for line in lines)
    assert any("val/return" in line for line in lines)
    assert "finished: run" in said.stdout
