"""`live.html` in a run directory: what a run has done so far, in any browser, while it goes on.

The page is written anew every few seconds, and the browser loads it again; it needs no server, and
nothing of it is read when a run is resumed. Charts are drawn as SVG here, because Matplotlib would
cost each refresh what a page costs in all.

Shapes: P points of a line.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from relic.evaluation.report.html import document, table
from relic.files import write_text
from relic.measures import SHARES, label

_log = logging.getLogger(__name__)
EVERY_S = 10
_POINTS = 300
"""Most of a line; a longer one shows each n-th point and the last."""
_DOTS = 30
"""Up to as many points of a line are marked: one alone could not be seen."""
_WIDTH, _HEIGHT, _LEFT, _LOW = 420, 190, 52, 22
_LINES = (("#0072B2", ""), ("#D55E00", "6 3"))
_STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem;
          margin-top: 1rem; }
figure { margin: 0; } figcaption { font-size: .9rem; }
svg { width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--faint); }
svg .frame { stroke: var(--line); fill: none; }
"""
_CHARTS: dict[str, dict[str, str]] = {
    "success": {"success_mean": "training", "val/success": "validation"},
    "return": {"return_mean": "training", "val/return": "validation"},
    "entropy": {"entropy": ""},
    "policy_loss": {"policy_loss": ""},
    "value_loss": {"value_loss": ""},
    "goal_location_error": {"goal_location_error": ""},
    "recall_error": {"recall_error": ""},
    "lesson_recall_error": {"lesson_recall_error": ""},
    "approx_kl": {"approx_kl": ""},
    "explained_variance": {"explained_variance": ""},
    "steps per second": {"sps": ""},
}
"""Metrics of each chart, with what their lines are called where there are several."""


class LivePage:
    """Shows the metrics of a run; a failure to write is said once and stops nothing."""

    def __init__(self, path: Path, total_steps: int, metrics: Sequence[Mapping[str, Any]] = ()):
        """Prepare the page.

        Args:
            path: The file.
            total_steps: Environment steps that the run will have.
            metrics: Of the run so far.
        """
        self._path, self._total_steps = path, total_steps
        self._metrics = list(metrics)
        self._written_s = -float(EVERY_S)
        self._failed = False

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Take the metrics of an update, and write the page if the last time is long enough ago."""
        self._metrics.append(metrics)
        if time.monotonic() - self._written_s >= EVERY_S:
            self._write(refresh_s=EVERY_S)

    def close(self) -> None:
        """Write the page for the last time; it no longer refreshes."""
        if self._metrics:
            self._write(refresh_s=None)

    def _write(self, *, refresh_s: int | None) -> None:
        if self._failed:
            return
        self._written_s = time.monotonic()
        name = self._path.parent.name
        try:
            write_text(self._path, page(name, self._metrics, self._total_steps, refresh_s))
        except (OSError, ArithmeticError, ValueError) as error:  # the run does not depend on it
            self._failed = True
            _log.warning("%s is no longer written: %s.", self._path, error)


def page(
    name: str, metrics: Sequence[Mapping[str, Any]], total_steps: int, refresh_s: int | None
) -> str:
    """Return the page as text.

    Args:
        name: Of the run.
        metrics: Of its updates so far, at least one.
        total_steps: Environment steps that the run will have.
        refresh_s: Seconds after which a browser loads the page again. None: the run has ended.
    """
    newest: dict[str, Any] = {}
    for line in metrics:
        newest |= line
    steps = newest["env_steps"]
    state = "training" if refresh_s else "ended, or stopped"
    facts = [
        ("state", state),
        ("environment steps", f"{steps:,} of {total_steps:,} ({100 * steps / total_steps:.0f} %)"),
        ("written", time.strftime("%Y-%m-%d %H:%M:%S")),
    ]
    if refresh_s and _is_number(newest.get("sps")) and newest["sps"] > 0 and steps < total_steps:
        left_min = (total_steps - steps) / newest["sps"] / 60
        facts.append(("time left at this speed", f"{left_min:,.0f} min"))
    charts = (_chart(title, lines, metrics) for title, lines in _CHARTS.items())
    sections = [table([], facts, "facts"), f'<div class="charts">{"".join(charts)}</div>']
    return document(name, sections, style=_STYLE, refresh_s=refresh_s)


def _chart(title: str, lines: Mapping[str, str], metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return a figure with the lines that there are; nothing if there are none."""
    points = {
        text: [(m["env_steps"], m[key]) for m in metrics if _is_number(m.get(key))]
        for key, text in lines.items()
    }
    points = {text: _thinned(line) for text, line in points.items() if line}
    if not points:
        return ""
    values = [y for line in points.values() for _, y in line]
    low, high = min(values), max(values)
    if title in SHARES:
        low, high = 0.0, max(high, 0.1)
    if high == low:
        # A half is nothing beside large numbers.
        apart = max(0.5, 0.001 * abs(low))
        low, high = low - apart, high + apart
    last = max(x for line in points.values() for x, _ in line)
    drawn, legend = "", []
    for (colour, dashes), (text, line) in zip(_LINES, points.items(), strict=False):
        drawn += _line(line, colour, dashes, low, high, last)
        sample = "- -" if dashes else "\N{EM DASH}"
        if text:
            legend.append(f' <span style="color:{colour}">{sample}</span> {text}')
    frame = (
        f'<path class="frame" d="M{_LEFT} 4V{_HEIGHT - _LOW}H{_WIDTH - 4}"/>'
        f'<text x="{_LEFT - 4}" y="12" text-anchor="end">{_number(high, title)}</text>'
        f'<text x="{_LEFT - 4}" y="{_HEIGHT - _LOW}" text-anchor="end">{_number(low, title)}</text>'
        f'<text x="{_WIDTH - 4}" y="{_HEIGHT - 6}" text-anchor="end">{last:,} steps</text>'
    )
    name = escape(label(title))
    return (
        f"<figure><figcaption>{name}{''.join(legend)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name} against steps">'
        f"{frame}{drawn}</svg></figure>"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _line(
    line: Sequence[tuple[float, float]],
    colour: str,
    dashes: str,
    low: float,
    high: float,
    last: float,
) -> str:
    across, up = _WIDTH - 4 - _LEFT, _HEIGHT - _LOW - 4
    places = [
        (_LEFT + across * x / max(last, 1), 4 + up * (1 - (y - low) / (high - low)))
        for x, y in line
    ]
    dots = ""
    if len(places) <= _DOTS:
        dots = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places
        )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    stroke = f'fill="none" stroke="{colour}" stroke-width="1.6"{dashed}'
    return f'<polyline points="{path}" {stroke}/>{dots}'


def _thinned(line: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    step = -(-len(line) // _POINTS)
    return [*line[:-1:step], line[-1]]


def _number(value: float, title: str) -> str:
    if title in SHARES:
        return f"{100 * value:.0f} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
