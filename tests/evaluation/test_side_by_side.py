import json
import shutil

import numpy as np
import pytest

from relic.evaluate import evaluate as main
from relic.evaluation.curves import summarise
from relic.evaluation.records import read_records
from relic.evaluation.report.side_by_side import (
    Entry,
    describe_side_by_side,
    plot_by_steps,
    plot_curves,
    side_by_side,
)
from tests.evaluation.test_cli import SMALL, files_of
from tests.evaluation.test_report import FACTS, Balance

SHORT = (*SMALL, "controls=[]")


def made_up(run="a", steps=100, shift=0.0, lengths=(12, 12, 12)):
    generator = np.random.default_rng(0)
    records = [
        {"trial": t, "repeat": 0, "episode": e, "return": e / 10 + shift + generator.random()}
        for t, length in enumerate(lengths)
        for e in range(length)
    ]
    facts = {**FACTS, "env_steps": steps}
    return Entry(run, f"step_{steps}", {**facts, **summarise(records)}, records)


def test_differences_to_the_first_are_paired_over_trials():
    # The outcomes vary, the differences do not: paired, the interval has no width.
    found = side_by_side([made_up(), made_up("b", shift=2.0)])["entries"]
    assert found[0]["metrics"]["return"]["difference"] is None
    assert found[1]["metrics"]["return"]["difference"] == pytest.approx(
        {"mean": 2.0, "low": 2.0, "high": 2.0}
    )
    area = found[0]["metrics"]["return"]["area"]
    assert area["low"] < area["mean"] < area["high"]


def test_differences_are_over_episodes_and_trials_that_both_have():
    first, other = made_up(lengths=(12, 12, 12)), made_up("b", lengths=(3, 5, 0))
    own, rest = (
        {(r["trial"], r["episode"]): r["return"] for r in e.records} for e in (first, other)
    )
    expected = np.mean([rest[t, e] - own[t, e] for t in (0, 1) for e in range(3)])
    (_, found) = side_by_side([first, other])["entries"]
    assert found["metrics"]["return"]["difference"]["mean"] == pytest.approx(expected)


def test_entries_are_named_by_what_tells_them_apart():
    def names(*entries):
        return [e["name"] for e in side_by_side(entries)["entries"]]

    assert names(made_up("a"), made_up("b")) == ["a", "b"]
    assert names(made_up("a", 1), made_up("a", 2)) == ["step_1", "step_2"]
    sweep_of_two = [made_up(run, steps) for run in ("a", "b") for steps in (1, 2)]
    assert names(*sweep_of_two) == ["a step_1", "a step_2", "b step_1", "b step_2"]


def test_table_holds_the_numbers_of_the_summaries():
    first, other = made_up(steps=None), made_up("b", 2_000_000, 0.5)
    text = describe_side_by_side(side_by_side([first, other]))
    head, one, two = text.splitlines()[3:]
    for entry, line in ((first, one), (other, two)):
        curve, gain = entry.summary["metrics"]["return"], entry.summary["gain"]["return"]
        for value in (curve["mean"][0], curve["mean"][10], gain["mean"], gain["low"]):
            assert f"{value:.3f}" in line
    assert "episode 10" in head
    assert "minus first row" in head
    assert "2,000,000" in two


def test_all_are_compared_at_the_same_late_episode():
    """Trials of so many steps have more episodes where these are shorter."""
    few = made_up("b", lengths=(4, 5, 6))
    found = [e["metrics"]["return"] for e in side_by_side([made_up(), few])["entries"]]
    assert [m["to_episode"] for m in found] == [3, 3]
    for entry, m in zip((made_up(), few), found, strict=True):
        mean = entry.summary["metrics"]["return"]["mean"]
        assert m["late"]["mean"] == mean[3]
        assert m["gain"]["mean"] == pytest.approx(mean[3] - mean[0])


def test_plots_have_a_line_per_entry_and_a_panel_per_run():
    comparison = side_by_side([made_up(run, s, s / 10) for run in ("a", "b") for s in (20, 10)])
    (axes,) = plot_curves(comparison, "return").axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 4
    figure = plot_by_steps(comparison, "return")
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    for axes in figure.axes:
        assert len(axes.lines) == 2  # a late episode and the first
        for line in axes.lines:
            assert list(line.get_xdata()) == [10, 20]
            assert all(np.diff(line.get_ydata()) > 0)
    shown = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert shown == ["after 10 episodes", "first episode"]


def test_more_entries_than_a_panel_can_show_get_a_panel_each():
    entries = [made_up(name, 10, place / 10) for place, name in enumerate("abcdefg")]
    comparison = side_by_side(entries)
    seen = [axes for axes in plot_curves(comparison, "return").axes if axes.get_visible()]
    assert [axes.get_title() for axes in seen] == list("abcdefg")
    for axes, entry in zip(seen, comparison["entries"], strict=True):
        *others, own = axes.lines
        assert len(others) == 7
        np.testing.assert_array_equal(own.get_ydata(), entry["metrics"]["return"]["mean"])


def test_all_checkpoints_of_a_run_are_evaluated_and_compared(run, capsys):
    assert main([f"run={run}", "checkpoint=all", *SHORT]) == 0
    said = capsys.readouterr().out
    (file,) = run.glob("evaluations/darkroom_test-changed-*/comparison.json")
    comparison = json.loads(file.read_text())
    assert [e["env_steps"] for e in comparison["entries"]] == [100, 200]
    for entry in comparison["entries"]:
        summary = json.loads((file.parent / entry["checkpoint"] / "summary.json").read_text())
        assert entry["metrics"]["return"]["mean"] == summary["metrics"]["return"]["mean"]
        assert summary["env_steps"] == entry["env_steps"]
    assert describe_side_by_side(comparison) in said
    assert (file.parent / "plots" / "return_by_steps.png").stat().st_size > 1000
    checker = Balance()
    text = (file.parent / "comparison.html").read_text()
    checker.feed(text)
    assert checker.open == []
    assert checker.seen.count("img") == 4
    assert 'src="data:image/png;base64,' in text
    before = files_of(file.parent)
    assert main([f"run={run}", "checkpoint=all", *SHORT]) == 0
    assert files_of(file.parent) == before


def test_runs_are_compared_in_one_table(run, tmp_path):
    other = tmp_path / "copies" / "run"
    shutil.copytree(run, other)
    (other / "checkpoints" / "latest.json").write_text('{"name": "step_000000000100"}')
    out = tmp_path / "out"
    assert main([f"run=[{run}, {other}]", f"out={out}", *SHORT]) == 0
    comparison = json.loads((out / "comparison.json").read_text())
    assert [e["name"] for e in comparison["entries"]] == ["run-0", "run-1"]
    assert not (out / "plots" / "return_by_steps.png").exists()
    for entry in comparison["entries"]:
        records = read_records(out / entry["name"] / entry["checkpoint"] / "records.jsonl")
        assert np.mean([r["return"] for r in records]) == pytest.approx(
            entry["metrics"]["return"]["area"]["mean"]
        )


def test_a_comparison_of_runs_lies_beside_them(run):
    other = run.parent / "other"
    shutil.copytree(run, other)
    assert main([f"run=[{run}, {other}]", *SHORT]) == 0
    (file,) = run.parent.glob("evaluations/*/comparison.json")
    assert [e["name"] for e in json.loads(file.read_text())["entries"]] == ["run", "other"]
    for root in (run, other):
        assert len(list(root.glob("evaluations/*/step_000000000200/summary.json"))) == 1


def test_no_run_is_refused(capsys):
    assert main(["run=[]"]) == 2
    assert "run: must name at least one run" in capsys.readouterr().err


def test_runs_of_other_tasks_are_not_compared(run, tmp_path, capsys):
    """What a protocol does not name is as each run had it."""
    other = tmp_path / "other"
    shutil.copytree(run, other)
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("size: 4", "size: 5"))
    task = {"env": "relic/Darkroom-v0", "options": {"split": "test"}, "trials": 2, "episodes": 2}
    (tmp_path / "open.yaml").write_text(json.dumps(task))
    keys = [f"run=[{run},{other}]", f"protocol={tmp_path / 'open.yaml'}", "progress=false"]
    assert main([*keys, "controls=[]", f"out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert "options.size: must be the same for all that are compared, got 4 of run and 5" in said
    assert not (tmp_path / "out").exists()
    assert main([*keys, "controls=[]", f"out={tmp_path / 'out'}", "options.size=4"]) == 0
