"""Plots of one run, drawn from its `metrics.jsonl` alone.

`python -m relic.run.plots RUN_DIR` draws them again at any time, also while the run goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from relic.figures import (
    BLUE,
    GREEN,
    GREY,
    LOOKS,
    MOST_LINES,
    ORANGE,
    PURPLE,
    YELLOW,
    draw_line,
    episodes_axis,
    legend_above,
    legend_beside,
    ordered_looks,
    panel,
    panels,
    save_figures,
    score_axis,
    steps_axis,
)
from relic.measures import label
from relic.run.metrics import read_metrics
from relic.stops import guarded

Metrics = Sequence[dict[str, Any]]

LOSSES = (
    "policy_loss",
    "value_loss",
    "entropy",
    "goal_location_loss",
    "goal_location_error",
    "recall_loss",
    "recall_error",
    "lesson_recall_loss",
    "lesson_recall_error",
)
_PARTS = {
    "simulate": BLUE,
    "act": ORANGE,
    "learn": GREEN,
    "refresh": PURPLE,
    "evaluate": YELLOW,
    "checkpoint": "#56B4E9",
    "other": GREY,
}


def plot_run(run_dir: Path) -> list[Path]:
    """Draw every plot that the run's metrics allow into `<run_dir>/plots`.

    Returns:
        The PNG files written; a PDF lies beside each.

    Raises:
        FileNotFoundError: If the directory holds no metrics.
    """
    metrics = read_metrics(run_dir / "metrics.jsonl")
    if not metrics:
        raise FileNotFoundError(
            f"{run_dir / 'metrics.jsonl'}: must hold the metrics of a run, found none. "
            "Name the run directory of a run that has made an update."
        )
    drawn = {name: draw(metrics) for name, draw in PLOTS.items()}
    figures = {name: figure for name, figure in drawn.items() if figure is not None}
    return save_figures(figures, run_dir / "plots")


def plot_return(metrics: Metrics) -> Figure | None:
    """Return of training episodes, and of validation ones where they were measured."""
    return _lines(metrics, {"return_mean": "training", "val/return": "validation"}, "return")


def plot_success(metrics: Metrics) -> Figure | None:
    """Success of training episodes, and of validation ones where they were measured."""
    keys = {"success_mean": "training", "val/success": "validation", "spl_mean": "training SPL"}
    return _lines(metrics, keys, "success")


def plot_by_episode(metrics: Metrics) -> Figure | None:
    """Learning inside the context: the score by episode index, early to late in training."""
    for key, measure, where in (
        ("val/success_by_episode", "success", "validation"),
        ("val/return_by_episode", "return", "validation"),
        ("success_by_episode", "success", "training"),
        ("return_by_episode", "return", "training"),
    ):
        rows = [m for m in metrics if key in m]
        if len(rows) > 1 or (rows and key.startswith("val/")):
            return _by_episode(rows, key, measure, where)
    return None


def plot_losses(metrics: Metrics) -> Figure | None:
    """Losses, one panel each, with the gradient norm."""
    keys = [k for k in (*LOSSES, "grad_norm", "explained_variance") if any(k in m for m in metrics)]
    return _panels(metrics, keys)


def plot_ratio(metrics: Metrics) -> Figure | None:
    """How far the policy had moved from the one that acted."""
    keys = ("ratio_drift_first", "ratio_drift_max", "approx_kl", "clip_frac")
    return _panels(metrics, [k for k in keys if any(k in m for m in metrics)])


def plot_time(metrics: Metrics) -> Figure | None:
    """Where the time goes: share of each part by update."""
    parts = [p for p in _PARTS if any(m.get(f"time/{p}") for m in metrics)]
    rows = [m for m in metrics if any(f"time/{p}" in m for p in parts)]
    if not parts or len(rows) < 2:
        return None
    seconds = np.array([[m.get(f"time/{p}", 0.0) for m in rows] for p in parts])
    share = 100 * seconds / np.maximum(seconds.sum(axis=0), 1e-9)
    figure, axes = panel()
    colours = [_PARTS[part] for part in parts]
    axes.stackplot([m["env_steps"] for m in rows], share, labels=parts, colors=colours,
                   edgecolor="white", lw=0.4)  # fmt: skip
    axes.set(ylabel="share of time (%)", ylim=(0, 100))
    steps_axis(axes)
    legend_beside(axes, reverse=True)
    return figure


PLOTS: dict[str, Callable[[Metrics], Figure | None]] = {
    "return": plot_return,
    "success": plot_success,
    "by_episode": plot_by_episode,
    "losses": plot_losses,
    "ratio": plot_ratio,
    "time": plot_time,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the plots of the run directory named on the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Draw the plots of a run.")
    parser.add_argument("run_dir", type=Path)
    options = parser.parse_args(argv)

    def draw() -> None:
        print(*plot_run(options.run_dir), sep="\n")

    return guarded(draw)


def _series(metrics: Metrics, key: str) -> tuple[list[int], list[float]]:
    rows = [m for m in metrics if key in m]
    return [m["env_steps"] for m in rows], [m[key] for m in rows]


def _lines(metrics: Metrics, keys: dict[str, str], measure: str) -> Figure | None:
    present = {k: name for k, name in keys.items() if any(k in m for m in metrics)}
    if not present:
        return None
    figure, axes = panel()
    for look, (key, name) in zip(LOOKS, present.items(), strict=False):
        steps, values = _series(metrics, key)
        draw_line(axes, steps, values, look, label=name, marked=key.startswith("val/"))
    score_axis(axes, measure)
    steps_axis(axes)
    legend_above(figure, axes)
    return figure


def _by_episode(rows: Metrics, key: str, measure: str, where: str) -> Figure:
    figure, axes = panel()
    last = len(rows) - 1
    picked = [rows[i] for i in np.unique(np.linspace(0, last, MOST_LINES).round().astype(int))]
    for look, row in zip(ordered_looks(len(picked)), picked, strict=True):
        curve = [np.nan if v is None else v for v in row[key]]
        text = f"{row['env_steps']:,} steps"
        draw_line(axes, range(len(curve)), curve, look, label=text)
    score_axis(axes, measure, f"{label(measure)} in {where}")
    episodes_axis(axes)
    legend_beside(axes, title="after")
    return figure


def _panels(metrics: Metrics, keys: Sequence[str]) -> Figure | None:
    if not keys:
        return None
    figure, axes = panels(
        len(keys), 1, width=7, height=1.6 * len(keys) + 0.6, sharex=True
    )  # fmt: skip
    for each, key in zip(axes[:, 0], keys, strict=True):
        for look, kind in zip(LOOKS, ("partial", "full"), strict=False):
            steps, values = _series([m for m in metrics if m.get("update") == kind], key)
            if steps:
                text = f"{kind} updates"
                draw_line(each, steps, values, look, label=text, marked=False, width=1.0)
        each.set_ylabel(label(key), fontsize=8)
    legend_beside(axes[0, 0])
    steps_axis(axes[-1, 0])
    return figure


if __name__ == "__main__":
    sys.exit(main())
