"""Plots of measures against the number of episodes in the context, and what all plots share.

An evaluation's plots are drawn from its summary alone: the curve of each measure, and its parts by
the size of the house and by goal category. A probe's plot is drawn from its result.

Shapes: P places on an axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import ColorType

from relic.evaluation.curves import varies
from relic.evaluation.few_shot import ProbeResult
from relic.evaluation.report.text import CONTROL_WORDS, controls_of, label
from relic.schema import to_plain

AGENT, CONTROL, REFERENCE = "#2a5f8f", "#b0601f", "#52606d"
CONTROLS = {"cleared": CONTROL, "shuffled": "#5b8c3a", "foreign": "#8a5a9e"}
_FAINT = "#7a828c"
SHADES = colormaps["viridis"]
Curves = Mapping[str, Mapping[str, Any]]
"""A measure's entry of each part, as `curves.summarise_groups` gives it."""


def panel(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure with one panel, in inches."""
    # Not by pyplot, which would choose a backend for whoever imports this.
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    tidy(axes)
    return figure, axes


def legend_beside(axes: Axes, **options: Any) -> None:
    """Write the legend to the right of the panel, where it hides no curve."""
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), **options)


def plot_summary(summary: Mapping[str, Any], directory: Path) -> list[Path]:
    """Draw the curve of each measure that varies into `directory` and return the files."""
    figures = {}
    for name, curve in summary["metrics"].items():
        if not varies([curve]):
            continue
        figures[name] = plot_curve(curve, label(name), trained=trained_context(summary))
    return save_figures(figures, directory)


def save_figures(figures: Mapping[str, Figure], directory: Path) -> list[Path]:
    """Write figures as PNG files of their names, and return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        path = directory / f"{name}.png"
        figure.savefig(path, dpi=110)
        written.append(path)
    return written


def plot_curve(
    curve: Mapping[str, Any], title: str, *, trained: tuple[float, str] | None = None
) -> Figure:
    """Draw a measure against the number of episodes in the context, with its control.

    Where not all trials reach every index, a second panel says how many do.

    Args:
        curve: Of the measure.
        title: How it is called.
        trained: See `trained_context`.
    """
    counts = curve["count"]
    uneven = len(set(counts)) > 1
    rows = 2 if uneven else 1
    figure = Figure(figsize=(7, 4 + 1.2 * uneven), layout="constrained")
    axes = figure.subplots(
        rows, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": (4, 1)[:rows]}
    )
    main = axes[0, 0]
    band(main, curve, colour=AGENT, label="context kept")
    for control in controls_of(curve):
        parts = {part: curve[f"{control}_{part}"] for part in ("mean", "low", "high")}
        colour, words = CONTROLS[control], CONTROL_WORDS[control]
        band(main, parts, colour=colour, label=words, line="--")
    mark_trained(main, trained)
    main.set_ylabel(title)
    main.legend(frameon=False)
    if uneven:
        axes[1, 0].bar(range(len(counts)), counts, color=AGENT, alpha=0.5)
        axes[1, 0].set_ylabel("trials")
    for panel in axes[:, 0]:
        tidy(panel)
    count_episodes(axes[-1, 0])
    return figure


def band(
    axes: Axes,
    curve: Mapping[str, Any],
    *,
    colour: ColorType,
    label: str,
    line: str = "-",
    index: Sequence[int] | None = None,
) -> None:
    """Draw `mean` over `low` to `high`.

    Args:
        axes: Drawn into.
        curve: Lists of numbers, or None where there is none.
        colour: Of line and band.
        label: For the legend.
        line: Matplotlib's style of the line.
        index: Where the entries stand. Default: 0, 1, ...
    """
    mean, low, high = (numbers(curve[part]) for part in ("mean", "low", "high"))
    where = np.arange(len(mean)) if index is None else index
    axes.plot(where, mean, line, marker="o", markersize=3, color=colour, label=label)
    axes.fill_between(where, low, high, color=colour, alpha=0.2, lw=0)


def trained_context(facts: Mapping[str, Any]) -> tuple[float, str] | None:
    """Return the number of episodes at which the trained context ends, and words for it.

    Args:
        facts: `trained_episodes` and `trained_steps`, as a summary has them.
    """
    if facts["trained_episodes"] is None:
        return None
    return facts["trained_episodes"], f"trained context ends ({facts['trained_steps']:,} steps)"


def mark_trained(axes: Axes, trained: tuple[float, str] | None) -> None:
    """Draw a line where the trained context ends, if trials go on."""
    if trained is not None:
        episodes, words = trained
        axes.axvline(episodes, color=REFERENCE, linestyle=":", label=words)


def tidy(axes: Axes) -> None:
    """Give a panel the look of the others."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def count_episodes(axes: Axes) -> None:
    """Let the horizontal axis be the number of episodes in the context."""
    axes.set_xlabel("episodes already in context")
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """Return a list as an array; NaN where there is no number."""
    return np.array([np.nan if v is None else v for v in values])


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
            if varies(chosen.values()):
                figures[f"{name}_{kind}"] = draw(chosen, label(name))
    return save_figures(figures, directory)


def plot_by_area(parts: Curves, title: str) -> Figure:
    """Draw the curve of each part of the houses, from small to large."""
    figure, axes = panel(7, 4)
    for place, (part, curve) in enumerate(parts.items()):
        band(axes, curve, colour=SHADES(0.85 * place / max(len(parts) - 1, 1)), label=part)
    axes.set_ylabel(title)
    axes.legend(frameon=False, title="houses of")
    count_episodes(axes)
    return figure


def plot_by_goal(parts: Curves, title: str) -> Figure:
    """Draw what each goal category reaches early and late in its trials, the best at the top."""
    order = sorted(parts, key=lambda name: (_late_mean(parts[name]), name))
    figure, axes = panel(7, 1.2 + 0.26 * len(order))
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
    legend_beside(axes)
    return figure


def _late_mean(curve: Mapping[str, Any]) -> float:
    mean = curve["late"]["mean"]
    return -math.inf if mean is None else mean


def plot_probe(result: ProbeResult, measure: str) -> Figure:
    """Draw a measure against the number of episodes in the context, shown or the policy's own.

    The lower panel is the paired difference; its intervals are those to read, since the bands
    above share the spread of the trials.
    """
    effect = result.effect(measure)
    figure = Figure(figsize=(7, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (5, 2)})
    most = result.counts[-1] + 1
    own = _first(to_plain(effect.own), most)
    shown = to_plain(result.at_first(measure, "demonstrated"))
    theirs = "the expert's" if result.demonstrations == "expert" else "the demonstrator's"
    if effect.demonstrator.mean:
        mean = sum(m for m in effect.demonstrator.mean if m is not None)
        level = mean / len(effect.demonstrator.mean)
        upper.axhline(level, color=_FAINT, ls=":", label=f"{theirs} own {label(measure)}")
    band(upper, own, colour=AGENT, label="after its own episodes", line="--")
    text = f"after {theirs} episodes"
    band(upper, shown, colour=CONTROL, label=text, index=result.counts)
    upper.set_ylabel(f"{label(measure)} in the next episode")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    _draw_difference(lower, result.counts, to_plain(result.at_first(measure, "difference")))
    lower.set_xlabel("episodes in the context")
    lower.xaxis.get_major_locator().set_params(integer=True)
    tidy(upper)
    tidy(lower)
    return figure


def _first(curve: Mapping[str, Sequence[Any]], count: int) -> dict[str, Sequence[Any]]:
    return {part: values[:count] for part, values in curve.items()}


def _draw_difference(axes: Axes, counts: Sequence[int], curve: Mapping[str, Sequence[Any]]) -> None:
    axes.axhline(0.0, color=_FAINT, lw=0.8)
    for count, mean, low, high in zip(
        counts, curve["mean"], curve["low"], curve["high"], strict=True
    ):
        if low is not None:
            axes.plot([count, count], [low, high], color=CONTROL, lw=1.5)
        axes.plot(count, mean, "o", color=CONTROL, markersize=4)
    axes.set_ylabel("difference")
