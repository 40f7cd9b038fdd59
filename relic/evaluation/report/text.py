"""A summary as text, and the format of its numbers in all reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relic.evaluation.controls import ContextControl
from relic.evaluation.curves import varies
from relic.evaluation.worth import PARTS
from relic.measures import label, number

CONTROL_WORDS = {
    ContextControl.CLEARED.value: "context cleared",
    ContextControl.SHUFFLED.value: "context shuffled",
    ContextControl.FOREIGN.value: "context of another trial",
}
"""How the controls of a summary are called."""
_SHOWN = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 39, 59, 79, 99, 119, 199, 299, 499, 999)
"""Episode indices that are printed; the summary has all."""


def describe(summary: Mapping[str, Any]) -> str:
    """Return a summary as a short text."""
    lines = [
        f"{summary['protocol']} ({summary['protocol_hash']}): {summary['episodes']:,} episodes, "
        f"{summary['trials']} trials x {summary['repeats']}"
    ]
    if crashed := summary.get("crashed", 0):  # older summaries do not say it
        lines.append(
            f"{crashed:,} of {summary['episodes']:,} episodes crashed: they ended early, and are "
            "counted as they ended"
        )
    for name, curve in summary["metrics"].items():
        worth = summary.get("context", {}).get(name, {})
        if not varies([curve]) and "oracle" not in worth:
            lines.append(f"{label(name)}: {number(curve['mean'][0], name)} in all episodes")
            continue
        controls = controls_of(curve)
        words = "".join(f", {CONTROL_WORDS[control]}" for control in controls)
        lines.append(f"{label(name)} after 0, 1, ... episodes (mean, 95 % interval{words})")
        for i in _SHOWN:
            if i < len(curve["mean"]):
                own = estimate({part: curve[part][i] for part in ("mean", "low", "high")}, name)
                others = "".join(f"  {number(at(curve[f'{c}_mean'], i), name)}" for c in controls)
                lines.append(f"  {i:3d}  {own}{others}")
        gain = summary["gain"][name]
        others = "".join(
            f", {CONTROL_WORDS[control]} {points(number(gain.get(f'{control}_mean'), name))}"
            for control in controls
        )
        lines.append(f"  gain at {gain['to_episode']}: {points(estimate(gain, name))}{others}")
        if worth:
            lines.append(
                f"  context kept minus cleared, episodes from {worth['from_episode']} on: "
                f"{points(estimate(worth, name))} (kept {number(worth['kept'], name)}, cleared "
                f"{number(worth['cleared'], name)})"
            )
            if "oracle" in worth:
                lines.append(
                    f"  memory oracle {number(worth['oracle'], name)}; the context has "
                    f"{number(worth['share_of_oracle'])} of its margin over cleared"
                )
            lines += _by_sighting(worth, name)
    return "\n".join(lines)


def _by_sighting(worth: Mapping[str, Any], name: str) -> list[str]:
    """Return a line for each part of the episodes by when their goal was last in view."""
    return [
        f"  {part.replace('_', ' ')}: {points(estimate(worth[part], name))} (kept "
        f"{number(worth[part]['kept'], name)}, cleared {number(worth[part]['cleared'], name)})"
        for part in PARTS["seen_ago"]
        if part in worth and worth[part]["mean"] is not None
    ]


def controls_of(values: Mapping[str, Any]) -> list[str]:
    """Return the controls that a measure's curve has."""
    return [control for control in CONTROL_WORDS if f"{control}_mean" in values]


def at(values: list[float | None], index: int) -> float | None:
    """Return an entry of a curve; None where it has none."""
    return values[index] if index < len(values) else None


def estimate(value: Mapping[str, float | None], measure: str = "") -> str:
    """Return a mean with its interval, as it is shown."""
    mean, low, high = (number(value[part], measure) for part in ("mean", "low", "high"))
    return f"{mean} [{low.removesuffix(' %')}, {high.removesuffix(' %')}]"


def points(shown: str) -> str:
    """Turn a number as it is shown into a difference: those of shares are points, not per cent."""
    return shown.replace(" %", " points")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines in which the cells of rows stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
