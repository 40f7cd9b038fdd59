"""Plots of an evaluation, drawn from its summary alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_LABELS = {"soft_spl": "soft SPL", "spl": "SPL"}
AGENT, CONTROL = "#2a5f8f", "#b0601f"


def label(name: str) -> str:
    """Return how a measure is called in pictures and tables."""
    return _LABELS.get(name, name)


def plot_summary(summary: Mapping[str, Any], directory: Path) -> list[Path]:
    """Draw the curve of each measure into `directory` and return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, curve in summary["metrics"].items():
        figure = plot_curve(curve, label(name))
        path = directory / f"{name}.png"
        figure.savefig(path, dpi=110)
        plt.close(figure)
        written.append(path)
    return written


def plot_curve(curve: Mapping[str, Any], title: str) -> Figure:
    """Draw a measure against the number of episodes in the context, with its control.

    Where not all trials reach every index, a second panel says how many do.
    """
    counts = curve["count"]
    uneven = len(set(counts)) > 1
    rows = 2 if uneven else 1
    figure, axes = plt.subplots(
        rows, 1, figsize=(7, 4 + 1.2 * uneven), sharex=True, squeeze=False, layout="constrained",
        height_ratios=(4, 1)[:rows],
    )  # fmt: skip
    main = axes[0, 0]
    _band(main, curve, "", AGENT, "context kept")
    if "cleared_mean" in curve:
        _band(main, curve, "cleared_", CONTROL, "context cleared at each episode")
    main.set_ylabel(title)
    main.legend(frameon=False)
    if uneven:
        axes[1, 0].bar(range(len(counts)), counts, color=AGENT, alpha=0.5)
        axes[1, 0].set_ylabel("trials")
    for panel in axes[:, 0]:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("episodes already in context")
    axes[-1, 0].xaxis.get_major_locator().set_params(integer=True)
    return figure


def _band(axes: Axes, curve: Mapping[str, Any], prefix: str, colour: str, label: str) -> None:
    mean, low, high = (_numbers(curve[f"{prefix}{part}"]) for part in ("mean", "low", "high"))
    index = np.arange(len(mean))
    dashes = "--" if prefix else "-"
    axes.plot(index, mean, dashes, marker="o", markersize=3, color=colour, label=label)
    axes.fill_between(index, low, high, color=colour, alpha=0.2, lw=0)


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values])
