"""A run of two rollouts with a best checkpoint and final scores, and what it leaves behind."""

import hashlib
import json
from pathlib import Path

from relic.run.compose import compose
from relic.run.config import RunConfig
from relic.run.distributed import ALONE
from relic.run.metrics import is_clock, read_metrics
from relic.run.ranks.rank import train_alone
from relic.run.trainer import Trainer
from relic.run.validation import final_scores

from .conftest import TINY

SMALLER = {
    "total_steps": "256",
    "rollout.num_steps": "32",
    "updates.per_rollout": "2",
    "env.options.horizon": "8",
    "env.options.size": "8",
    "policy.transformer.width": "8",
    "policy.transformer.mlp_width": "8",
    "validation.score_from_episode": "0",
    "validation.episodes": "2",
    "validation.final_trials": "2",
    "checkpoint.keep": "1",
    "checkpoint.best_metric": "val/return",
    "device": "cpu",
    "threads": "1",
    "ranks": "1",
    "seed": "1",
}


def config_of(directory: Path, **keys: str) -> RunConfig:
    """Return the run's configuration, with some keys changed."""
    tiny = {key: value for key, _, value in (k.partition("=") for k in TINY)}
    return compose({**tiny, **SMALLER, **keys, "run_dir": str(directory)})


def run_in(directory: Path, *, plots: bool = True) -> None:
    """Train in this process as `train.py` does, with final scores and, unless told not to, plots.

    Plots take most of the time, come last and follow from the metrics.
    """
    config = config_of(directory)
    if plots:
        train_alone(config)
        return
    trainer = Trainer(config, ALONE)
    try:
        trainer.run()
    finally:
        trainer.close()
    final_scores(config, trainer.directory, ALONE)


def end_of(directory: Path, *, plots: bool = True) -> dict:
    """Return all that a run has left behind, but for what depends on the clock."""
    files = {str(path.relative_to(directory)) for path in directory.rglob("*")}
    if not plots:
        files = {name for name in files if not name.startswith("plots")}
    weights = {
        path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("policy.safetensors"))
    }
    said = ("checkpoints/latest.json", "checkpoints/best.json", "final_scores.json")
    return {
        "files": sorted(files),
        "weights": weights,
        "said": {n: json.loads((directory / n).read_text()) for n in said if n in files},
        "metrics": [
            {key: value for key, value in line.items() if not is_clock(key)}
            for line in read_metrics(directory / "metrics.jsonl")
        ],
    }
