"""The examples run, with sizes that take seconds, and show what they say."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from relic.policy.memory.checker import check_memory

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SMALL = {
    "ranks": 1,
    "total_steps": 1024,
    "rollout.num_envs": 8,
    "rollout.num_steps": 128,
    "ppo.num_minibatches": 2,
    "ppo.update_epochs": 1,
    "logging.progress": False,
}
VALIDATION = {
    "validation.trials": 2,
    "validation.episodes": 2,
    "validation.score_from_episode": 0,
    "validation.every_rollouts": 1,
}


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Return a function that imports an example, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (EXAMPLES / f"{name}.py").exists():
            del sys.modules[name]


def trained(run):
    """Return the environment steps of a run that ended."""
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["env_steps"]


def test_each_example_is_tried():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"train", "own_environment", "own_memory", "evaluate_and_plot", "probe"}


def test_training_from_python(example, capsys):
    run = example("train").main(**SMALL, **VALIDATION)
    assert trained(run) == 1024
    assert "    1,024 steps: return" in capsys.readouterr().out


def test_an_environment_of_ones_own(example, tmp_path):
    lengths = example("own_environment").main(**SMALL)
    assert trained(tmp_path / "runs" / "doors") == 1024
    assert len(lengths) == 5
    # Hardly trained: it opens doors at random, 16 at most.
    assert all(4 < length < 10 for length in lengths)


def test_a_memory_of_ones_own(example, tmp_path):
    module = example("own_memory")
    torch.manual_seed(0)
    check_memory(module.Mean(module.MeanConfig(width=8), max_episode_steps=9))
    module.main(**SMALL, **VALIDATION, **{"policy.memory_options": {"width": 16}})
    assert trained(tmp_path / "runs" / "mean") == 1024


def test_evaluation_and_its_plot(example, capsys):
    drawn = example("evaluate_and_plot").main(trials=16, episodes=3)
    assert {path.suffix for path in drawn} >= {".png"}
    assert all(path.is_file() for path in drawn)
    last = capsys.readouterr().out.splitlines()[-1]
    kept, cleared = map(float, re.findall(r"\d+\.\d", last))
    assert kept > cleared + 10


def test_the_probe(example):
    result = example("probe").main(counts=(0, 1), trials=8)
    assert result.at_first("return", "difference").mean[1] > 0
