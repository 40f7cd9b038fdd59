"""Plots of measures against the number of episodes in the context.

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
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relic.evaluation.curves import varies
from relic.evaluation.few_shot import ProbeResult
from relic.evaluation.report.text import CONTROL_WORDS, controls_of
from relic.figures import (
    LOOKS,
    REFERENCE,
    Look,
    draw_band,
    draw_line,
    draw_reference,
    episodes_axis,
    legend_above,
    legend_beside,
    ordered_looks,
    panel,
    panels,
    per_cent,
    save_figures,
    score_axis,
)
from relic.measures import SHARES, label
from relic.schema import to_plain

AGENT, CONTROL = LOOKS[:2]
CONTROLS = {"cleared": CONTROL, "shuffled": LOOKS[2], "foreign": LOOKS[3]}
Curves = Mapping[str, Mapping[str, Any]]
"""A measure's entry of each part, as `curves.summarise_groups` gives it."""


def plot_summary(summary: Mapping[str, Any], directory: Path) -> list[Path]:
    """Draw the curve of each measure that varies into `directory` and return the files."""
    figures = {}
    for name, curve in summary["metrics"].items():
        if not varies([curve]):
            continue
        figures[name] = plot_curve(curve, name, trained=trained_context(summary))
    return save_figures(figures, directory)


def plot_curve(
    curve: Mapping[str, Any],
    measure: str,
    *,
    trained: tuple[float, str] | None = None,
    references: Mapping[str, float] | None = None,
) -> Figure:
    """Draw a measure against the number of episodes in the context, with its controls.

    Where not all trials reach every index, a second panel says how many do.

    Args:
        curve: Of the measure.
        measure: Its name.
        trained: See `trained_context`.
        references: Levels that the curve is held against, by what they are called.
    """
    counts = curve["count"]
    uneven = len(set(counts)) > 1
    rows = 2 if uneven else 1
    ratios = {"height_ratios": (4, 1)[:rows]}
    figure, axes = panels(
        rows, 1, width=7, height=4 + 1.2 * uneven, sharex=True, gridspec_kw=ratios
    )
    main = axes[0, 0]
    band(main, curve, AGENT, label="context kept")
    for control in controls_of(curve):
        parts = {part: curve[f"{control}_{part}"] for part in ("mean", "low", "high")}
        band(main, parts, CONTROLS[control], label=CONTROL_WORDS[control])
    for line, (text, level) in zip((":", "-.", "--"), (references or {}).items(), strict=False):
        draw_reference(main, level, text, line=line)
    mark_trained(main, trained)
    score_axis(main, measure)
    legend_above(figure, main)
    if uneven:
        axes[1, 0].bar(range(len(counts)), counts, color=AGENT.colour, alpha=0.5)
        axes[1, 0].set_ylabel("trials, with repeats")
    episodes_axis(axes[-1, 0])
    return figure


def band(
    axes: Axes,
    curve: Mapping[str, Any],
    look: Look,
    *,
    label: str,
    index: Sequence[int] | None = None,
) -> None:
    """Draw `mean` over `low` to `high`.

    Args:
        axes: Drawn into.
        curve: Lists of numbers, or None where there is none.
        look: Of line and band.
        label: For the legend.
        index: Where the entries stand. Default: 0, 1, ...
    """
    mean, low, high = (numbers(curve[part]) for part in ("mean", "low", "high"))
    where = np.arange(len(mean)) if index is None else index
    draw_line(axes, where, mean, look, label=label)
    draw_band(axes, where, low, high, look)


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
                figures[f"{name}_{kind}"] = draw(chosen, name)
    return save_figures(figures, directory)


def plot_by_area(parts: Curves, measure: str) -> Figure:
    """Draw the curve of each part of the houses, from small to large."""
    figure, axes = panel()
    for look, (part, curve) in zip(ordered_looks(len(parts)), parts.items(), strict=True):
        band(axes, curve, look, label=part)
    score_axis(axes, measure)
    legend_beside(axes, title="houses of")
    episodes_axis(axes)
    return figure


def plot_by_goal(parts: Curves, measure: str) -> Figure:
    """Draw what each goal category reaches early and late in its trials, the best at the top."""
    order = sorted(parts, key=lambda name: (_late_mean(parts[name]), name))
    figure, axes = panel(7, 1.2 + 0.26 * len(order))
    place_P = np.arange(len(order))
    bands = (("early", "first", CONTROL, -0.13), ("late", "last", AGENT, 0.13))
    for name, quarter, look, shift in bands:
        mean, low, high = (
            numbers([parts[part][name][number] for part in order])
            for number in ("mean", "low", "high")
        )
        axes.hlines(place_P + shift, low, high, color=look.colour, alpha=0.35, lw=3)
        axes.plot(mean, place_P + shift, look.marker, color=look.colour, ms=5,
                  label=f"{quarter} quarter")  # fmt: skip
    axes.set_yticks(place_P, [part.replace("_", " ") for part in order])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlabel(f"{label(measure)} in the first and last quarter of the episodes")
    if measure in SHARES:
        per_cent(axes.xaxis)
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
    figure, axes = panels(
        2, 1, width=7, height=5.2, sharex=True, gridspec_kw={"height_ratios": (5, 2)}
    )
    upper, lower = axes[:, 0]
    most = result.counts[-1] + 1
    own = _first(to_plain(effect.own), most)
    shown = to_plain(result.at_first(measure, "demonstrated"))
    theirs = "the expert's" if result.demonstrations == "expert" else "the demonstrator's"
    if effect.demonstrator.mean:
        mean = sum(m for m in effect.demonstrator.mean if m is not None)
        level = mean / len(effect.demonstrator.mean)
        draw_reference(upper, level, f"{theirs} own {label(measure)}")
    band(upper, own, AGENT, label="after its own episodes")
    text = f"after {theirs} episodes"
    band(upper, shown, CONTROL, label=text, index=result.counts)
    score_axis(upper, measure, f"{label(measure)} in the next episode")
    legend_above(figure, upper)
    difference = to_plain(result.at_first(measure, "difference"))
    _draw_difference(lower, result.counts, difference, measure)
    episodes_axis(lower)
    return figure


def _first(curve: Mapping[str, Sequence[Any]], count: int) -> dict[str, Sequence[Any]]:
    return {part: values[:count] for part, values in curve.items()}


def _draw_difference(
    axes: Axes, counts: Sequence[int], curve: Mapping[str, Sequence[Any]], measure: str
) -> None:
    axes.axhline(0.0, color=REFERENCE, lw=0.8)
    for count, mean, low, high in zip(
        counts, curve["mean"], curve["low"], curve["high"], strict=True
    ):
        if low is not None:
            axes.plot([count, count], [low, high], color=CONTROL.colour, lw=1.5)
        axes.plot(count, mean, CONTROL.marker, color=CONTROL.colour, markersize=4)
    axes.set_ylabel("difference")
    if measure in SHARES:
        per_cent(axes.yaxis)
