"""Pictures of single trials: where an agent went, and what it attended to.

Shapes: T steps, Q some of them, K places.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from relic.evaluation.maps import Positions
from relic.evaluation.recorded_trial import RecordedTrial, Shares, TrialAttention
from relic.figures import BLUE, ORANGE, SHADES
from relic.measures import label
from relic.schema import choice

GOAL, SINK = "#c92a3a", "#aab2bd"
_AREA = 600.0
"""Of the dot that all attention goes to, in square points."""


def plot_paths(recorded: RecordedTrial, episodes: Sequence[int], measure: str = "return") -> Figure:
    """Draw the ways of some episodes, early steps dark and late ones light.

    Args:
        recorded: The trial.
        episodes: Their indices.
        measure: Of the records, written above each.

    Raises:
        ConfigError: If there is no such episode or measure.
    """
    choice(measure, recorded.records[0], "measure")
    for index in episodes:
        choice(index, range(len(recorded.records)), "episodes")
    figure = Figure(figsize=(2.3 * len(episodes), 2.75), layout="constrained")
    for axes, index in zip(_row(figure, len(episodes)), episodes, strict=True):
        recorded.map.draw(axes)
        steps = recorded.episode(index)
        _draw_way(axes, recorded.position_T2[steps])
        mark_goals(axes, recorded.goals(index))
        whose = "shown" if index < recorded.shown else "own"
        value = float(recorded.records[index][measure])
        axes.set_title(f"episode {index} ({whose})\n{label(measure)} {value:.3g}", fontsize=9)
    return figure


def plot_shares(shares: Shares, *, smooth: int = 15) -> Figure:
    """Draw how the attention of each head is divided, step by step.

    Args:
        shares: Of a trial.
        smooth: Steps that are averaged, for the eye.
    """
    layers, heads, _ = shares.sink_LHT.shape
    figure = Figure(figsize=(3.0 * heads, 1.7 * layers + 0.5), layout="constrained")
    panels = figure.subplots(layers, heads, sharex=True, sharey=True, squeeze=False)
    begins = np.flatnonzero(np.diff(shares.episode_T)) + 1
    parts = (shares.sink_LHT, shares.own_LHT, shares.earlier_LHT)
    names = ("sink", "this episode", "earlier episodes")
    for (layer, head), axes in np.ndenumerate(panels):
        stack = [_averaged(part[layer, head], smooth) for part in parts]
        axes.stackplot(np.arange(len(stack[0])), stack, colors=(SINK, BLUE, ORANGE), labels=names)
        for begin in begins:
            axes.axvline(begin, color="white", lw=0.6)
        axes.set(xlim=(0, len(stack[0]) - 1), ylim=(0, 1))
        axes.set_title(f"layer {layer}, head {head}", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("step of the trial")
    for axes in panels[:, 0]:
        axes.set_ylabel("attention")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def plot_where(attention: TrialAttention, step: int) -> Figure:
    """Draw where the steps were that each head attends to from one step.

    Dots lie where steps of earlier episodes were, with an area in proportion to the attention that
    they get; steps at one place add up. The number is the share that goes to earlier episodes. The
    first panel is what a head would show that attends to all of these alike.
    """
    recorded = attention.recorded
    weight_LHT = attention.to_steps(slice(step, step + 1))
    layers, heads, _ = weight_LHT.shape
    episode = int(recorded.episode_T[step])
    earlier_T = recorded.episode_T < episode
    figure = Figure(figsize=(2.2 * (heads + 1), 2.5 * layers), layout="constrained")
    panels = figure.subplots(layers, heads + 1, squeeze=False)
    for axes in panels[1:, 0]:
        axes.set_axis_off()
    alike_T = earlier_T / max(earlier_T.sum(), 1)
    shown = [(panels[0, 0], alike_T, "all earlier steps alike")]
    for (layer, head), axes in np.ndenumerate(panels[:, 1:]):
        weight_T = np.where(earlier_T, weight_LHT[layer, head], 0.0)
        shown.append((axes, weight_T, f"layer {layer}, head {head}: {100 * weight_T.sum():.0f} %"))
    for axes, weight_T, title in shown:
        recorded.map.draw(axes)
        draw_weights(axes, recorded.position_T2, weight_T)
        mark_goals(axes, recorded.goals(episode))
        axes.plot(*recorded.position_T2[step], "*", color="black", markersize=10, zorder=5)
        axes.set_title(title, fontsize=9)
    return figure


def draw_weights(axes: Axes, position_T2: Positions, weight_T: np.ndarray) -> None:
    """Draw a dot at each place, with an area in proportion to the weights there."""
    place_K2, index_T = np.unique(np.round(position_T2, 2), axis=0, return_inverse=True)
    weight_K = np.bincount(index_T.ravel(), weight_T, len(place_K2))
    axes.scatter(*place_K2.T, s=_AREA * weight_K, color=ORANGE, alpha=0.8, lw=0, zorder=3)


def mark_goals(axes: Axes, place_K2: Positions) -> None:
    """Ring the places that satisfy the goal."""
    axes.scatter(*place_K2.T, s=130, facecolors="none", edgecolors=GOAL, lw=2, zorder=4)


def _draw_way(axes: Axes, position_T2: Positions) -> None:
    segments = np.stack([position_T2[:-1], position_T2[1:]], axis=1)
    lines = LineCollection(list(segments), cmap=SHADES, lw=2.5, capstyle="round")
    lines.set_array(np.arange(len(segments)))
    axes.add_collection(lines)
    axes.plot(*position_T2[0], "o", color="white", markeredgecolor="black", markersize=6)


def _row(figure: Figure, count: int) -> Sequence[Axes]:
    return figure.subplots(1, count, squeeze=False)[0]


def _averaged(value_T: np.ndarray, width: int) -> np.ndarray:
    """Return running means; at the ends, of what there is."""
    window = np.ones(width)
    total_T = np.convolve(value_T, window, mode="same")
    return total_T / np.convolve(np.ones_like(value_T), window, mode="same")
