"""A summary as text, and how its numbers are shown everywhere."""

from __future__ import annotations

from typing import Any

_SHOWN = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 39)
"""Episode indices that are printed; the summary has all."""


def describe(summary: dict[str, Any]) -> str:
    """Return a summary as a short text."""
    lines = [
        f"{summary['protocol']} ({summary['protocol_hash']}): {summary['episodes']:,} episodes, "
        f"{summary['trials']} trials x {summary['repeats']}"
    ]
    for name, curve in summary["metrics"].items():
        shown = [i for i in _SHOWN if i < len(curve["mean"])]
        lines.append(f"{name} after 0, 1, ... episodes (mean, 95 % interval, context cleared)")
        for i in shown:
            cleared = curve.get("cleared_mean", [])
            control = number(cleared[i]) if i < len(cleared) else "-"
            low, high = number(curve["low"][i]), number(curve["high"][i])
            lines.append(f"  {i:3d}  {number(curve['mean'][i])}  [{low}, {high}]  {control}")
        gain = summary["gain"][name]
        lines.append(
            f"  gain at {gain['to_episode']}: {number(gain['mean'])} [{number(gain['low'])}, "
            f"{number(gain['high'])}], context cleared {number(gain['cleared_mean'])}"
        )
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Return a number as it is shown; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def interval(low: float | None, high: float | None) -> str:
    """Return an interval as it is shown."""
    return f"{number(low)} to {number(high)}"
