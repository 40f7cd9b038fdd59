"""A simulator that gives numbers that it cannot mean costs its episodes, not the run."""

import json
import math
import sys

import pytest

from relic.evaluation.curves import measures, tabulate
from relic.evaluation.evaluator import evaluate
from relic.evaluation.protocol import Protocol
from relic.policy.loading import load
from relic.run.compose import compose
from relic.run.distributed import ALONE
from relic.run.trainer import Trainer
from relic.train import train

from .conftest import TINY
from .test_resume import assert_same_run, without_clock

BREAKING = """
import gymnasium
import numpy as np
from gymnasium import spaces

from envs.core.trials import EpisodeTrials


class Breaking(gymnasium.Env):
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, often):
        self.often = often

    def begin(self, trial, episode):
        self.trial, self.episode, self.steps = trial, episode, 0
        return np.array([trial % 3, 0.0]), {}

    def step(self, action):
        self.steps += 1
        seen, paid = np.array([self.trial % 3, self.steps / 10]), float(action == self.trial % 2)
        if self.steps == 5 and (self.trial + self.episode) % self.often == 0:
            if self.episode % 2:
                seen[1] = np.nan
            else:
                paid = 1e30
        over = self.steps == 9
        return seen, paid, over, False, {"success": 1.0} if over else {}


def make(num_envs, first_row=0, often=3, **_):
    return EpisodeTrials(
        lambda: Breaking(often), num_envs, dataset_name="breaking", first_row=first_row,
        start=lambda env, trial, episode: env.begin(trial, episode), max_episode_steps=12,
        num_trials=100, record=["success"],
    )
"""
OWN = ("validation.every_rollouts=null", "checkpoint.best_metric=null", "ranks=1", "threads=1")


def own(**options):
    return f"env={json.dumps({'id': 'breaking:make', 'options': options})}"


@pytest.fixture(autouse=True)
def breaking(tmp_path, monkeypatch):
    (tmp_path / "breaking.py").write_text(BREAKING)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("breaking", None)


def trainer(run_dir):
    keys = dict(key.split("=", 1) for key in (*TINY, *OWN, own()))
    return Trainer(compose({**keys, "total_steps": "1024", "run_dir": str(run_dir)}), ALONE)


def test_a_run_counts_crashes_and_goes_on(tmp_path):
    whole = trainer(tmp_path / "whole")
    for _ in whole.updates(lambda: False):
        pass
    whole.close()
    lines = without_clock(tmp_path / "whole")
    assert lines[-1]["env_steps"] == 1024
    assert lines[-1]["crashes"] > lines[3]["crashes"] > 5
    assert all(math.isfinite(line[key]) for line in lines for key in ("value_loss", "grad_norm"))
    assert all(line["return_mean"] <= 9 for line in lines)
    # Those that crashed say nothing of success, and hide none.
    assert {line["success_mean"] for line in lines} == {1.0}

    stopped = trainer(tmp_path / "run")
    for update, _ in enumerate(stopped.updates(lambda: True), 1):
        assert update == 1
    stopped.close()
    resumed = trainer(tmp_path / "run")
    resumed.resume()
    assert resumed.counters.crashes == lines[0]["crashes"]
    for _ in resumed.updates(lambda: False):
        pass
    resumed.close()
    assert_same_run(tmp_path / "whole", tmp_path / "run")

    protocol = Protocol(
        name="own", env="breaking:make", trials=3, episodes=4, options={"often": 3}, block=3
    )
    records = evaluate(load(tmp_path / "run"), protocol)
    json.dumps(records, allow_nan=False)
    crashed = [record for record in records if record["crashed"]]
    assert 0 < len(crashed) < len(records)
    assert not any("success" in record for record in crashed)
    assert "success" in measures(crashed[:1] + records)
    assert math.isnan(tabulate(records, "success").value_UI.mean())


def test_a_run_ends_where_a_row_always_crashes(tmp_path, capsys):
    keys = [*TINY, *OWN, own(often=1), f"run_dir={tmp_path / 'run'}"]
    assert train(keys) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "row 0, trial" in said
    assert "This row has crashed 21 times in a row, more than max_crashes=20. Correct" in said
