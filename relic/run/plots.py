"""Plots of one run, drawn from its `metrics.jsonl` alone.

`python -m relic.run.plots RUN_DIR` draws them again at any time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relic.run.metrics import read_metrics

Metrics = Sequence[dict[str, Any]]

LOSSES = (
    "policy_loss",
    "value_loss",
    "entropy",
    "goal_location_loss",
    "goal_location_error",
    "recall_loss",
    "recall_error",
)
STEPS_AXIS = "environment steps"
_COLOURS = plt.get_cmap("viridis")
_PARTS = ("simulate", "act", "learn", "refresh", "evaluate", "checkpoint", "other")


def plot_run(run_dir: Path) -> list[Path]:
    """Draw every plot that the run's metrics allow into `<run_dir>/plots`.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: If the directory holds no metrics.
    """
    metrics = read_metrics(run_dir / "metrics.jsonl")
    if not metrics:
        raise FileNotFoundError(
            f"{run_dir / 'metrics.jsonl'}: must hold the metrics of a run, found none. "
            "Name the run directory of a run that has made an update."
        )
    directory = run_dir / "plots"
    directory.mkdir(exist_ok=True)
    written = []
    for name, draw in PLOTS.items():
        figure = draw(metrics)
        if figure is None:
            continue
        path = directory / f"{name}.png"
        figure.savefig(path, dpi=110)
        plt.close(figure)
        written.append(path)
    return written


def plot_return(metrics: Metrics) -> Figure | None:
    """Return of training episodes, and of validation ones where they were measured."""
    return _lines(metrics, {"return_mean": "training", "val/return": "validation"}, "return")


def plot_success(metrics: Metrics) -> Figure | None:
    """Success of training episodes, and of validation ones where they were measured."""
    keys = {"success_mean": "training", "val/success": "validation", "spl_mean": "training SPL"}
    return _lines(metrics, keys, "success")


def plot_by_episode(metrics: Metrics) -> Figure | None:
    """Learning inside the context: the score by episode index, early to late in training."""
    for key, label in (
        ("val/success_by_episode", "validation success"),
        ("val/return_by_episode", "validation return"),
        ("success_by_episode", "training success"),
        ("return_by_episode", "training return"),
    ):
        rows = [m for m in metrics if key in m]
        if len(rows) > 1 or (rows and key.startswith("val/")):
            return _by_episode(rows, key, label)
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
    figure, axes = _figure()
    colours = [_COLOURS(i / max(len(parts) - 1, 1)) for i in range(len(parts))]
    axes.stackplot([m["env_steps"] for m in rows], share, labels=parts, colors=colours)
    axes.set(xlabel=STEPS_AXIS, ylabel="share of time (%)", ylim=(0, 100))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
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
    """Draw the plots of the run directory named on the command line."""
    parser = argparse.ArgumentParser(description="Draw the plots of a run.")
    parser.add_argument("run_dir", type=Path)
    try:
        written = plot_run(parser.parse_args(argv).run_dir)
    except FileNotFoundError as error:
        parser.exit(2, f"{error}\n")
    parser.exit(0, "".join(f"{path}\n" for path in written))


def _figure() -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _series(metrics: Metrics, key: str) -> tuple[list[int], list[float]]:
    rows = [m for m in metrics if key in m]
    return [m["env_steps"] for m in rows], [m[key] for m in rows]


def _marker(steps: Sequence[int]) -> str | None:
    """Return a marker for a line that would not be seen: one of a single point."""
    return "o" if len(steps) == 1 else None


def _lines(metrics: Metrics, keys: dict[str, str], label: str) -> Figure | None:
    present = {k: name for k, name in keys.items() if any(k in m for m in metrics)}
    if not present:
        return None
    figure, axes = _figure()
    for i, (key, name) in enumerate(present.items()):
        steps, values = _series(metrics, key)
        marker = "o" if key.startswith("val/") else _marker(steps)
        axes.plot(steps, values, label=name, color=_COLOURS(0.15 + 0.6 * i / len(present)),
                  marker=marker, markersize=3)  # fmt: skip
    axes.set(xlabel=STEPS_AXIS, ylabel=label)
    axes.legend(frameon=False)
    return figure


def _by_episode(rows: Metrics, key: str, label: str) -> Figure:
    figure, axes = _figure()
    picked = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, 6).round().astype(int))]
    for i, row in enumerate(picked):
        curve = [np.nan if v is None else v for v in row[key]]
        axes.plot(range(len(curve)), curve, marker="o", markersize=3,
                  color=_COLOURS(0.9 * i / max(len(picked) - 1, 1)),
                  label=f"{row['env_steps']:,} steps")  # fmt: skip
    axes.set(xlabel="episodes already in context", ylabel=label)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _panels(metrics: Metrics, keys: Sequence[str]) -> Figure | None:
    if not keys:
        return None
    figure, axes = plt.subplots(
        len(keys), 1, figsize=(7, 1.6 * len(keys) + 0.6), sharex=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for panel, key in zip(axes[:, 0], keys, strict=True):
        for i, kind in enumerate(("partial", "full")):
            steps, values = _series([m for m in metrics if m.get("update") == kind], key)
            if steps:
                panel.plot(steps, values, label=kind, color=_COLOURS(0.15 + 0.55 * i), lw=1,
                           marker=_marker(steps), markersize=3)  # fmt: skip
        panel.set_ylabel(key, fontsize=8)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, ncols=2, fontsize=8)
    axes[-1, 0].set_xlabel(STEPS_AXIS)
    return figure


if __name__ == "__main__":
    main()
