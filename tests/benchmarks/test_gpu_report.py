"""The report of a GPU, in its small form on a CPU."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from relic.run.metrics import is_clock, read_metrics
from relic.run.run_directory import CheckpointStore


def report(benchmarks, directory, *options):
    command = [sys.executable, benchmarks / "gpu_report.py", directory, "--quick", *options]
    said = subprocess.run(
        [*command, "--device", "cpu"], capture_output=True, text=True, timeout=600
    )
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout.splitlines()[-1])["results"]


def outcome(directory):
    lines = read_metrics(directory / "metrics.jsonl")
    latest = CheckpointStore(directory / "checkpoints").latest()
    assert latest is not None
    weights = load_file(latest.path / "policy.safetensors")
    return [{k: v for k, v in line.items() if not is_clock(k)} for line in lines], weights


@pytest.mark.slow
def test_a_call_that_ran_out_of_time_goes_on_exactly(benchmarks, tmp_path):
    whole = report(benchmarks, tmp_path / "whole")
    assert whole["done"]
    assert whole["rollout"]["updates"] == "4 of 4"
    assert whole["rollout"]["env_steps_per_s"] > 0
    first = report(benchmarks, tmp_path / "cut", "--limit-s", "0")
    assert not first["done"]
    assert first["rollout"]["updates"] == "1 of 4"
    assert "limits" not in first
    second = report(benchmarks, tmp_path / "cut")
    assert second["done"]
    assert second["rollout"]["share_of_product"].keys() == {"act", "refresh", "learn"}
    assert not any("error" in row for row in second["attention"])
    again = report(benchmarks, tmp_path / "cut")
    assert again["limits"] == second["limits"]  # measured once
    lines, weights = outcome(tmp_path / "whole")
    lines_cut, weights_cut = outcome(tmp_path / "cut")
    assert lines == lines_cut
    assert weights.keys() == weights_cut.keys()
    assert all(torch.equal(weights[k], weights_cut[k]) for k in weights)
