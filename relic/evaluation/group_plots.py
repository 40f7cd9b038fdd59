"""Plots of parts of an evaluation: by the size of the house, by goal category."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from relic.evaluation.plots import (
    AGENT,
    CONTROL,
    band,
    count_episodes,
    label,
    numbers,
    save_figures,
    tidy,
)

Curves = Mapping[str, Mapping[str, Any]]
"""A measure's entry of each part, as `groups.summarise_groups` gives it."""
SHADES = colormaps["viridis"]


def plot_groups(summary: Mapping[str, Any], directory: Path) -> list[Path]:
    """Draw each measure of the parts that a summary has, and return the files.

    They are named by measure and kind, as in `success_by_goal.png`.
    """
    kinds: dict[str, Callable[[Curves, str], Figure]] = {
        "by_area": plot_by_area,
        "by_goal": plot_by_goal,
    }
    figures = {}
    for kind, draw in kinds.items():
        parts = summary.get(kind, {})
        for name in dict.fromkeys(name for part in parts.values() for name in part["metrics"]):
            chosen = {part: content["metrics"][name] for part, content in parts.items()}
            figures[f"{name}_{kind}"] = draw(chosen, label(name))
    return save_figures(figures, directory)


def plot_by_area(parts: Curves, title: str) -> Figure:
    """Draw the curve of each part of the houses, from small to large."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for place, (part, curve) in enumerate(parts.items()):
        band(axes, curve, colour=SHADES(0.85 * place / max(len(parts) - 1, 1)), label=part)
    axes.set_ylabel(title)
    axes.legend(frameon=False, title="houses of")
    tidy(axes)
    count_episodes(axes)
    return figure


def plot_by_goal(parts: Curves, title: str) -> Figure:
    """Draw what each goal category reaches early and late in its trials, the best at the top."""
    order = sorted(parts, key=lambda name: (_late_mean(parts[name]), name))
    figure = Figure(figsize=(7, 1.2 + 0.26 * len(order)), layout="constrained")
    axes = figure.subplots()
    place_P = np.arange(len(order))
    bands = (("early", "first", CONTROL, -0.13), ("late", "last", AGENT, 0.13))
    for name, quarter, colour, shift in bands:
        mean, low, high = (
            numbers([parts[part][name][number] for part in order])
            for number in ("mean", "low", "high")
        )
        axes.hlines(place_P + shift, low, high, color=colour, alpha=0.35, lw=3)
        axes.plot(mean, place_P + shift, "o", color=colour, ms=5, label=f"{quarter} quarter")
    axes.set_yticks(place_P, [part.replace("_", " ") for part in order])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlabel(f"{title} in the first and last quarter of the episodes")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    tidy(axes)
    return figure


def _late_mean(curve: Mapping[str, Any]) -> float:
    mean = curve["late"]["mean"]
    return -math.inf if mean is None else mean
