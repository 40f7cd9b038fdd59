"""Names of measures and metrics in figures and reports, and which of them are shares.

Files keep the short names; figures, tables and pages show these.
"""

from __future__ import annotations

SHARES = frozenset({"success", "spl", "soft_spl"})
"""Measures between 0 and 1, which people are shown in per cent."""
_NAMES = {
    "spl": "SPL",
    "soft_spl": "soft SPL",
    "explained_variance": "explained variance",
    "grad_norm": "gradient norm",
    "approx_kl": "approximate KL",
    "clip_frac": "clipped ratios",
    "ratio_drift_first": "|ratio - 1|, at first",
    "ratio_drift_max": "|ratio - 1|, largest",
    "goal_location_loss": "goal location loss",
    "goal_location_error": "goal location error (m)",
    "recall_error": "recall error (m)",
    "lesson_recall_loss": "recall loss, lessons",
    "lesson_recall_error": "recall error, lessons (m)",
    "distance": "distance to goal (m)",
    "distance_start": "distance at start (m)",
}


def label(name: str) -> str:
    """Return what a measure or metric is called in figures and tables."""
    return _NAMES.get(name, name.replace("_", " "))


def number(value: float | None, measure: str = "") -> str:
    """Return a number as it is shown: shares in per cent, a dash where there is none."""
    if value is None:
        return "-"
    # Adding 0.0 turns -0.0 into 0.0.
    return f"{round(100 * value, 1) + 0.0:.1f} %" if measure in SHARES else f"{value:.3f}"
