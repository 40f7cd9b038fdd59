"""The table of baselines and the CPU time of runs that were stopped, from files made by hand."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relic.evaluation.controls import ContextControl
from relic.run.compose import compose

if TYPE_CHECKING:
    from baselines_report import Result

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    """Benchmarks are scripts: they find each other in their own directory."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in ("cases", "baselines", "baselines_report"):
        sys.modules.pop(name, None)


def _records(offset: float) -> list[dict]:
    """Two goals of eleven episodes; a return rises by one with each, so by ten in all."""
    return [
        {"trial": trial, "repeat": 0, "episode": i, "return": i + offset + 10 * trial}
        for trial in range(2)
        for i in range(11)
    ]


def _result(row: str, seed: int, offset: float, speed: float) -> Result:
    from baselines_report import EXPERIMENTS, measured

    records = {ContextControl.KEPT: _records(offset)}
    return measured(row, seed, records, speed, EXPERIMENTS["darkroom"])


@pytest.mark.parametrize("experiment", ["darkroom", "houses_small_detections"])
def test_results_that_are_kept_are_of_what_would_be_trained(experiment):
    """Else the documented command refuses them."""
    from baselines_report import EXPERIMENTS, Results

    kept = BENCHMARKS.parent / "docs" / "baselines" / f"{experiment}.json"
    total_steps = EXPERIMENTS[experiment].total_steps
    total_steps = total_steps or compose({"experiment": experiment}).total_steps
    assert Results(kept, experiment, total_steps).get("relic", 0) is not None


def test_the_table_has_the_mean_over_seeds_and_each_of_them(tmp_path):
    from baselines_report import EXPERIMENTS, lines_of, plot, table

    steep = dataclasses.replace(
        _result("relic", 1, 20, 91), gain={"mean": 30.0, "low": 28.0, "high": 31.0}
    )
    setting = EXPERIMENTS["darkroom"]
    rows = lines_of([_result("relic", 0, 0, 110), steep, _result("sink_none", 1, 20, 90)])
    lines = table(rows, setting, 5000, ["a note"]).splitlines()
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines if line[:3] != "|--"]
    found = [row for row in cells if row]
    # The episodes 20 and 39 do not exist; seeds start at 5 and 25 in the mean over two goals.
    mean = ["15.0", "16.0", "17.0", "20.0", "25.0", "", ""]
    # From episode 5 on: indices 5 to 10, 22.5 in the mean.
    assert found[1] == ["ReLIC", "mean of 2", *mean, "22.5", "20.0 (10.0 to 30.0)", "100"]
    assert found[2][:4] == ["ReLIC", "0", "5.0", "6.0"]
    assert found[2][-2:] == ["10.0 (10.0 to 10.0)", "110"]
    assert found[3][-2:] == ["30.0 (28.0 to 31.0)", "91"]
    assert found[4][:3] == ["no sink", "one", "25.0"]
    assert lines[-1] == "- a note"
    plot(rows, setting, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_where_goals_change_the_table_has_the_worth_of_the_context(tmp_path):
    from baselines_report import EXPERIMENTS, lines_of, measured, plot, table

    def records(found: list[float]) -> list[dict]:
        """Two trials of seven episodes; those from index 5 on count."""
        shares = [[0.0] * 5 + [share] * 2 for share in found]
        return [
            {"trial": trial, "repeat": 0, "episode": i, "success": share, "spl": share / 2}
            for trial, own in enumerate(shares)
            for i, share in enumerate(own)
        ]

    setting = EXPERIMENTS["houses_small_detections"]
    cleared = {ContextControl.CLEARED: records([0.5, 0.5])}
    results = [
        measured("relic", seed, {ContextControl.KEPT: records(found)} | cleared, 100, setting)
        for seed, found in enumerate([[0.75, 0.75], [1.0, 1.0]])
    ]
    lines = lines_of(results)
    rows = [line for line in table(lines, setting, 5000, []).splitlines() if "|" in line]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    success = ["87.5", "50.0", "37.5 (25.0 to 50.0)"]
    spl = ["43.8", "25.0", "18.8 (12.5 to 25.0)"]
    assert cells[2] == ["ReLIC", "mean of 2", *success, *spl, "100"]
    assert cells[3][:5] == ["ReLIC", "0", "75.0", "50.0", "25.0 (25.0 to 25.0)"]
    plot(lines, setting, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_every_row_of_every_experiment_composes():
    from baselines import keys_of
    from baselines_report import EXPERIMENTS

    for experiment, setting in EXPERIMENTS.items():
        for row in setting.rows:
            assert compose(keys_of(experiment, row)).experiment == experiment


def test_results_are_kept_for_other_machines(tmp_path):
    from baselines_report import Results

    path = tmp_path / "results.json"
    last, first = _result("sink_none", 0, 0, 1), _result("relic", 1, 20, 2)
    one, other = (Results(path, "darkroom", 5000) for _ in range(2))
    one.add(last)
    other.add(first)
    again = Results(path, "darkroom", 5000)
    assert again.get("sink_none", 0) == last
    assert again.get("relic", 1) == first
    assert again.get("relic", 0) is None
    with pytest.raises(ValueError, match=r"total_steps must be 6000.*got 5000"):
        Results(path, "darkroom", 6000)
    with pytest.raises(ValueError, match="experiment must be houses_small_detections"):
        Results(path, "houses_small_detections", 5000)


def test_a_run_that_is_known_is_not_trained(tmp_path, monkeypatch):
    from baselines import run_of, train_and_evaluate
    from baselines_report import Results
    from cases import Children

    monkeypatch.setattr("signal.signal", lambda *_: None)  # it would take Ctrl-C from pytest
    results = Results(tmp_path / "results.json", "darkroom", 5000)
    results.add(_result("relic", 0, 0, 1))
    run = run_of(tmp_path / "runs", "darkroom", "relic", 0)
    assert train_and_evaluate(run, results, 5000, 1.0, Children())
    assert not run.case.directory.exists()


def test_what_was_made_for_another_request_is_not_taken_over(tmp_path, monkeypatch, capsys):
    from baselines import evaluate, run_of
    from cases import Case, Children, train

    monkeypatch.setattr("signal.signal", lambda *_: None)  # it would take Ctrl-C from pytest
    children = Children()
    asked = []
    monkeypatch.setattr(children, "run", lambda *args: asked.append(args))
    case = Case(tmp_path / "run", ("seed=0", f"init_from={tmp_path}"))
    assert train(case, 1000, None, children)
    assert train(case, 1000, None, children)
    assert not train(case, 2000, None, children)
    assert "got other ['total_steps=1000', 'total_steps=2000']" in capsys.readouterr().out
    run = run_of(tmp_path / "runs", "darkroom", "relic", 0)
    assert evaluate(run, run.setting, children)
    for path in run.records.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert len(asked) == 3
    assert evaluate(run, run.setting, children)  # it is there, so nobody is asked
    other = dataclasses.replace(run.setting, protocol="darkroom_val")
    assert not evaluate(run, other, children)
    assert "protocol=darkroom_test" in capsys.readouterr().out
    assert len(asked) == 3


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
