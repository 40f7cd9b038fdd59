"""The comparison of memories runs, goes on where it was, and writes its page."""

import json
import subprocess
import sys

import pytest

from relic.files import PROJECT
from relic.run.compose import compose_arguments


def compare(folder, *arguments):
    command = [sys.executable, str(PROJECT / "benchmarks" / "memories.py"), str(folder)]
    done = subprocess.run(
        [*command, "--table", "smoke", *arguments],
        cwd=PROJECT, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_smoke_table_is_trained_once_and_written_down(tmp_path):
    first = compare(tmp_path, "--tasks", "darkroom", "--memories", "memo", "min_gru")
    assert (first["results"]["cells"], first["results"]["of"]) == (2, 2)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {line["memory"] for line in lines} == {"memo", "min_gru"}
    for line in lines:
        assert line["worth"][0] == pytest.approx(line["kept"] - line["cleared"])
        assert line["bytes_per_row"] > 0
        assert line["steps_per_cpu_s"] > 0
    page = (tmp_path / "memories.md").read_text()
    assert "| Memo |" in page
    assert "| minGRU |" in page
    (tmp_path / "memories.md").unlink()
    compare(tmp_path, "--tasks", "darkroom", "--memories", "memo", "min_gru")
    assert (tmp_path / "memories.md").read_text() == page
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2


def results_of(task, memory, seed, kept, cleared, **more):
    from memories_report import Result

    worth = [kept - cleared, kept - cleared - 0.01, kept - cleared + 0.01]
    curve = [[1e5, 0.1], [2e5, 0.1 * seed]]
    numbers = {"steps_per_cpu_s": 100.0, "bytes_per_row": 64, "parameters": 7}
    return Result(task, memory, seed, [], kept, cleared, worth, curve, **numbers, **more)


def test_page_and_figure_show_shares_and_lags(tmp_path):
    from memories_figures import draw
    from memories_report import page
    from memories_tables import TABLES, Table

    tasks = {task.name: task for task in TABLES["cpu"].tasks}
    revisits, darkroom = tasks["revisits"], tasks["darkroom"]
    near, far = {"seen_1_to_100": [0.9, 0.6]}, {"seen_1_to_100": [0.7, 0.4]}
    found = [
        results_of("revisits", "memo", 0, 0.7, 0.4, by_lag=near | {"seen_over_25600": [0.4, 0.0]}),
        results_of("revisits", "memo", 1, 0.8, 0.4, by_lag=far | {"seen_over_25600": [0.5, 0.1]}),
        results_of("revisits", "gru", 0, 0.4, 0.4, by_lag=near),
        results_of("darkroom", "gru", 0, 90.0, 50.0),
    ]
    oracle = results_of("revisits", "oracle", 0, 1.0, 0.3)
    figure = tmp_path / "revisits.png"
    for task, own, best in ((revisits, found[:3], oracle), (darkroom, found[3:], None)):
        draw(task, own, best, figure.with_stem(task.name))
        assert figure.with_stem(task.name).stat().st_size > 10_000
    table = Table((revisits, darkroom))
    links = {"revisits": "figures/revisits.png"}
    text = page(table, found, [], command="", oracles={"revisits": oracle}, figures=links)
    memo = "| Memo | 2 | 0.750 (0.700 to 0.800) | 0.350 (0.300 to 0.400) | 0.583 (0.500 to 0.667)"
    assert text.count(memo) == 1
    assert "| memory oracle | | 1.000 |" in text
    assert "| memory | 1 to 100 | over 25,600 |" in text
    assert "| Memo | 0.800, +0.500 | 0.450, +0.050 |" in text
    assert "| GRU (RL²) | 1 | 90.000 | 40.000 (39.990 to 40.010) |  |" in text
    assert "![revisits](figures/revisits.png)" in text


def test_oracles_are_told_by_which_protocol_they_are_measured():
    from memories_tables import TABLES

    with_oracle = [t for table in TABLES.values() for t in table.tasks if t.oracle]
    assert len(with_oracle) == 8
    # Or by their environment, where the keys are a protocol of their own.
    asked = [(*task.evaluation, *task.oracle) for task in with_oracle]
    assert all(any(k.startswith(("protocol=", "env=")) for k in keys) for keys in asked)


def test_a_cell_starts_from_what_its_memory_learned_first(tmp_path):
    from memories import cell_of
    from memories_report import asked_of
    from memories_tables import REVISITS, REVISITS_64K

    cell, alone = (cell_of(t, "memo", 2, tmp_path) for t in (REVISITS_64K, REVISITS))
    assert cell.first == alone
    assert cell.case.overrides[-1] == f"init_from={alone.case.directory}"
    # Another first task, or none, makes another cell of the file of results.
    assert asked_of(cell)[: len(asked_of(alone))] == asked_of(alone)


def test_tasks_are_told_by_the_package_that_they_need():
    from memories_tables import TABLES

    packages = {task.name: task.package for task in TABLES["cpu"].tasks}
    assert (packages["revisits"], packages["minigrid_balls"]) == (None, "minigrid")
    assert {task.name for task in TABLES["cpu"].tasks if task.oracle} == {
        "revisits", "houses", "detections", "minigrid_balls", "minigrid_rooms",
    }  # fmt: skip


def test_every_cell_reaches_the_stage_that_learns_from_the_reward(tmp_path):
    from memories import cell_of
    from memories_tables import TABLES

    for task in TABLES["cpu"].tasks + TABLES["long"].tasks:
        cell = cell_of(task, "memo", 0, tmp_path)
        config = compose_arguments(cell.case.overrides)
        stages = max(config.ppo.lesson_steps, config.ppo.clone_steps)
        assert stages < task.total_steps, task.name
