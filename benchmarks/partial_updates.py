"""What are partial updates worth? Darkroom with and without them, and with each prefix choice.

    python benchmarks/partial_updates.py runs/partial                # hours on two cores
    python benchmarks/partial_updates.py runs/partial --plot-only    # from what has been trained

Each case trains with the experiment's settings but for what is compared, one thread each: rollouts
of 512 steps in 128 rows with 4 updates, and of 4,096 steps in 16 rows with 16. Time is CPU time of
the case's process, validation included, so that other load on the machine does not count. The plot
shows return on validation goals, from the third episode of a trial on, at equal steps and at equal
time. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from cases import Case, Children, cpu_seconds, each, train
from matplotlib import pyplot as plt
from timing import finish

from relic.run.metrics import read_metrics

WINDOW = 512
CHOICES = {
    "off": ["ablation=no_partial_updates", "updates.per_rollout=1"],
    "none": ["updates.prefix_gradient=none"],
    "detached": ["updates.prefix_gradient=detached"],
    "no_shuffle": ["updates.prefix_gradient=detached", "updates.shuffle=false"],
    "window": ["updates.prefix_gradient=detached", f"updates.prefix_window={WINDOW}"],
    "full": ["updates.prefix_gradient=full"],
}
LABELS = {
    "off": "no partial updates",
    "none": "partial, no prefix",
    "detached": "partial, prefix detached",
    "no_shuffle": "partial, prefix detached, no shuffle",
    "window": f"partial, gradient through the last {WINDOW} steps of the prefix",
    "full": "partial, gradient through the prefix",
}
LONG_ONLY = ("window", "no_shuffle")
"""Choices for rollouts longer than the window, in which it is not the whole prefix."""
ROLLOUTS = {
    512: ["rollout.num_envs=128", "rollout.num_steps=512"],
    4096: ["rollout.num_envs=16", "rollout.num_steps=4096", "updates.per_rollout=16"],
}
TOTAL_STEPS = {512: 3_000_000, 4096: 1_500_000}
SCORE = "val/return"


@dataclass(frozen=True, slots=True)
class Compared(Case):
    """A run of one rollout length and one choice."""

    num_steps: int
    choice: str


def case_of(directory: Path, num_steps: int, choice: str) -> Compared:
    """Return the run of a length and a choice."""
    # A single key beats what a group says, wherever it stands, so each is given once.
    keys = dict(key.split("=") for key in (*ROLLOUTS[num_steps], *CHOICES[choice]))
    overrides = ("experiment=darkroom", *(f"{key}={value}" for key, value in keys.items()))
    return Compared(directory / f"{num_steps}_{choice}", overrides, num_steps, choice)


def curve(case: Compared) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, CPU seconds and score at each validation; work is even over the run."""
    lines = read_metrics(case.directory / "metrics.jsonl")
    points = [(line["env_steps"], line[SCORE]) for line in lines if SCORE in line]
    steps, scores = (np.array(column, float) for column in zip(*points, strict=True))
    seconds = cpu_seconds(case) * steps / lines[-1]["env_steps"]
    return steps, seconds, scores


def plot(cases: list[Compared], path: Path) -> None:
    """Draw every rollout length against steps and against time."""
    lengths = sorted({case.num_steps for case in cases})
    figure, axes = plt.subplots(len(lengths), 2, figsize=(10, 3.6 * len(lengths)), squeeze=False)
    for row, length in zip(axes, lengths, strict=True):
        for case in (c for c in cases if c.num_steps == length):
            steps, seconds, scores = curve(case)
            color = f"C{list(CHOICES).index(case.choice)}"
            row[0].plot(steps / 1e6, scores, marker=".", color=color)
            row[1].plot(seconds / 60, scores, marker=".", color=color)
        row[0].set(xlabel="environment steps (millions)", ylabel="return on validation goals")
        row[1].set(xlabel="CPU minutes")
        for ax in row:
            ax.set(title=f"rollouts of {length:,} steps", ylim=(0, 95))
            ax.grid(alpha=0.3)
    for choice in dict.fromkeys(case.choice for case in cases):
        axes[0, 0].plot([], [], color=f"C{list(CHOICES).index(choice)}", label=LABELS[choice])
    figure.tight_layout()
    figure.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), fontsize=8, ncols=2)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def table(cases: list[Compared]) -> list[dict[str, Any]]:
    """Say of each case how far it came, in what time, and when it first reached 60 and 80."""
    rows = []
    for case in cases:
        steps, seconds, scores = curve(case)
        row: dict[str, Any] = {"num_steps": case.num_steps, "choice": case.choice}
        row |= {"env_steps": int(steps[-1]), "cpu_s": round(float(seconds[-1]))}
        row |= {"last": round(float(scores[-1]), 1), "best": round(float(scores.max()), 1)}
        for bar in (60, 80):
            reached = np.flatnonzero(scores >= bar)
            row[f"steps_to_{bar}"] = int(steps[reached[0]]) if len(reached) else None
            row[f"cpu_s_to_{bar}"] = round(float(seconds[reached[0]])) if len(reached) else None
        rows.append(row)
        print(row)
    return rows


def main() -> None:
    """Train what is missing, then compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--total-steps", type=int, help=f"default by length: {TOTAL_STEPS}")
    parser.add_argument(
        "--limit-s",
        type=float,
        default=7200.0,
        help="most seconds of a case in this call; it saves and leaves",
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 4096], choices=ROLLOUTS)
    parser.add_argument("--choices", nargs="+", default=list(CHOICES), choices=CHOICES)
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--plot-only", action="store_true")
    args = parser.parse_args()
    cases = [
        case_of(args.directory, length, choice)
        for length in args.lengths
        for choice in args.choices
        if choice not in LONG_ONLY or length > WINDOW
    ]
    if not args.plot_only:
        args.directory.mkdir(parents=True, exist_ok=True)
        children = Children()
        total = {n: args.total_steps or TOTAL_STEPS[n] for n in args.lengths}
        each(cases, args.jobs, lambda c: train(c, total[c.num_steps], args.limit_s, children))
    cases = [case for case in cases if case.accounts.exists() and case.reached]
    rows = table(cases)
    plot(cases, args.directory / "partial_updates.png")
    options = {**vars(args), "directory": str(args.directory)}
    finish("partial_updates", options, torch.device("cpu"), rows)


if __name__ == "__main__":
    main()
