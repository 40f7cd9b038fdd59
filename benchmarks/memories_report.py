"""What cells of `memories.py` came to: numbers, the file that keeps them, and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from threading import Lock
from typing import Any

import numpy as np
from cases import Case, cpu_seconds
from memories_tables import MEMORIES, Table, Task

from relic.evaluation.controls import ContextControl
from relic.evaluation.records import RECORDS_FILES, read_records
from relic.evaluation.worth import FROM_EPISODE, PARTS, context_worth
from relic.files import complete_lines
from relic.policy import load
from relic.run.compose import compose_arguments
from relic.run.metrics import read_metrics

POINTS = 20
"""Points of a learning curve that are kept."""
ORACLE = "oracle"
"""Stands in the place of a memory in the results of memory oracles."""
LAGS = tuple(part for part in PARTS["seen_ago"] if part[-1].isdigit() and part != "seen_over_400")
"""Parts of the episodes by how many steps ago their goal was in view; none overlaps another."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A task trained with a memory and a seed."""

    task: Task
    memory: str
    seed: int
    case: Case
    first: Cell | None = None
    """What is trained before it, if anything."""

    @property
    def evaluation(self) -> Path:
        """Where its records are, which need not exist yet."""
        return self.case.directory / "measured"

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.task.name} with {self.memory} (seed {self.seed})"


@dataclass(frozen=True, slots=True)
class Result:
    """What a cell came to."""

    task: str
    memory: str
    seed: int
    asked: list[str]
    """What train.py and eval.py were told: a cell of another call is another cell."""
    kept: float | None
    """Mean over late episodes with the memory."""
    cleared: float | None
    """The same with the memory emptied before each episode."""
    worth: list[float | None]
    """Kept minus cleared, and its 95 % interval over trials."""
    curve: list[list[float]]
    """Training steps and what episodes of training scored then."""
    steps_per_cpu_s: float
    bytes_per_row: int
    parameters: int
    """Of the memory alone."""
    by_lag: dict[str, list[float]] = field(default_factory=dict)
    """Kept, and kept minus cleared, of the parts `LAGS` that the records can tell."""


def asked_of(cell: Cell) -> list[str]:
    """Return what tells a cell from one of the same name in another call."""
    before = [] if cell.first is None else asked_of(cell.first)
    own = [*cell.task.keys, f"total_steps={cell.task.total_steps}", *cell.task.evaluation]
    return [*before, *own]


def result_of(cell: Cell) -> Result:
    """Return what a trained and evaluated cell came to."""
    worth = worth_in(cell.evaluation, cell.task)
    config = compose_arguments([*cell.case.overrides])
    memory = load(cell.case.directory).memory
    return Result(
        cell.task.name,
        cell.memory,
        cell.seed,
        asked_of(cell),
        worth["kept"],
        worth["cleared"],
        [worth[key] for key in ("mean", "low", "high")],
        _learning_curve(cell, config.rollout.num_envs * config.rollout.num_steps),
        round(cell.case.reached / cpu_seconds(cell.case), 1),
        memory.bytes_per_row(config.rollout.num_steps),
        sum(p.numel() for p in memory.parameters()),
        _by_lag(worth),
    )


def oracle_of(task: Task, evaluation: Path) -> Result:
    """Return what a task's memory oracle came to."""
    worth = worth_in(evaluation, task)
    of_worth = [worth[key] for key in ("mean", "low", "high")]
    kept, cleared, by_lag = worth["kept"], worth["cleared"], _by_lag(worth)
    asked = [*task.evaluation, *task.oracle]
    return Result(task.name, ORACLE, 0, asked, kept, cleared, of_worth, [], 0.0, 0, 0, by_lag)


def worth_in(evaluation: Path, task: Task) -> dict[str, Any]:
    """Return what the context was worth in an evaluation."""
    records = {
        control: read_records(evaluation / RECORDS_FILES[control])
        for control in (ContextControl.KEPT, ContextControl.CLEARED)
    }
    return context_worth(records)[task.measure]


def _by_lag(worth: dict[str, Any]) -> dict[str, list[float]]:
    parts = {part: worth[part] for part in LAGS if part in worth}
    return {k: [v["kept"], v["mean"]] for k, v in parts.items() if v["mean"] is not None}


def _learning_curve(cell: Cell, rollout_steps: int) -> list[list[float]]:
    """Return steps and scores of whole rollouts, thinned out; what is no number has no point.

    Scores rise or fall within a rollout, which is as long as a trial.
    """
    name = f"{cell.task.measure}_mean"
    lines = read_metrics(cell.case.directory / "metrics.jsonl")
    rollouts: dict[int, list[list[float]]] = {}
    for line in lines:
        if line.get(name) is not None:
            rollout = -(-line["env_steps"] // rollout_steps)
            rollouts.setdefault(rollout, []).append([line["env_steps"], line[name]])
    points = [[own[-1][0], fmean(score for _, score in own)] for own in rollouts.values()]
    if not points:
        return []
    parts = np.array_split(np.array(points), min(POINTS, len(points)))
    return [[float(part[-1, 0]), float(part[:, 1].mean())] for part in parts]


class Results:
    """Lines of a file, one a cell, to which several machines can add in turn."""

    def __init__(self, path: Path, table: str) -> None:
        self._path, self._table = path, table
        self._lock = Lock()
        self._found: dict[str, Result] = {}
        if path.exists():
            for line in complete_lines(path):
                if line.pop("table") == table:
                    result = Result(**line)
                    self._keep(result)

    def get(self, cell: Cell) -> Result | None:
        """Return what a cell came to; None if it is not known."""
        return self._found.get(self._key(cell.task.name, cell.memory, cell.seed, asked_of(cell)))

    def oracle(self, task: Task) -> Result | None:
        """Return what a task's memory oracle came to; None if it has none, or it is not known."""
        asked = [*task.evaluation, *task.oracle]
        return self._found.get(self._key(task.name, ORACLE, 0, asked))

    def add(self, result: Result) -> None:
        """Add a line."""
        with self._lock:
            self._keep(result)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps({"table": self._table, **asdict(result)}) + "\n")

    def _keep(self, result: Result) -> None:
        key = self._key(result.task, result.memory, result.seed, result.asked)
        self._found[key] = result

    @staticmethod
    def _key(task: str, memory: str, seed: int, asked: Sequence[str]) -> str:
        return json.dumps([task, memory, seed, list(asked)])


def page(
    table: Table,
    found: Sequence[Result],
    notes: Sequence[str],
    *,
    command: str,
    oracles: Mapping[str, Result],
    figures: Mapping[str, str],
) -> str:
    """Return the page of a comparison.

    Args:
        table: What was asked for.
        found: What cells came to.
        notes: What is left out, and why.
        command: What the benchmark was told.
        oracles: What memory oracles came to, by task.
        figures: Links to figures, by task.
    """
    lines = [
        "# Memories compared\n\n"
        f"Written by `python benchmarks/memories.py runs/memories {command}`.\n",
        f"Scores are means over episodes from index {FROM_EPISODE} on, of trials that no agent "
        "trains on. `kept - cleared` is what the context is worth: the same agent on the same "
        "trials, with its memory and with the memory emptied before each episode. Of one seed the "
        "interval is 95 % over trials, of several the lowest and highest seed. `of the oracle's` "
        "is its share of what there is to gain: the memory oracle minus the agent with its memory "
        "emptied. `at equal seconds` "
        "is the training score when the fastest memory was done. CPU time is of one thread. Bytes "
        "are those of a row's memory at the end of a rollout.\n",
    ]
    for task in table.tasks:
        own = [result for result in found if result.task == task.name]
        if own:
            lines += [_task_part(task, own, oracles.get(task.name))]
            lines += [_lag_part(task, own)] if any(result.by_lag for result in own) else []
            lines += [f"![{task.name}]({figures[task.name]})\n"] if task.name in figures else []
    if notes:
        lines += ["## Left out\n", *(f"- {note}" for note in notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def _task_part(task: Task, found: Sequence[Result], oracle: Result | None) -> str:
    seconds = min(task.total_steps / r.steps_per_cpu_s for r in found)
    before = task.first
    after = f"{before.total_steps:,} steps of {before.name} and " if before is not None else ""
    rows = [
        f"## {task.name}\n\n{task.measure} after {after}{task.total_steps:,} steps of its own; "
        f"`{' '.join(task.keys)}`, measured by `{' '.join(task.evaluation)}`.\n",
        f"| memory | seeds | {task.measure} | kept - cleared | of the oracle's "
        f"| at equal seconds ({seconds:,.0f} s) | steps per CPU second | bytes per row "
        "| parameters |",
        "|" + "---|" * 9,
    ]
    rows += [_row(own, seconds, oracle) for own in by_memory(found).values()]
    if oracle is not None:
        rows.append(f"| memory oracle | | {_span([oracle.kept])} |" + " |" * 6)
    return "\n".join(rows) + "\n"


def _lag_part(task: Task, found: Sequence[Result]) -> str:
    """Show what memories gain by how many steps ago the goal was in view."""
    lags = [lag for lag in LAGS if any(lag in result.by_lag for result in found)]
    rows = [
        f"{task.measure} kept, and kept - cleared, by the steps since the goal was in view:\n",
        f"| memory | {' | '.join(map(lag_words, lags))} |",
        "|" + "---|" * (len(lags) + 1),
    ]
    for memory, own in by_memory(found).items():
        shown = [_at_lag(own, lag) for lag in lags]
        rows.append(f"| {MEMORIES[memory].title} | {' | '.join(shown)} |")
    return "\n".join(rows) + "\n"


def _at_lag(own: Sequence[Result], lag: str) -> str:
    pairs = [result.by_lag[lag] for result in own if lag in result.by_lag]
    if not pairs:
        return ""
    kept, gained = np.mean(pairs, axis=0)
    return f"{kept:.3f}, {gained:+.3f}"


def lag_words(lag: str) -> str:
    """Return how a part of `LAGS` is called in tables and figures."""
    numbers = [f"{int(word):,}" for word in lag.split("_") if word.isdigit()]
    return " to ".join(numbers) if len(numbers) > 1 else f"over {numbers[0]}"


def by_memory(found: Sequence[Result]) -> dict[str, list[Result]]:
    """Return results of each memory that has some, in the order of tables."""
    sorted_out = {memory: [r for r in found if r.memory == memory] for memory in MEMORIES}
    return {memory: own for memory, own in sorted_out.items() if own}


def _row(own: Sequence[Result], seconds: float, oracle: Result | None) -> str:
    cells = [
        MEMORIES[own[0].memory].title,
        str(len(own)),
        _span([r.kept for r in own]),
        _worth(own),
        _span([_share(r, oracle) for r in own]),
        _span([_at_seconds(r, seconds) for r in own]),
        f"{fmean(r.steps_per_cpu_s for r in own):,.0f}",
        f"{own[0].bytes_per_row:,}",
        f"{own[0].parameters:,}",
    ]
    return f"| {' | '.join(cells)} |"


def _worth(own: Sequence[Result]) -> str:
    if len(own) > 1:
        return _span([r.worth[0] for r in own])
    mean, low, high = own[0].worth
    return "" if None in (mean, low, high) else f"{mean:.3f} ({low:.3f} to {high:.3f})"


def _share(result: Result, oracle: Result | None) -> float | None:
    """Return the share of the memory oracle's margin that an agent has."""
    best = None if oracle is None else oracle.kept
    cleared, gained = result.cleared, result.worth[0]
    if best is None or cleared is None or gained is None or best <= cleared:
        return None
    return gained / (best - cleared)


def _at_seconds(result: Result, seconds: float) -> float | None:
    """Return the training score after so many CPU seconds, on a straight line between points."""
    if not result.curve:
        return None
    steps, scores = np.array(result.curve).T
    return float(np.interp(seconds * result.steps_per_cpu_s, steps, scores))


def _span(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    if len(known) == 1:
        return f"{known[0]:.3f}"
    return f"{fmean(known):.3f} ({min(known):.3f} to {max(known):.3f})"
