"""Table and plot of runs that `baselines.py` has trained and evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from cases import Case, cpu_seconds
from matplotlib import pyplot as plt

from relic.evaluation.context import Context
from relic.evaluation.curves import LATE, curve, gain, tabulate
from relic.evaluation.evaluator import Record
from relic.evaluation.protocol import load_protocol
from relic.evaluation.store import RECORDS_FILES, read_records
from relic.evaluation.subject import find_subject


@dataclass(frozen=True, slots=True)
class Row:
    """How a row is called and where it is drawn."""

    label: str
    panel: str


MEMORY, SINKS, LEARNING = "memories and credit", "sinks", "learning"
ROWS = {
    "relic": Row("ReLIC", MEMORY),
    "credit_trial": Row("ReLIC, credit per trial", MEMORY),
    "rl2": Row("RL², LSTM", MEMORY),
    "rl2_gru": Row("RL², GRU", MEMORY),
    "transformer_xl": Row("Transformer-XL", MEMORY),
    "single_episode": Row("single episode", MEMORY),
    "no_inter_episode_attention": Row("no inter-episode attention", MEMORY),
    "sink_none": Row("no sink", SINKS),
    "sink_token": Row("sink token", SINKS),
    "sink_kv": Row("sink KV", SINKS),
    "sink_kv0": Row("sink KV0", SINKS),
    "sink_k0v": Row("sink K0V", SINKS),
    "sink_k0v0": Row("sink K0V0", SINKS),
    "no_partial_updates": Row("no partial updates", LEARNING),
    "no_shuffle": Row("no shuffle", LEARNING),
    "no_refresh": Row("no refresh, no shuffle", LEARNING),
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
        checkpoint = find_subject(self.case.directory, "best").checkpoint
        place = self.case.directory / "evaluations" / f"{protocol.name}-{protocol.hash}"
        return place / checkpoint.name / RECORDS_FILES[Context.KEPT]


@dataclass(frozen=True, slots=True)
class Result:
    """What a row, or one seed of it, came to; scores are in the unit of the setting."""

    row: str
    seed: int | None
    """None: the mean over seeds."""
    seeds: int
    curve_I: list[float]
    gain: dict[str, float | None]
    steps_per_cpu_s: float

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        numbers = {"curve": [round(value, 2) for value in self.curve_I], "gain": self.gain}
        speed = round(self.steps_per_cpu_s)
        return {"row": self.row, "seed": self.seed, "seeds": self.seeds, **numbers, "sps": speed}


def results(runs: Sequence[Run]) -> list[Result]:
    """Return the mean over the seeds of each row, followed by each seed where there are several."""
    found = []
    for row in dict.fromkeys(run.row for run in runs):
        seeds = [run for run in runs if run.row == row]
        records = {run.seed: read_records(run.evaluation) for run in seeds}
        speeds = {run.seed: run.case.reached / cpu_seconds(run.case) for run in seeds}
        setting = seeds[0].setting
        speed = sum(speeds.values()) / len(speeds)
        found.append(result_of(row, None, len(seeds), pooled(records), speed, setting))
        if len(seeds) > 1:
            found += [result_of(row, s, 1, records[s], speeds[s], setting) for s in sorted(records)]
    return found


def pooled(records: dict[int, list[Record]]) -> list[Record]:
    """Put the records of several seeds together, as further repeats of the same trials."""
    return [
        {**record, "repeat": (seed, record["repeat"])}
        for seed, of_seed in records.items()
        for record in of_seed
    ]


def result_of(
    row: str,
    seed: int | None,
    seeds: int,
    records: list[Record],
    speed: float,
    setting: Setting,
) -> Result:
    """Measure records: curve and gain in the unit of the setting."""
    measured = tabulate(records, setting.measure)
    scaled = {k: None if v is None else v * setting.scale for k, v in gain(measured).items()}
    mean_I = [value * setting.scale for value in curve(measured)["mean"]]
    return Result(row, seed, seeds, mean_I, scaled, speed)


def table(found: Sequence[Result], setting: Setting, steps: int, notes: Sequence[str]) -> str:
    """Return the Markdown table of all rows, with what it shows above and notes below."""
    head = ["row", "seed", *map(str, setting.indices), f"gain, 0 to {LATE}", "steps per CPU second"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(_cells(result, setting))} |" for result in found]
    above = (
        f"{setting.unit[0].upper()}{setting.unit[1:]} by episodes in context after {steps:,} "
        f"training steps, protocol `{setting.protocol}`. Gains have 95 % intervals over trials, "
        "not over seeds. CPU time includes validation."
    )
    return "\n".join([above, "", *lines, "", *(f"- {note}" for note in notes)]).rstrip() + "\n"


def _cells(result: Result, setting: Setting) -> list[str]:
    means = f"mean of {result.seeds}" if result.seeds > 1 else "one"
    name = means if result.seed is None else str(result.seed)
    scores = [
        f"{result.curve_I[i]:.1f}" if i < len(result.curve_I) else "" for i in setting.indices
    ]
    mean, low, high = (result.gain[key] for key in ("mean", "low", "high"))
    rise = "" if mean is None else f"{mean:.1f} ({low:.1f} to {high:.1f})"
    return [ROWS[result.row].label, name, *scores, rise, f"{result.steps_per_cpu_s:,.0f}"]


def plot(found: Sequence[Result], setting: Setting, path: Path) -> None:
    """Draw the mean curve of each row, by kind of comparison, ReLIC in each panel."""
    means = [result for result in found if result.seed is None]
    panels = [p for p in (MEMORY, SINKS, LEARNING) if any(ROWS[r.row].panel == p for r in means)]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5.2 * len(panels), 4.4), sharey=True, squeeze=False
    )
    for ax, panel in zip(axes[0], panels, strict=True):
        shown = [r for r in means if r.row == "relic" or ROWS[r.row].panel == panel]
        for i, result in enumerate(shown):
            style = {"color": "black", "linewidth": 2.2} if result.row == "relic" else {}
            style = style or {"color": f"C{i}", "linewidth": 1.4}
            ax.plot(result.curve_I, label=ROWS[result.row].label, **style)
        ax.set(title=panel, xlabel="episodes in context")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncol=2)
    axes[0, 0].set(ylabel=setting.unit, ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
