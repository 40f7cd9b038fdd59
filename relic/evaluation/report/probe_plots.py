"""Pictures of what demonstrations in the context are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from relic.evaluation.probe import ProbeResult
from relic.evaluation.report.plots import AGENT, CONTROL, band, label, tidy
from relic.schema import to_plain


def plot_probe(result: ProbeResult, measure: str) -> Figure:
    """Draw a measure against the number of episodes in the context, shown or the policy's own.

    The lower panel is the paired difference; its intervals are those to read, since the bands
    above share the spread of the trials.
    """
    comparison = result.measures[measure]
    figure = Figure(figsize=(7, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (5, 2)})
    most = result.counts[-1] + 1
    own = _first(to_plain(comparison.own), most)
    shown = to_plain(result.at_first(measure, "demonstrated"))
    theirs = "the expert's" if result.demonstrations == "expert" else "the demonstrator's"
    if comparison.demonstrator.mean:
        mean = sum(m for m in comparison.demonstrator.mean if m is not None)
        level = mean / len(comparison.demonstrator.mean)
        upper.axhline(level, color="#7a828c", ls=":", label=f"{theirs} own {label(measure)}")
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


def _draw_difference(axes: Any, counts: Sequence[int], curve: Mapping[str, Sequence[Any]]) -> None:
    axes.axhline(0.0, color="#7a828c", lw=0.8)
    for count, mean, low, high in zip(
        counts, curve["mean"], curve["low"], curve["high"], strict=True
    ):
        if low is not None:
            axes.plot([count, count], [low, high], color=CONTROL, lw=1.5)
        axes.plot(count, mean, "o", color=CONTROL, markersize=4)
    axes.set_ylabel("difference")
