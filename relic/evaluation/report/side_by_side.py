"""Evaluations of several runs or checkpoints side by side: one table, one plot per measure.

All were made by one protocol, but for its limit of the context, so that they are of the same
trials: differences are paired.

Shapes: U units (a trial, evaluated once).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from relic.evaluation.curves import RISING, Interval, gain, interval, tabulate, varies
from relic.evaluation.protocol import limit_words
from relic.evaluation.records import Record
from relic.evaluation.report.html import document, picture, table
from relic.evaluation.report.plots import band, mark_trained, numbers, trained_context
from relic.evaluation.report.text import aligned, estimate, points
from relic.figures import (
    GREY,
    LOOKS,
    MOST_LINES,
    episodes_axis,
    legend_above,
    legend_beside,
    lower_edge,
    ordered_looks,
    panel,
    panels,
    save_figures,
    score_axis,
    steps_axis,
)
from relic.files import write_json, write_text
from relic.measures import label, number

TABLE_FILE = "comparison.json"
PAGE_FILE = "comparison.html"
_FACTS = ("env_steps", "protocol_hash", "context_limit", "trained_steps", "trained_episodes")
_HEAD = (
    "run", "env steps", "first episode", "episode {late}", "gain", "last quarter of episodes",
    "mean over episodes", "mean minus first row",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One evaluation."""

    run: str
    """The run, as it is called here."""
    checkpoint: str
    summary: Mapping[str, Any]
    records: Sequence[Record]


def side_by_side(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the table of evaluations that were made by one protocol.

    Returns:
        `protocol`, `protocol_hash` and `entries`, each with `name`, `run`, `checkpoint`,
        `env_steps`, `protocol_hash`, `context_limit`, `trained_steps`, `trained_episodes`, and
        under `metrics.<name>`: `mean`, `low`, `high` by episode index, `first` and `late` (the
        means at the indices that the gain is between, `to_episode` the later, which is the same
        for all entries), `gain`, `area`,
        `tail` (as the area, over the last quarter of the episodes) and `difference`: of the area
        to the first entry's, paired over trials.
    """
    names = _names(entries)
    # One for all, or a head over them would be wrong of some: where trials are limited by steps,
    # not all have as many episodes.
    late = {m: min(tabulate(e.records, m).late for e in entries) for m in _measures(entries)}
    return {
        "format": 1,
        "protocol": entries[0].summary["protocol"],
        "protocol_hash": entries[0].summary["protocol_hash"],
        "entries": [
            {
                "name": name,
                "run": entry.run,
                "checkpoint": entry.checkpoint,
                **{fact: entry.summary[fact] for fact in _FACTS},
                "metrics": {m: _measure(entry, entries[0], m, late[m]) for m in late},
            }
            for name, entry in zip(names, entries, strict=True)
        ],
    }


def write_side_by_side(entries: Sequence[Entry], directory: Path) -> dict[str, Any]:
    """Write table, plots and a page about them, and return the table."""
    directory.mkdir(parents=True, exist_ok=True)
    comparison = side_by_side(entries)
    write_json(directory / TABLE_FILE, comparison)
    figures = {}
    for name in _measures(entries):
        if not varies(entry["metrics"][name] for entry in comparison["entries"]):
            continue
        figures[name] = plot_curves(comparison, name)
        if _is_sweep(comparison):
            figures[f"{name}_by_steps"] = plot_by_steps(comparison, name)
    plots = save_figures(figures, directory / "plots")
    write_text(directory / PAGE_FILE, page(comparison, plots))
    return comparison


def describe_side_by_side(comparison: Mapping[str, Any]) -> str:
    """Return the table as a short text."""
    lines = [f"{comparison['protocol']} ({comparison['protocol_hash']}), 95 % intervals"]
    for name in comparison["entries"][0]["metrics"]:
        head, rows = _cells(comparison, name)
        lines += [f"\n{label(name)}", *aligned([head, *rows])]
    return "\n".join(lines)


def page(comparison: Mapping[str, Any], plots: Sequence[Path]) -> str:
    """Return the page as text."""
    pictures = {path.stem: path for path in plots}
    sections = [
        f"<p>All were evaluated by protocol {escape(comparison['protocol'])} "
        f"({escape(comparison['protocol_hash'])}), on the same trials. Intervals are 95 % "
        "bootstrap intervals over houses or trials, in brackets; differences to the first row are "
        "paired.</p>"
    ]
    if _has_limits(comparison["entries"]):
        sections.append(
            "<p>They differ in how much of its trial the agent remembers, and with it in the "
            "protocol's hash; the one above is the first row's.</p>"
        )
    for name in comparison["entries"][0]["metrics"]:
        sections.append(f"<h2>{escape(label(name))}</h2>")
        for stem, text in (
            (name, f"{label(name)} against the number of episodes in the context"),
            (f"{name}_by_steps", f"{label(name)} against environment steps of training"),
        ):
            if stem in pictures:
                sections.append(picture(pictures[stem], text))
        sections.append(table(*_cells(comparison, name), "cards"))
    title = "Evaluations side by side: " + ", ".join(e["name"] for e in comparison["entries"])
    return document(title, sections)


def plot_curves(comparison: Mapping[str, Any], name: str) -> Figure:
    """Draw a measure against the number of episodes in the context, a curve per entry.

    More entries than one panel can show get a panel each, over all others in grey.
    """
    entries = comparison["entries"]
    ordered = len({entry["run"] for entry in entries}) == 1 and not _has_limits(entries)
    looks = ordered_looks(len(entries)) if ordered else LOOKS
    same = len({entry["trained_steps"] for entry in entries}) == 1
    trained = trained_context(entries[0]) if same else None
    curves = [entry["metrics"][name] for entry in entries]
    if len(entries) <= MOST_LINES:
        figure, axes = panel(8, 4.5)
        for look, entry, curve in zip(looks, entries, curves, strict=False):
            band(axes, curve, look, label=entry["name"])
        mark_trained(axes, trained)
        score_axis(axes, name)
        legend_above(figure, axes)
        episodes_axis(axes)
        return figure
    figure, grid = _grid(len(entries))
    for axes, entry, curve in zip(grid.flat, entries, curves, strict=False):
        for other in curves:
            axes.plot(numbers(other["mean"]), color=GREY, lw=0.8)
        band(axes, curve, LOOKS[0], label=entry["name"])
        mark_trained(axes, trained)
        axes.set_title(entry["name"], fontsize=9)
    _name_axes(grid, len(entries), name, episodes_axis)
    return figure


def plot_by_steps(comparison: Mapping[str, Any], name: str) -> Figure:
    """Draw the first episode and a late one against environment steps, a panel per series."""
    series = _series(comparison["entries"])
    runs = list(dict.fromkeys(series))
    figure, grid = _grid(len(runs))
    late = comparison["entries"][0]["metrics"][name]["to_episode"]
    for axes, run in zip(grid.flat, runs, strict=False):
        of_run = (
            entry
            for entry, own in zip(comparison["entries"], series, strict=True)
            if own == run and entry["env_steps"] is not None
        )
        entries = sorted(of_run, key=lambda entry: entry["env_steps"])
        steps = [entry["env_steps"] for entry in entries]
        metrics = [entry["metrics"][name] for entry in entries]
        texts = {"late": f"after {late} episodes", "first": "first episode"}
        for look, (part, text) in zip(LOOKS, texts.items(), strict=False):
            curve = {k: [m[part][k] for m in metrics] for k in ("mean", "low", "high")}
            band(axes, curve, look, label=text, index=steps)
        if len(runs) > 1:
            axes.set_title(run, fontsize=9)
    _name_axes(grid, len(runs), name, steps_axis)
    legend_beside(grid[0, -1], handles=grid[0, 0].get_legend_handles_labels()[0])
    return figure


def _grid(count: int) -> tuple[Figure, NDArray[Any]]:
    """Return a figure of panels with the same axes, three in a row."""
    columns = min(count, 3)
    rows = -(-count // columns)
    figure, grid = panels(
        rows, columns, width=max(8.0, 3.6 * columns), height=max(4.5, 2.6 * rows),
        sharex=True, sharey=True,
    )  # fmt: skip
    return figure, grid


def _name_axes(
    grid: NDArray[Any], count: int, measure: str, name_x: Callable[[Axes], object]
) -> None:
    """Name the axes of the first panels, at the left and the lower edge; hide the others."""
    for axes in grid[:, 0]:
        score_axis(axes, measure)
    for axes in lower_edge(grid, count):
        name_x(axes)


def _names(entries: Sequence[Entry]) -> list[str]:
    """Name entries as shortly as tells them apart."""
    runs = [entry.run for entry in entries]
    if len(set(runs)) == len(entries):
        return runs
    checkpoints = [entry.checkpoint for entry in entries]
    limits = [limit_words(entry.summary["context_limit"]) for entry in entries]
    places = [" ".join(p) for p in zip(*_differing(runs, checkpoints), strict=True)]
    telling = _differing(places, limits) or [checkpoints]
    return [", ".join(parts) for parts in zip(*telling, strict=True)]


def _differing(*parts: list[str]) -> list[list[str]]:
    """Return the parts of names that are not the same for all."""
    return [part for part in parts if len(set(part)) > 1]


def _has_limits(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether entries differ in the limit of the context."""
    return len({entry["context_limit"] for entry in entries}) > 1


def _series(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what each entry is a checkpoint of: a run, within one limit."""
    if not _has_limits(entries):
        return [entry["run"] for entry in entries]
    return [f"{entry['run']}, {limit_words(entry['context_limit'])}" for entry in entries]


def _measures(entries: Sequence[Entry]) -> list[str]:
    having = [set(entry.summary["metrics"]) for entry in entries]
    return [name for name in RISING if all(name in measures for measures in having)]


def _measure(entry: Entry, first: Entry, name: str, late: int) -> dict[str, Any]:
    curve = entry.summary["metrics"][name]

    def at(index: int) -> Interval:
        return {part: curve[part][index] for part in ("mean", "low", "high")}

    table = tabulate(entry.records, name)
    common = max(table.common, 1)
    tail_U = table.value_UI[:, common - -(-common // 4) : common].mean(axis=1)
    return {
        **{part: curve[part] for part in ("mean", "low", "high", "count")},
        "first": at(0),
        "late": at(late),
        "to_episode": late,
        "gain": gain(table, late),
        "area": entry.summary["area"][name],
        "tail": interval(tail_U, table.cluster_U),
        "difference": None if entry is first else _difference(entry, first, name),
    }


def _difference(entry: Entry, first: Entry, name: str) -> Interval:
    """Return how much a trial's mean is above the first entry's, over episodes both have."""
    # Where trials are limited by steps, some may have no whole episode in one of the two.
    units = set.intersection(*({_unit(r) for r in e.records} for e in (entry, first)))
    own, other = (
        tabulate([r for r in e.records if _unit(r) in units], name) for e in (entry, first)
    )
    common = max(min(own.common, other.common), 1)
    own_U, other_U = (t.value_UI[:, :common].mean(axis=1) for t in (own, other))
    return interval(own_U - other_U, own.cluster_U)


def _unit(record: Record) -> tuple[int, int]:
    return record["repeat"], record["trial"]


def _cells(comparison: Mapping[str, Any], name: str) -> tuple[list[str], list[list[str]]]:
    entries = comparison["entries"]
    late = entries[0]["metrics"][name]["to_episode"]
    head = [title.format(late=late) for title in _HEAD]
    return head, [list(_row(entry, name)) for entry in entries]


def _row(entry: Mapping[str, Any], name: str) -> Iterator[str]:
    values = entry["metrics"][name]
    yield entry["name"]
    yield "-" if entry["env_steps"] is None else f"{entry['env_steps']:,}"
    yield number(values["first"]["mean"], name)
    yield number(values["late"]["mean"], name)
    for part in ("gain", "tail", "area", "difference"):
        shown = "-" if values[part] is None else estimate(values[part], name)
        yield points(shown) if part in ("gain", "difference") else shown


def _is_sweep(comparison: Mapping[str, Any]) -> bool:
    """Say whether some run is there at several numbers of steps."""
    entries = comparison["entries"]
    series = _series(entries)
    places = {(own, e["env_steps"]) for own, e in zip(series, entries, strict=True)}
    return len(places) > len(set(series))
