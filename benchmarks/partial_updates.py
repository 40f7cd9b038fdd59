"""What are partial updates worth? With and without them, and with each choice of the prefix.

    python benchmarks/partial_updates.py runs/partial                # hours on two cores
    python benchmarks/partial_updates.py runs/partial --plot-only    # from what has been trained
    python benchmarks/partial_updates.py runs/shown --curves docs/baselines/partial_updates.json
    python benchmarks/partial_updates.py runs/partial_houses --experiment houses_small

Each case trains with the experiment's settings but for what is compared, one thread each: rollouts
of 4,096 steps in 16 rows with 16 updates, in Darkroom also of 512 steps in 128 rows with 4. Time is
CPU time of the case's process, validation included, so that other load on the machine does not
count. The plot shows validation, from the third episode of a trial on, at equal steps and at equal
time; take a directory for each experiment. `curves.json` there holds what the plot shows. The last
line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import Case, Children, cpu_seconds, each, train
from matplotlib.figure import Figure
from timing import finish

from relic.figures import (
    LOOKS,
    REFERENCE,
    Look,
    draw_line,
    panels,
    save_figures,
    score_axis,
    steps_axis,
)
from relic.files import write_json
from relic.run.metrics import read_metrics

WINDOW = 512
NO_SHUFFLE = ("updates.prefix_gradient=detached", "updates.shuffle=false")
NO_REFRESH = (*NO_SHUFFLE, "updates.refresh_memory=false", "updates.refresh_values=false")
SEVERAL = ("updates.loss_chunks={epochs}", "ppo.update_epochs=1")
CHOICES = {
    "off": ["ablation=no_partial_updates", "updates.per_rollout=1"],
    "none": ["updates.prefix_gradient=none"],
    "detached": ["updates.prefix_gradient=detached"],
    "no_shuffle": [*NO_SHUFFLE],
    "window": ["updates.prefix_gradient=detached", f"updates.prefix_window={WINDOW}"],
    "full": ["updates.prefix_gradient=full"],
    "several": [*NO_SHUFFLE, *SEVERAL],
    "several_full": ["updates.prefix_gradient=full", *SEVERAL],
    "as_acted": [*NO_REFRESH],
    "in_pass": [*NO_REFRESH, "updates.refresh_in_pass=true"],
}
LABELS = {
    "off": "no partial updates",
    "none": "partial, no prefix",
    "detached": "partial, prefix detached",
    "no_shuffle": "partial, prefix detached, no shuffle",
    "window": f"partial, gradient through the last {WINDOW} steps of the prefix",
    "full": "partial, gradient through the prefix",
    "several": "detached, no shuffle, loss on several chunks in one pass",
    "several_full": "whole gradient, loss on several chunks in one pass",
    "as_acted": "detached, no shuffle, keys and values as acted with",
    "in_pass": "detached, no shuffle, keys and values of the last pass",
}
FIGURES = {
    "partial_updates": ("none", "detached", "no_shuffle", "window", "full"),
    "cheaper_updates": ("no_shuffle", "several", "several_full", "as_acted", "in_pass"),
}
"""Choices that one figure compares, no more than lines can be told apart."""
OFF = Look(REFERENCE, (0, (2, 2)), "x")
"""Of no partial updates, which all others are held against."""
LONG_ONLY = ("window", "no_shuffle", "several", "several_full", "as_acted", "in_pass")
"""Choices for rollouts of many updates, and longer than the window."""
LONG = ("rollout.num_envs=16", "rollout.num_steps=4096", "updates.per_rollout=16")


@dataclass(frozen=True, slots=True)
class Setting:
    """How an experiment is trained and what is shown of it."""

    rollouts: Mapping[int, tuple[str, ...]]
    """What is trained with each length of rollouts."""
    total_steps: Mapping[int, int]
    epochs: int
    """Of the experiment; a loss on so many chunks in one epoch has as many passes for a step."""
    score: str
    label: str
    top: float
    bars: tuple[float, float]
    """Scores whose first crossing is told."""


SETTINGS = {
    "darkroom": Setting(
        rollouts={512: ("rollout.num_envs=128", "rollout.num_steps=512"), 4096: LONG},
        total_steps={512: 3_000_000, 4096: 1_500_000},
        epochs=3,
        score="val/return",
        label="return on validation goals",
        top=95,
        bars=(60, 80),
    ),
    # Half as many rows in rollouts four times as long: rows in a minibatch, steps in a chunk and
    # so the optimiser's partial steps stay what they are in the experiment.
    "houses_small": Setting(
        rollouts={
            4096: (
                *LONG,
                "ppo.num_minibatches=8",
                "validation.every_rollouts=2",
                "validation.score_from_episode=2",
            )
        },
        total_steps={4096: 1_000_000},
        epochs=2,
        score="val/success",
        label="success in validation houses",
        top=0.4,
        bars=(0.2, 0.3),
    ),
}


@dataclass(frozen=True, slots=True)
class Compared(Case):
    """A run of one rollout length and one choice."""

    num_steps: int
    choice: str


def case_of(
    directory: Path, experiment: str, num_steps: int, choice: str, *, seed: int
) -> Compared:
    """Return the run of a length and a choice."""
    # A single key beats what a group says, wherever it stands, so each is given once.
    setting = SETTINGS[experiment]
    chosen = (key.format(epochs=setting.epochs) for key in CHOICES[choice])
    keys = dict(key.split("=") for key in (*setting.rollouts[num_steps], *chosen))
    keys |= {"experiment": experiment, "seed": str(seed)}
    overrides = tuple(f"{key}={value}" for key, value in keys.items())
    name = f"{num_steps}_{choice}" + (f"_seed{seed}" if seed else "")
    return Compared(directory / name, overrides, num_steps, choice)


@dataclass(frozen=True, slots=True)
class Curve:
    """What validation said during a run, V times."""

    num_steps: int
    choice: str
    cpu_s: float
    """Of the whole run."""
    env_steps_V: list[int]
    score_V: list[float]

    @property
    def cpu_s_V(self) -> np.ndarray:
        """CPU seconds until each validation; work is even over the run."""
        return self.cpu_s * np.array(self.env_steps_V) / self.env_steps_V[-1]


def curve(case: Compared, score: str) -> Curve:
    """Return the curve of a run, which validates at its end."""
    lines = read_metrics(case.directory / "metrics.jsonl")
    points = [(line["env_steps"], line[score]) for line in lines if score in line]
    steps, scores = map(list, zip(*points, strict=True))
    return Curve(case.num_steps, case.choice, cpu_seconds(case), steps, scores)


def plot(curves: list[Curve], setting: Setting, directory: Path) -> list[Path]:
    """Draw every rollout length against steps and against time; return the figures' files."""
    figures = {}
    for name, choices in FIGURES.items():
        looks = {"off": OFF, **dict(zip(choices, LOOKS, strict=False))}
        shown = [one for one in curves if one.choice in looks]
        if len({one.choice for one in shown} - {"off"}) > 1:  # or there is nothing to compare
            figures[name] = _figure(shown, looks, setting)
    return save_figures(figures, directory)


def _figure(curves: list[Curve], looks: Mapping[str, Look], setting: Setting) -> Figure:
    lengths = sorted({each.num_steps for each in curves})
    figure, axes = panels(len(lengths), 2, width=10, height=3.6 * len(lengths) + 1)
    named: dict[str, Any] = {}
    for row, length in zip(axes, lengths, strict=True):
        for one in (c for c in curves if c.num_steps == length):
            look, text = looks[one.choice], LABELS[one.choice]
            draw_line(row[0], one.env_steps_V, one.score_V, look, label=text)
            draw_line(row[1], one.cpu_s_V / 60, one.score_V, look, label=text)
        for axes_here in row:
            score_axis(axes_here, setting.score.rpartition("/")[2], setting.label)
            axes_here.set(title=f"rollouts of {length:,} steps", ylim=(0, setting.top))
        steps_axis(row[0])
        row[1].set_xlabel("CPU minutes")
        handles, texts = row[0].get_legend_handles_labels()
        named |= dict(zip(texts, handles, strict=True))
    # Not of one panel alone: each length has choices of its own.
    figure.legend([*named.values()], [*named], loc="outside upper left", ncols=2, frameon=False)
    return figure


def table(curves: list[Curve], setting: Setting) -> list[dict[str, Any]]:
    """Say of each run how far it came, in what time, and when it first roneed the bars."""
    rows = []
    for one in curves:
        scores = np.array(one.score_V)
        row: dict[str, Any] = {"num_steps": one.num_steps, "choice": one.choice}
        row |= {"env_steps": one.env_steps_V[-1], "cpu_s": round(one.cpu_s)}
        row |= {"last": round(float(scores[-1]), 3), "best": round(float(scores.max()), 3)}
        for bar in setting.bars:
            roneed = np.flatnonzero(scores >= bar)
            first = roneed[0] if len(roneed) else None
            row[f"steps_to_{bar}"] = None if first is None else one.env_steps_V[first]
            row[f"cpu_s_to_{bar}"] = None if first is None else round(float(one.cpu_s_V[first]))
        rows.append(row)
        print(row)
    return rows


def main() -> None:
    """Train what is missing, then compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--experiment", default="darkroom", choices=SETTINGS)
    parser.add_argument("--total-steps", type=int, help="default: by experiment and length")
    parser.add_argument(
        "--limit-s",
        type=float,
        default=7200.0,
        help="most seconds of a case in this call; it saves and leaves",
    )
    parser.add_argument("--lengths", type=int, nargs="+", help="default: all of the experiment")
    parser.add_argument("--choices", nargs="+", default=list(CHOICES), choices=CHOICES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--plot-only", action="store_true")
    parser.add_argument("--curves", type=Path, help="draw those of a file, and train nothing")
    args = parser.parse_args()
    setting = SETTINGS[args.experiment]
    if args.curves:
        kept = json.loads(args.curves.read_text())["curves"][args.experiment]
        print(*plot([Curve(**one) for one in kept], setting, args.directory), sep="\n")
        return
    args.lengths = args.lengths or list(setting.rollouts)
    if not set(args.lengths) <= set(setting.rollouts):
        parser.error(f"--lengths: {args.experiment} has {list(setting.rollouts)}")
    cases = [
        case_of(args.directory, args.experiment, length, choice, seed=args.seed)
        for length in args.lengths
        for choice in args.choices
        if choice not in LONG_ONLY or length > WINDOW
    ]
    if not args.plot_only:
        args.directory.mkdir(parents=True, exist_ok=True)
        children = Children()
        total = {n: args.total_steps or setting.total_steps[n] for n in args.lengths}
        each(cases, args.jobs, lambda c: train(c, total[c.num_steps], args.limit_s, children))
    cases = [case for case in cases if case.accounts.exists() and case.reached]
    if not cases:
        parser.error(f"directory: must hold a case to be shown, found none in {args.directory}")
    curves = [curve(case, setting.score) for case in cases]
    kept = {"curves": {args.experiment: [asdict(one) for one in curves]}}
    write_json(args.directory / "curves.json", kept)
    rows = table(curves, setting)
    plot(curves, setting, args.directory)
    options = {**vars(args), "directory": str(args.directory)}
    finish("partial_updates", options, torch.device("cpu"), rows)


if __name__ == "__main__":
    main()
