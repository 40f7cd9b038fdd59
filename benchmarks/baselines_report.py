"""What runs of `baselines.py` came to: numbers, the file that keeps them, table and plot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from threading import Lock
from typing import Any

import numpy as np
from cases import Case, cpu_seconds

from relic.evaluation.controls import ContextControl
from relic.evaluation.curves import LATE, curve, gain, tabulate
from relic.evaluation.protocol import load_protocol
from relic.evaluation.records import RECORDS_FILES, Record, read_records
from relic.evaluation.worth import FROM_EPISODE, context_worth
from relic.figures import (
    BLUE,
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
from relic.measures import label

FROM = 5
"""First episode of those whose mean the table shows, as one alone is noisy."""
COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Row:
    """A change of the experiment."""

    title: str
    keys: Mapping[str, str]
    """What `train.py` is told."""


def _file(title: str, ablation: str) -> Row:
    return Row(title, {"ablation": ablation})


BASELINES = {
    "relic": Row("ReLIC", {}),
    "credit_trial": _file("ReLIC, credit per trial", "credit_trial"),
    "rl2": _file("RL², LSTM", "rl2"),
    "rl2_gru": _file("RL², GRU", "rl2_gru"),
    "rl2_credit_episode": _file("RL², LSTM, credit per episode", "rl2_credit_episode"),
    "transformer_xl": _file("Transformer-XL", "transformer_xl"),
    "single_episode": _file("single episode", "single_episode"),
    "no_inter_episode_attention": _file("no inter-episode attention", "no_inter_episode_attention"),
    "sink_none": _file("no sink", "sink_none"),
    "sink_token": _file("sink token", "sink_token"),
    "sink_kv": _file("sink KV", "sink_kv"),
    "sink_kv0": _file("sink KV0", "sink_kv0"),
    "sink_k0v": _file("sink K0V", "sink_k0v"),
    "sink_k0v0": _file("sink K0V0", "sink_k0v0"),
    "no_partial_updates": _file("no partial updates", "no_partial_updates"),
    "no_shuffle": _file("no shuffle", "no_shuffle"),
    "no_refresh": _file("no refresh, no shuffle", "no_refresh"),
}
_CLOSED = {"env.options.task.closed_progress": "true"}
_SHUFFLED = {"updates.shuffle": "true", "updates.full_order": "shuffled"}
PARTS = {
    "no_recall": Row("no recall head", {"policy.recall": "null", "ppo.lesson_steps": "0"}),
    "no_lesson": Row("recall head without its lesson", {"ppo.lesson_steps": "0"}),
    "goal_location": Row(
        "a head that is told the goal's place instead",
        {
            "policy.recall": "null",
            "ppo.lesson_steps": "0",
            "policy.goal_location": "{}",
            "env.options.goal_places": "true",
        },
    ),
    "none_named": Row(
        "all objects in view side by side, none named",
        {"policy.encoder.keys": "[depth_scan,detections,gps,compass,goal,goal_detection,outcome]"},
    ),
    "no_outcome": Row("outcomes not in the context", {"env.options.outcome": "false"}),
    "blind_critic": Row("critic without privileged inputs", {"policy.critic.privileged": "[]"}),
    "no_clone": Row("no cloning", {"ppo.clone_steps": "0"}),
    "expert_full": Row("clone of the expert that knows the house", {"ppo.expert": "full"}),
    "few_goals": Row("three categories a trial", {"env.options.task.max_goals": "3"}),
    "closed_progress": Row("progress paid back after a failure", _CLOSED),
    "closed_credit_trial": Row(
        "progress paid back, credit per trial", _CLOSED | {"ppo.credit": "trial"}
    ),
    "closed_rl2": Row("progress paid back, RL², LSTM", _CLOSED | {"ablation": "rl2"}),
    "shuffle": Row("shuffled context", {"updates.shuffle": "true"}),
    "shuffle_full": Row("shuffled context, full updates too", _SHUFFLED),
    "shuffle_dual": Row(
        "shuffled context, full updates too, dual clip", _SHUFFLED | {"ppo.dual_clip": "3"}
    ),
    "prefix_full": _file("gradient through the prefix", "prefix_full"),
    "no_full_update": Row("no full update", {"updates.full_per_rollout": "0"}),
    "delta_rule": _file("gated delta rule", "delta_rule"),
    "selective": _file("selective state space", "selective"),
    "min_gru": _file("minGRU", "min_gru"),
    "memo": _file("Memo", "memo"),
}
"""Parts of the recipe for goals that change, each left out or exchanged, and newer memories."""
ROWS = BASELINES | PARTS


@dataclass(frozen=True, slots=True)
class Setting:
    """How an experiment is trained, evaluated and shown."""

    protocol: str
    measure: str
    scale: float
    unit: str
    indices: tuple[int, ...]
    rows: tuple[str, ...] = tuple(BASELINES)
    keys: Mapping[str, str] = field(default_factory=dict)
    """What `train.py` is told of every row that does not say otherwise."""
    total_steps: int | None = None
    """None: the experiment's own."""
    fresh: tuple[str, ...] = ()
    """What `eval.py` is told beyond the protocol."""
    checkpoint: str = "best"
    measures: tuple[str, ...] = ()
    """Of these the worth of the context is shown, in place of scores by the episode's index."""


_NOT_HERE = ("relic", "credit_trial", "rl2", "rl2_gru", "no_shuffle", "no_refresh")
EXPERIMENTS = {
    "darkroom": Setting("darkroom_test", "return", 1, "return", (0, 1, 2, 5, 10, 20, 39)),
    "houses_small_detections": Setting(
        "houses_small_changing",
        "success",
        100,
        "success in %",
        (0, 5, 10, 15),
        rows=("relic", *PARTS, *(row for row in BASELINES if row not in _NOT_HERE)),
        keys={
            "ppo.clone_steps": "1_100_000",
            "updates.full_per_rollout": "1",
            "validation.every_rollouts": "null",
            "checkpoint.best_metric": "null",
        },
        total_steps=2_000_000,
        fresh=("first_trial=1000", "trials=300"),
        checkpoint="latest",
        measures=("success", "spl"),
    ),
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
        """Where its records are, which need not exist yet."""
        return self.case.directory / "measured"

    @property
    def records(self) -> dict[ContextControl, Path]:
        """Its files of records."""
        asked = [ContextControl.KEPT, *([ContextControl.CLEARED] if self.setting.measures else [])]
        return {control: self.evaluation / RECORDS_FILES[control] for control in asked}


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to; scores are in the unit of the setting."""

    row: str
    seed: int
    curve_I: list[float]
    gain: Mapping[str, float | None]
    """`mean`, `low` and `high`: a 95 % interval over trials."""
    steps_per_cpu_s: int
    worth: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Of measures: `kept` and `cleared`, and of their difference `mean`, `low` and `high`."""


WORTH = ("kept", "cleared", "mean", "low", "high")


def result_of(run: Run) -> Result:
    """Return what an evaluated run came to."""
    speed = run.case.reached / cpu_seconds(run.case)
    records = {control: read_records(path) for control, path in run.records.items()}
    return measured(run.row, run.seed, records, speed, run.setting)


def measured(
    row: str,
    seed: int,
    records: Mapping[ContextControl, list[Record]],
    speed: float,
    setting: Setting,
) -> Result:
    """Return curve, gain and worth of records, in the unit of the setting."""

    def in_unit(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, float | None]:
        return {key: values[key] and round(values[key] * setting.scale, 2) for key in keys}

    scores = tabulate(records[ContextControl.KEPT], setting.measure)
    mean_I = [round(value * setting.scale, 2) for value in curve(scores)["mean"]]
    rise = gain(scores)
    of_context = context_worth(records)
    worth = {name: in_unit(of_context[name], WORTH) for name in setting.measures}
    return Result(row, seed, mean_I, in_unit(rise, rise), round(speed), worth)


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
        setting = EXPERIMENTS[experiment]
        protocol = load_protocol(setting.protocol)
        self._about: dict[str, Any] = {
            "experiment": experiment,
            "total_steps": total_steps,
            "protocol": protocol.name,
            "protocol_hash": protocol.hash,
        }
        if told := [*(f"{k}={v}" for k, v in setting.keys.items()), *setting.fresh]:
            self._about["told"] = told
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
    worth: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """As of a result; of a mean, `low` and `high` as those of its gain."""


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
    return Line(result.row, name, result.curve_I, result.gain, speed, is_mean, result.worth)


def _mean(seeds: Sequence[Result]) -> Line:
    if len(seeds) == 1:
        return _line(seeds[0], "one", is_mean=True)
    curve_I = [fmean(values) for values in zip(*(s.curve_I for s in seeds), strict=True)]
    worth = {name: _over_seeds([s.worth[name] for s in seeds]) for name in seeds[0].worth}
    speed = fmean(s.steps_per_cpu_s for s in seeds)
    name, rise = f"mean of {len(seeds)}", _over_seeds([s.gain for s in seeds])
    return Line(seeds[0].row, name, curve_I, rise, speed, is_mean=True, worth=worth)


def _over_seeds(seeds: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return means over seeds; `low` and `high` are the lowest and highest mean of a seed."""

    def known(key: str) -> list[float]:
        return [value for seed in seeds if (value := seed[key]) is not None]

    joined = {key: fmean(known(key)) if known(key) else None for key in seeds[0]}
    return joined | ({"low": min(m), "high": max(m)} if (m := known("mean")) else {})


def table(lines: Sequence[Line], setting: Setting, steps: int, notes: Sequence[str]) -> str:
    """Return the Markdown table of all rows, with what it shows above and notes below."""
    what = f"{setting.unit[0].upper()}{setting.unit[1:]} by episodes in context"
    middle = [*map(str, setting.indices), f"from {FROM} on, mean", f"gain, 0 to {LATE}"]
    if setting.measures:
        what = f"Per cent and points, over episodes from index {FROM_EPISODE} on,"
        parts = ("kept", "cleared", "gain")
        middle = [f"{label(m)}, {part}" for m in setting.measures for part in parts]
    head = ["row", "seed", *middle, "steps per CPU second"]
    rows = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    rows += [f"| {' | '.join(_cells(line, setting))} |" for line in lines]
    told = " ".join([f"protocol={setting.protocol}", *setting.fresh])
    above = (
        f"{what} after {steps:,} training steps, `{told}`. Gains of one seed have 95 % intervals "
        "over trials, of several the lowest and the highest seed. CPU time includes validation."
    )
    return "\n".join([above, "", *rows, "", *(f"- {note}" for note in notes)]).rstrip() + "\n"


def _cells(line: Line, setting: Setting) -> list[str]:
    if setting.measures:
        middle = [cell for m in setting.measures for cell in _of_worth(line.worth[m])]
    else:
        middle = [
            f"{line.curve_I[i]:.1f}" if i < len(line.curve_I) else "" for i in setting.indices
        ]
        middle += [f"{fmean(line.curve_I[FROM:]):.1f}" if len(line.curve_I) > FROM else ""]
        middle += [_with_band(line.gain)]
    return [ROWS[line.row].title, line.name, *middle, f"{line.steps_per_cpu_s:,.0f}"]


def _with_band(values: Mapping[str, float | None]) -> str:
    mean, low, high = (values[key] for key in ("mean", "low", "high"))
    return "" if mean is None else f"{mean:.1f} ({low:.1f} to {high:.1f})"


def _of_worth(worth: Mapping[str, float | None]) -> list[str]:
    levels = [worth[key] for key in ("kept", "cleared")]
    return [*("" if v is None else f"{v:.1f}" for v in levels), _with_band(worth)]


def plot(lines: Sequence[Line], setting: Setting, path: Path) -> None:
    """Draw the rows: what their contexts are worth, or scores by the episode's index."""
    if setting.measures:
        _plot_worth([line for line in lines if line.is_mean], setting, path)
    else:
        _plot_curves(lines, setting, path)


def _plot_worth(means: Sequence[Line], setting: Setting, path: Path) -> None:
    """Draw a panel for each measure: from the level without the context to that with it."""
    columns = len(setting.measures)
    height = 0.26 * len(means) + 1.0
    figure, axes = panels(1, columns, width=1.5 + 3.6 * columns, height=height, sharey=True)
    places = range(len(means))
    for panel, measure in zip(axes[0], setting.measures, strict=True):
        worth = [line.worth[measure] for line in means]
        kept, cleared = ([np.nan if w[k] is None else w[k] for w in worth] for k in WORTH[:2])
        panel.hlines(places, cleared, kept, color=REFERENCE, lw=1.4, zorder=1)
        panel.scatter(cleared, places, color=REFERENCE, s=18, label="context cleared")
        panel.scatter(kept, places, color=BLUE, s=22, label="context kept")
        panel.set(xlim=(0, None), xlabel=f"{label(measure)} in %")
        panel.set_yticks(places, [ROWS[line.row].title for line in means], fontsize="small")
    axes[0, 0].invert_yaxis()
    legend_above(figure, axes[0, 0])
    save_figure(figure, path)


def _plot_curves(lines: Sequence[Line], setting: Setting, path: Path) -> None:
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
        each.set_title(ROWS[line.row].title, fontsize=9)
    for each in axes[:, 0]:
        each.set(ylabel=setting.unit, ylim=(0, None))
    for each in lower_edge(axes, len(others)):
        each.set_xlabel("episodes in context")
    legend_above(figure, axes[0, 0])
    save_figure(figure, path)
