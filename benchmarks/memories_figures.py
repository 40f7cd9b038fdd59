"""Figures of `memories.py`, one a task: learning curves, what memories gain, and how far back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from memories_report import LAGS, Result, by_memory, lag_words
from memories_tables import MEMORIES, Task

from relic.figures import (
    BLUE,
    LOOKS,
    REFERENCE,
    draw_band,
    draw_line,
    panels,
    save_figure,
    score_axis,
    steps_axis,
)
from relic.measures import SHARES

KINDS = {True: "memories that attend to steps", False: "memories of one size"}


def draw(task: Task, found: Sequence[Result], oracle: Result | None, path: Path) -> None:
    """Draw what the memories of a task came to.

    Args:
        task: The task.
        found: Results of all memories and seeds.
        oracle: What the memory oracle came to.
        path: The PNG file; a PDF file is written beside it.
    """
    lagged = any(result.by_lag for result in found)
    figure, axes = panels(1 + lagged, 3, width=12.0, height=3.6 * (1 + lagged))
    for column, attends in enumerate(KINDS):
        own = {m: r for m, r in by_memory(found).items() if MEMORIES[m].attends is attends}
        _curves(axes[0, column], task, own)
        axes[0, column].set_title(KINDS[attends], fontsize="medium")
        if lagged:
            _lags(axes[1, column], task, own, oracle)
        for panel in axes[:, column]:
            panel.set_visible(bool(own))
    for pair in axes[:, :2]:
        limits = np.array([panel.get_ylim() for panel in pair if panel.get_visible()])
        for panel in pair:
            panel.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    _worth(axes[0, 2], task, by_memory(found))
    if lagged:
        axes[1, 2].set_visible(False)
    save_figure(figure, path)


def _curves(axes: Axes, task: Task, found: dict[str, list[Result]]) -> None:
    """Draw scores of training, with bands over seeds."""
    for look, (memory, own) in zip(LOOKS, found.items(), strict=False):
        seeds = [np.array(result.curve).T for result in own if result.curve]
        if not seeds:
            continue
        steps = seeds[0][0]
        score_SP = np.array([np.interp(steps, *seed) for seed in seeds])
        draw_line(axes, steps, score_SP.mean(axis=0), look, label=MEMORIES[memory].title)
        draw_band(axes, steps, score_SP.min(axis=0), score_SP.max(axis=0), look)
    steps_axis(axes)
    score_axis(axes, task.measure)
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")


def _worth(axes: Axes, task: Task, found: dict[str, list[Result]]) -> None:
    """Draw kept minus cleared: of one seed with its interval, of several with their span."""
    for place, own in enumerate(found.values()):
        values = np.array([r.worth for r in own if None not in r.worth], np.float64)
        if not len(values):
            continue
        span = values[0, 1:] if len(values) == 1 else values[:, 0]
        axes.barh(place, values[:, 0].mean(), color=BLUE, alpha=0.6)
        axes.plot([span.min(), span.max()], [place, place], color=REFERENCE, lw=1.6)
    axes.set_yticks(range(len(found)), [MEMORIES[memory].title for memory in found])
    axes.invert_yaxis()
    axes.axvline(0.0, color=REFERENCE, lw=0.8)
    unit = " (points)" if task.measure in SHARES else ""
    axes.set_xlabel(f"{task.measure}, kept minus cleared{unit}")
    if task.measure in SHARES:
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0, symbol="", decimals=0))


def _lags(axes: Axes, task: Task, found: dict[str, list[Result]], oracle: Result | None) -> None:
    """Draw scores with the context kept by how many steps ago the goal was in view."""
    lags = [lag for lag in LAGS if any(lag in r.by_lag for own in found.values() for r in own)]
    for look, own in zip(LOOKS, found.values(), strict=False):
        seeds = [[r.by_lag.get(lag, [np.nan])[0] for lag in lags] for r in own if r.by_lag]
        if seeds:
            score_SL, places = np.array(seeds, float), np.arange(len(lags))
            draw_line(axes, places, score_SL.mean(axis=0), look, label="_")
            draw_band(axes, places, score_SL.min(axis=0), score_SL.max(axis=0), look)
    if oracle is not None and oracle.by_lag:
        told = np.array([oracle.by_lag.get(lag, [np.nan])[0] for lag in lags], float)
        axes.plot(range(len(lags)), told, color=REFERENCE, ls=":", lw=1.2, label="memory oracle")
    axes.set_xticks(
        range(len(lags)), map(lag_words, lags), rotation=30, ha="right", rotation_mode="anchor"
    )
    axes.set_xlabel("steps since the goal was in view")
    score_axis(axes, task.measure)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.97), frameon=False, fontsize="small")
