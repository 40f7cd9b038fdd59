"""The look of all figures: colours, lines, panels, scales, and how figures are saved.

Lines differ in colour, style and marker, so that they can be told apart in grey and by readers who
do not see all colours. Five lines are the most that one panel shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
from matplotlib.typing import ColorType
from numpy.typing import NDArray

from relic.measures import SHARES, label

DPI = 200
BLUE, ORANGE, GREEN, PURPLE, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
"""Of Okabe and Ito's colours, which readers with any kind of colour vision can tell apart."""
REFERENCE = "#52606d"
"""Of lines that a curve is held against."""
GRID, GREY = "#dde1e7", "#b5bcc6"
SHADES = colormaps["viridis"]
"""Of things that have an order, from dark to light."""
Dashes = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Look:
    """How a line is drawn."""

    colour: ColorType
    line: Dashes
    marker: str


_STYLES: tuple[tuple[Dashes, str], ...] = (
    ("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"), ((0, (6, 1.5)), "v"),
)  # fmt: skip
LOOKS = tuple(
    Look(colour, line, marker)
    for colour, (line, marker) in zip((BLUE, ORANGE, GREEN, PURPLE, YELLOW), _STYLES, strict=True)
)
"""One a line, in order."""
MOST_LINES = len(LOOKS)
MOST_MARKERS = 20
"""On a line; more would hide the lines below."""


def ordered_looks(count: int) -> list[Look]:
    """Return looks of things that have an order, from dark to light."""
    return [
        Look(SHADES(0.85 * place / max(count - 1, 1)), "-", _STYLES[place % MOST_LINES][1])
        for place in range(count)
    ]


def panels(
    rows: int, columns: int, *, width: float, height: float, **options: Any
) -> tuple[Figure, NDArray[Any]]:
    """Return a figure with rows and columns of panels.

    Args:
        rows: Of panels.
        columns: Of panels.
        width: Of the figure, in inches.
        height: Of the figure, in inches.
        options: Of `Figure.subplots`.
    """
    # Not by pyplot, which would choose a backend for whoever imports this.
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for each in axes.flat:
        tidy(each)
    return figure, axes


def panel(width: float = 7.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """Return a figure with one panel, in inches."""
    figure, axes = panels(1, 1, width=width, height=height)
    return figure, axes[0, 0]


def lower_edge(grid: NDArray[Any], count: int) -> list[Axes]:
    """Hide the panels after the first `count`; return the lowest of each column, with its numbers.

    Args:
        grid: Panels that share their horizontal axis, as `panels` returns them.
        count: Panels that are drawn into.
    """
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    columns = grid.shape[1]
    lowest = [grid.flat[place] for place in range(max(count - columns, 0), count)]
    for axes in lowest:
        axes.tick_params(labelbottom=True)
    return lowest


def tidy(axes: Axes) -> None:
    """Give a panel the look of the others."""
    axes.grid(color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_line(
    axes: Axes,
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    look: Look,
    *,
    label: str,
    marked: bool = True,
    width: float = 1.6,
) -> None:
    """Draw a line; without markers only where it has more than one point to be seen by."""
    marker = look.marker if marked or len(x) == 1 else ""
    every = -(-len(x) // MOST_MARKERS) or 1
    axes.plot(x, y, color=look.colour, linestyle=look.line, marker=marker, markersize=4,
              markevery=every, lw=width, label=label)  # fmt: skip


def draw_band(axes: Axes, x: Sequence[float] | np.ndarray, low: Any, high: Any, look: Look) -> None:
    """Shade what an interval or the seeds of a line span."""
    axes.fill_between(x, low, high, color=look.colour, alpha=0.18, lw=0)


def draw_reference(axes: Axes, level: float, text: str, *, line: Dashes = ":") -> None:
    """Draw a level that curves are held against."""
    axes.axhline(level, color=REFERENCE, linestyle=line, lw=1.2, label=text)


def score_axis(axes: Axes, measure: str, title: str | None = None) -> None:
    """Name the vertical axis after a measure; shares are shown in per cent, from zero on."""
    axes.set_ylabel(label(measure) if title is None else title)
    if measure in SHARES:
        axes.set_ylim(bottom=0.0)
        per_cent(axes.yaxis)


def per_cent(axis: Axis) -> None:
    """Show the shares along an axis in per cent."""
    axis.set_major_formatter(PercentFormatter(xmax=1.0, symbol=" %", decimals=0))


def steps_axis(axes: Axes) -> None:
    """Let the horizontal axis be environment steps."""
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter(EngFormatter(sep="\N{NARROW NO-BREAK SPACE}"))


def episodes_axis(axes: Axes) -> None:
    """Let the horizontal axis be the number of episodes in the context."""
    axes.set_xlabel("episodes already in context")
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def legend_beside(axes: Axes, **options: Any) -> None:
    """Write the legend to the right of the panel, where it hides no curve."""
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), **options)


def legend_above(figure: Figure, axes: Axes) -> None:
    """Write the legend of a panel above the figure, which leaves the panel its width."""
    handles, texts = axes.get_legend_handles_labels()
    widest = 0.6 + 0.08 * max(map(len, texts))  # inches of an entry, by the size of the font
    columns = min(max(int(figure.get_figwidth() / widest), 1), 3)
    figure.legend(handles, texts, loc="outside upper left", ncols=columns, frameon=False)


def save_figures(figures: Mapping[str, Figure], directory: Path) -> list[Path]:
    """Write figures as PNG and PDF files of their names, and return the PNG files."""
    directory.mkdir(parents=True, exist_ok=True)
    return [save_figure(figure, directory / f"{name}.png") for name, figure in figures.items()]


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as the PNG file and as a PDF file beside it; return the first."""
    _write(figure, path, dpi=DPI)
    # Without the date, a figure that is drawn again has the same bytes.
    _write(figure, path.with_suffix(".pdf"), metadata={"CreationDate": None})
    return path


def _write(figure: Figure, path: Path, **options: Any) -> None:
    """Write or replace a file of the format that its name says; readers see all of one of them."""
    temporary = path.with_name(path.name + ".tmp")
    figure.savefig(temporary, format=path.suffix[1:], **options)
    temporary.replace(path)
