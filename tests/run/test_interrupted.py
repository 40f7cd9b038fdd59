"""A run that is killed at any operation on a file, and started again, ends as if it was not."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from relic.run.compose import compose
from relic.run.distributed import ALONE
from relic.run.metrics import is_clock, read_metrics
from relic.run.ranks.rank import train_alone
from relic.run.trainer import Trainer
from relic.run.validation import final_scores

from .conftest import TINY
from .interrupted import watching

SMALLER = {
    "total_steps": "256",
    "rollout.num_steps": "32",
    "updates.per_rollout": "2",
    "env.options.horizon": "8",
    "env.options.size": "4",
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


def run_in(directory: Path, *, plots: bool = True) -> None:
    """Train in this process as `train.py` does, with final scores and, unless told not to, plots.

    Plots take most of the time, come last and follow from the metrics.
    """
    keys = {key: value for key, _, value in (k.partition("=") for k in TINY)} | SMALLER
    config = compose({**keys, "run_dir": str(directory)})
    if plots:
        train_alone(config)
        return
    trainer = Trainer(config, ALONE)
    trainer.run()
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


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A whole run and what it held before each operation on its files."""
    root = tmp_path_factory.mktemp("watched")
    run_in(root / "warm", plots=False)  # what is compiled on first use writes files of its own
    with watching(root / "run", root / "copies") as watcher:
        run_in(root / "run")
    shutil.copytree(root / "run", root / "whole")
    return watcher


def differing(watcher, numbers, *, plots: bool) -> list[str]:
    """Go on from the copies of these numbers, and return which end otherwise."""
    run_dir = watcher.watched
    whole = end_of(run_dir.parent / "whole", plots=plots)
    found = []
    for number in numbers:
        shutil.rmtree(run_dir)
        copy = watcher.copies / f"{number:04d}"
        if copy.exists():  # none: before the directory was made
            shutil.copytree(copy, run_dir)
        run_in(run_dir, plots=plots)
        end = end_of(run_dir, plots=plots)
        wrong = [key for key in whole if end[key] != whole[key]]
        if wrong:
            found.append(f"{number} before {watcher.operations[number]}: {wrong}")
    return found


def test_what_is_tested_covers_the_best_and_the_plots(watched):
    """Else neither a best that is lost nor plots that are missing would be noticed."""
    said = end_of(watched.watched.parent / "whole")["said"]
    best, latest = (said[f"checkpoints/{name}.json"]["name"] for name in ("best", "latest"))
    assert best != latest
    assert sum("plots" in operation for operation in watched.operations) > 5


def test_a_run_ends_alike_after_some_kills(watched):
    """Where a run was once lost: while the best is named, an old one goes, the end is drawn."""
    chosen = ("open checkpoints/best.json.tmp", "os.rmdir", "open plots/losses")
    numbers = [next(i for i, o in enumerate(watched.operations) if name in o) for name in chosen]
    assert differing(watched, numbers, plots=True) == []


@pytest.mark.slow
def test_a_run_ends_alike_whichever_operation_it_was_killed_at(watched):
    first = next(i for i, o in enumerate(watched.operations) if "plots" in o)
    assert differing(watched, range(first), plots=False) == []
    assert differing(watched, range(first, len(watched.operations)), plots=True) == []
