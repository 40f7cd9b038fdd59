"""What runs of `baselines.py` came to: numbers, the file that keeps them, table and plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from threading import Lock

import numpy as np
from cases import Case, cpu_seconds

from relic.evaluation.controls import ContextControl
from relic.evaluation.curves import LATE, curve, gain, tabulate
from relic.evaluation.protocol import load_protocol
from relic.evaluation.records import RECORDS_FILES, Record, read_records
from relic.evaluation.trained_agent import find_agent
from relic.figures import (
    LOOKS,
    REFERENCE,
    draw_band,
    draw_line,
    legend_above,
    lower_edge,
    panels,
    save_figure,
)
from relic.files import write_text

FROM = 5
"""First episode of those whose mean the table shows, as one alone is noisy."""
COLUMNS = 4
ROWS = {
    "relic": "ReLIC",
    "credit_trial": "ReLIC, credit per trial",
    "rl2": "RL², LSTM",
    "rl2_gru": "RL², GRU",
    "rl2_credit_episode": "RL², LSTM, credit per episode",
    "transformer_xl": "Transformer-XL",
    "single_episode": "single episode",
    "no_inter_episode_attention": "no inter-episode attention",
    "sink_none": "no sink",
    "sink_token": "sink token",
    "sink_kv": "sink KV",
    "sink_kv0": "sink KV0",
    "sink_k0v": "sink K0V",
    "sink_k0v0": "sink K0V0",
    "no_partial_updates": "no partial updates",
    "no_shuffle": "no shuffle",
    "no_refresh": "no refresh, no shuffle",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """How an experiment is evaluated and shown."""

    protocol: str
    measure: str
    scale: float
    unit: str
    indices: tuple[int, ...]


EXPERIMENTS = {
    "darkroom": Setting("darkroom_test", "return", 1, "return", (0, 1, 2, 5, 10, 20, 39)),
    "houses_small": Setting("houses_small_val", "success", 100, "success in %", (0, 5, 10, 15)),
}


@dataclass(frozen=True, slots=True)
class Run:
    """A row trained with one seed."""

    row: str
    seed: int
    case: Case
    setting: Setting

    @property
    def evaluation(self) -> Path:
        """The records of its best checkpoint, which need not exist yet."""
        protocol = load_protocol(self.setting.protocol)
        checkpoint = find_agent(self.case.directory, "best").checkpoint
        place = self.case.directory / "evaluations" / f"{protocol.name}-{protocol.hash}"
        return place / checkpoint.name / RECORDS_FILES[ContextControl.KEPT]


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to; scores are in the unit of the setting."""

    row: str
    seed: int
    curve_I: list[float]
    gain: Mapping[str, float | None]
    """`mean`, `low` and `high`: a 95 % interval over trials."""
    steps_per_cpu_s: int


def result_of(run: Run) -> Result:
    """Return what an evaluated run came to."""
    speed = run.case.reached / cpu_seconds(run.case)
    return measured(run.row, run.seed, read_records(run.evaluation), speed, run.setting)


def measured(row: str, seed: int, records: list[Record], speed: float, setting: Setting) -> Result:
    """Return curve and gain of records, in the unit of the setting."""
    scores = tabulate(records, setting.measure)
    rise = {key: value and round(value * setting.scale, 2) for key, value in gain(scores).items()}
    mean_I = [round(value * setting.scale, 2) for value in curve(scores)["mean"]]
    return Result(row, seed, mean_I, rise, round(speed))


class Results:
    """The results of one experiment in a JSON file, which several machines can add to in turn."""

    def __init__(self, path: Path, experiment: str, total_steps: int) -> None:
        """Read the file, if there is one.

        Args:
            path: The file.
            experiment: What its runs trained.
            total_steps: How long they trained.

        Raises:
            ValueError: If it holds results of another experiment, length or protocol.
        """
        self._path = path
        protocol = load_protocol(EXPERIMENTS[experiment].protocol)
        self._about = {
            "experiment": experiment,
            "total_steps": total_steps,
            "protocol": protocol.name,
            "protocol_hash": protocol.hash,
        }
        self._found: dict[tuple[str, int], Result] = {}
        self._lock = Lock()
        self._read()

    def _read(self) -> None:
        if not self._path.exists():
            return
        said = json.loads(self._path.read_text())
        for key, value in self._about.items():
            if said.get(key) != value:
                raise ValueError(
                    f"{self._path}: {key} must be {value}, as in this call, got {said.get(key)}. "
                    "Give another file as --results."
                )
        for plain in said["runs"]:
            result = Result(**plain)
            self._found[result.row, result.seed] = result

    def get(self, row: str, seed: int) -> Result | None:
        """Return what a run came to; None if it is not known."""
        return self._found.get((row, seed))

    def add(self, result: Result) -> None:
        """Add or replace a result, in the file too, where others may have added theirs."""
        with self._lock:
            self._read()
            self._found[result.row, result.seed] = result
            order = list(ROWS)
            runs = sorted(self._found.values(), key=lambda r: (order.index(r.row), r.seed))
            lines = ",\n".join("  " + json.dumps(asdict(run)) for run in runs)
            about = json.dumps(self._about)[1:-1]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, f'{{{about}, "runs": [\n{lines}\n]}}\n')


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: a run, or the mean over the seeds of a row."""

    row: str
    name: str
    curve_I: list[float]
    gain: Mapping[str, float | None]
    """Of a mean, `low` and `high` are the lowest and highest seed."""
    steps_per_cpu_s: float
    is_mean: bool


def lines_of(found: Sequence[Result]) -> list[Line]:
    """Return the mean over the seeds of each row, followed by each seed where there are several."""
    lines = []
    for row in dict.fromkeys(result.row for result in found):
        seeds = [result for result in found if result.row == row]
        lines.append(_mean(seeds))
        if len(seeds) > 1:
            lines += [_line(seed, str(seed.seed), is_mean=False) for seed in seeds]
    return lines


def _line(result: Result, name: str, *, is_mean: bool) -> Line:
    speed = result.steps_per_cpu_s
    return Line(result.row, name, result.curve_I, result.gain, speed, is_mean)


def _mean(seeds: Sequence[Result]) -> Line:
    if len(seeds) == 1:
        return _line(seeds[0], "one", is_mean=True)
    curve_I = [fmean(values) for values in zip(*(s.curve_I for s in seeds), strict=True)]
    gains = [s.gain["mean"] for s in seeds]
    known = [value for value in gains if value is not None]
    rise = seeds[0].gain
    if known:
        rise = {"mean": fmean(known), "low": min(known), "high": max(known)}
    speed = fmean(s.steps_per_cpu_s for s in seeds)
    return Line(seeds[0].row, f"mean of {len(seeds)}", curve_I, rise, speed, is_mean=True)


def table(lines: Sequence[Line], setting: Setting, steps: int, notes: Sequence[str]) -> str:
    """Return the Markdown table of all rows, with what it shows above and notes below."""
    head = ["row", "seed", *map(str, setting.indices), f"from {FROM} on, mean"]
    head += [f"gain, 0 to {LATE}", "steps per CPU second"]
    rows = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    rows += [f"| {' | '.join(_cells(line, setting))} |" for line in lines]
    above = (
        f"{setting.unit[0].upper()}{setting.unit[1:]} by episodes in context after {steps:,} "
        f"training steps, protocol `{setting.protocol}`. Gains of one seed have 95 % intervals "
        "over trials, of several the lowest and the highest seed. CPU time includes validation."
    )
    return "\n".join([above, "", *rows, "", *(f"- {note}" for note in notes)]).rstrip() + "\n"


def _cells(line: Line, setting: Setting) -> list[str]:
    scores = [f"{line.curve_I[i]:.1f}" if i < len(line.curve_I) else "" for i in setting.indices]
    mean, low, high = (line.gain[key] for key in ("mean", "low", "high"))
    rise = "" if mean is None else f"{mean:.1f} ({low:.1f} to {high:.1f})"
    late = f"{fmean(line.curve_I[FROM:]):.1f}" if len(line.curve_I) > FROM else ""
    return [ROWS[line.row], line.name, *scores, late, rise, f"{line.steps_per_cpu_s:,.0f}"]


def plot(lines: Sequence[Line], setting: Setting, path: Path) -> None:
    """Draw a panel for each row: the mean over its seeds, their span, and ReLIC in grey."""
    means = {line.row: line for line in lines if line.is_mean}
    others = [line for row, line in means.items() if row != "relic"] or list(means.values())
    rows = -(-len(others) // COLUMNS)
    figure, axes = panels(
        rows, COLUMNS, width=2.6 * COLUMNS, height=2.1 * rows + 0.5, sharex=True, sharey=True
    )
    for each, line in zip(axes.flat, others, strict=False):
        if "relic" in means:
            each.plot(means["relic"].curve_I, color=REFERENCE, ls="--", lw=1.2, label="ReLIC")
        index = range(len(line.curve_I))
        draw_line(each, index, line.curve_I, LOOKS[0], label="named above", marked=False)
        seeds = [seed.curve_I for seed in lines if seed.row == line.row and not seed.is_mean]
        if seeds:
            draw_band(each, index, np.min(seeds, axis=0), np.max(seeds, axis=0), LOOKS[0])
        each.set_title(ROWS[line.row], fontsize=9)
    for each in axes[:, 0]:
        each.set(ylabel=setting.unit, ylim=(0, None))
    for each in lower_edge(axes, len(others)):
        each.set_xlabel("episodes in context")
    legend_above(figure, axes[0, 0])
    save_figure(figure, path)
