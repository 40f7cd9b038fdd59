"""The table of baselines and the CPU time of runs that were stopped, from files made by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    """Benchmarks are scripts: they find each other in their own directory."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in ("cases", "baselines_report"):
        sys.modules.pop(name, None)


def _records(offset: float) -> list[dict]:
    """Two goals of eleven episodes; a return rises by one with each, so by ten in all."""
    return [
        {"trial": trial, "repeat": 0, "episode": i, "return": i + offset + 10 * trial}
        for trial in range(2)
        for i in range(11)
    ]


def test_seeds_are_further_repeats_of_the_same_trials(tmp_path):
    from baselines_report import EXPERIMENTS, plot, pooled, result_of, table

    setting = EXPERIMENTS["darkroom"]
    records = {0: _records(0), 1: _records(20)}
    rows = [
        result_of("relic", None, 2, pooled(records), 100, setting),
        result_of("relic", 0, 1, records[0], 110, setting),
        result_of("sink_none", None, 1, records[1], 90, setting),
    ]
    lines = table(rows, setting, 5000, ["a note"]).splitlines()
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines if line[:3] != "|--"]
    found = [row for row in cells if row]
    # The episodes 20 and 39 do not exist; seeds start at 5 and 25 in the mean over two goals.
    gain = "10.0 (10.0 to 10.0)"
    mean = ["15.0", "16.0", "17.0", "20.0", "25.0", "", ""]
    assert found[1] == ["ReLIC", "mean of 2", *mean, gain, "100"]
    assert found[2][:4] == ["ReLIC", "0", "5.0", "6.0"]
    assert found[3][:3] == ["no sink", "one", "25.0"]
    assert lines[-1] == "- a note"
    plot(rows, setting, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_cpu_seconds_add_up_over_the_processes_of_a_run(tmp_path):
    from cases import Case, cpu_seconds

    case = Case(tmp_path / "run", ())
    case.directory.mkdir()
    (case.directory / "metrics.jsonl").write_text(json.dumps({"env_steps": 300}) + "\n")
    accounts = [
        {"from": 0, "to": 100, "cpu_s": 10.0, "status": 0},
        {"from": 200, "to": 300, "cpu_s": 20.0, "status": 0},
    ]
    case.accounts.write_text("".join(json.dumps(line) + "\n" for line in accounts))
    # 30 seconds for 200 steps; the 100 of a process that was killed cost as much per step.
    assert cpu_seconds(case) == pytest.approx(45.0)
