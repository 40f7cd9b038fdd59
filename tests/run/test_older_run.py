"""A run that an older version left in the middle of a rollout goes on in this one.

`older_run` was written before `policy.place`, `ppo.place_coef`, `rollout.captured_steps`,
`gated_residual` and others got their present names or went; with it lie the metrics of the same run
that was not stopped.
"""

import shutil
from pathlib import Path

import pytest
import yaml

from relic.run.metrics import is_clock, read_metrics

OLDER = Path(__file__).parent / "older_run"
SMALLER = ("policy.transformer.width=8", "policy.transformer.mlp_width=8", "device=cpu")


def lines(path):
    return [{k: v for k, v in line.items() if not is_clock(k)} for line in read_metrics(path)]


def test_a_run_of_an_older_version_goes_on(tmp_path, train):
    run_dir = shutil.copytree(OLDER, tmp_path / "run")
    stopped = lines(run_dir / "metrics.jsonl")
    train(*SMALLER, f"run_dir={run_dir}", "total_steps=1024")
    whole, found = (
        lines(p) for p in (OLDER / "metrics_of_the_whole.jsonl", run_dir / "metrics.jsonl")
    )
    assert found[: len(stopped)] == stopped == whole[: len(stopped)]
    assert [(m["env_steps"], m["update"]) for m in found] == [
        (m["env_steps"], m["update"]) for m in whole
    ]
    # Another processor rounds otherwise, and sooner or later that draws another action.
    first = len(stopped)
    assert found[first].keys() == whole[first].keys()
    # The older version read the learning rate at the chunk's end, which moves the means over an
    # update's steps of what its first step changes.
    moved = {"value_loss", "grad_norm"}
    for name in ("entropy", "explained_variance", *moved):
        rel = 5e-3 if name in moved else 1e-3
        assert found[first][name] == pytest.approx(whole[first][name], rel=rel, abs=1e-5)
    kept = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert "place_coef" not in kept["ppo"], "it is written with the names of today"
