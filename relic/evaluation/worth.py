"""The value of a context: results with the context kept minus with it cleared, paired.

A curve that rises with the episode's index proves nothing, since late episodes are other episodes.
Here both agents meet the same trials with the same acting noise, and differences are paired by
trial. Intervals resample houses, as in `relic.evaluation.curves`.

Shapes: U units (a trial, evaluated once), I episode index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from relic.evaluation.controls import ContextControl
from relic.evaluation.curves import RISING, Interval, Table, interval, measures, tabulate
from relic.evaluation.records import Record

FROM_EPISODE = 5
"""Index of the first episode that counts: before it there is little in the context."""

_NOTHING: Interval = {"mean": None, "low": None, "high": None}

Part = Callable[[Sequence[Record]], np.ndarray]
"""Which episodes of some records belong to a part of them, (U, I)."""


def asked_before(records: Sequence[Record], *, wanted: bool = True) -> np.ndarray:
    """Return the episodes whose goal the trial asked for before, or all others."""
    goal_UI = tabulate(records, "goal").value_UI
    before_UI = np.ones(goal_UI.shape, bool)
    for before_I, goal_I in zip(before_UI, goal_UI, strict=True):
        before_I[np.unique(goal_I, return_index=True, equal_nan=False)[1]] = False
    return before_UI == wanted


def seen_ago(records: Sequence[Record], *, low: float, high: float) -> np.ndarray:
    """Return the episodes whose goal was last in view `low` to `high` steps before they began."""
    ago_UI = tabulate(records, "seen_ago").value_UI
    return (ago_UI >= low) & (ago_UI <= high)


PARTS: dict[str, dict[str, Part]] = {
    "goal": {"asked_before": asked_before, "first_asked": partial(asked_before, wanted=False)},
    "seen_ago": {
        "seen_before": partial(seen_ago, low=0, high=np.inf),
        "never_seen": partial(seen_ago, low=-np.inf, high=-1),
        "seen_1_to_100": partial(seen_ago, low=1, high=100),
        "seen_101_to_400": partial(seen_ago, low=101, high=400),
        "seen_over_400": partial(seen_ago, low=401, high=np.inf),
        "seen_401_to_1600": partial(seen_ago, low=401, high=1600),
        "seen_1601_to_6400": partial(seen_ago, low=1601, high=6400),
        "seen_6401_to_25600": partial(seen_ago, low=6401, high=25_600),
        "seen_over_25600": partial(seen_ago, low=25_601, high=np.inf),
    },
}
"""Parts by name, under the entry of records that tells who belongs to them."""


def context_worth(controls: Mapping[ContextControl, Sequence[Record]]) -> dict[str, Any]:
    """Compare each context with the cleared one.

    Args:
        controls: Records of the same trials under each control, the kept context among them.

    Returns:
        For each measure `from_episode`; `mean`, `low` and `high` of kept minus cleared; the same of
        other controls minus cleared under `<control>_mean`, ...; `kept` and `cleared`, the means
        themselves; and, under the names of `PARTS` that the records can tell, the same five of a
        part of the episodes: those whose goal the trial asked for before, or not; whose goal was in
        view before, never, or so many steps ago. Empty where nothing was evaluated with a cleared
        context.
    """
    cleared = controls.get(ContextControl.CLEARED)
    kept = controls[ContextControl.KEPT]
    if not cleared:
        return {}
    worth: dict[str, Any] = {}
    for name in measures(kept):
        if name not in RISING:
            continue
        entry: dict[str, Any] = {
            "from_episode": FROM_EPISODE,
            "kept": late_mean(kept, name),
            "cleared": late_mean(cleared, name),
        }
        for control, records in controls.items():
            if control is ContextControl.CLEARED or not records:
                continue
            prefix = "" if control is ContextControl.KEPT else f"{control.value}_"
            found = difference(records, cleared, name)
            entry |= {f"{prefix}{part}": value for part, value in found.items()}
        for field, parts in PARTS.items():
            if field in kept[0] and field in cleared[0]:
                entry |= {key: _compare(kept, cleared, name, part) for key, part in parts.items()}
        worth[name] = entry
    return worth


def with_oracle(worth: dict[str, Any], oracle: Mapping[str, Any]) -> dict[str, Any]:
    """Add what the memory oracle gains by its memory, and which share of that an agent gains.

    Args:
        worth: Of an agent, from `context_worth`.
        oracle: That of the oracle, by the same protocol.

    Returns:
        `oracle` (its mean with its memory) and `share_of_oracle`, the agent's kept minus cleared
        over the oracle's kept minus the agent's cleared; None where the oracle is no better.
    """
    full: dict[str, Any] = {}
    for name, entry in worth.items():
        best = oracle.get(name, {}).get("kept")
        known = None not in (best, entry["mean"], entry["cleared"])
        margin = best - entry["cleared"] if known else 0.0
        share = entry["mean"] / margin if margin > 0 else None
        full[name] = {**entry, "oracle": best, "share_of_oracle": share}
    return full


def late_mean(records: Sequence[Record], name: str, part: Part | None = None) -> float | None:
    """Return the mean of a measure over trials, each by its episodes from `FROM_EPISODE` on.

    Args:
        records: Of one context.
        name: The measure.
        part: Which episodes count; None: all.
    """
    table = tabulate(records, name)
    mean_U = _late_means(table, _chosen(records, table, part))
    return None if np.isnan(mean_U).all() else float(np.nanmean(mean_U))


def difference(
    records: Sequence[Record],
    cleared: Sequence[Record],
    name: str,
    part: Part | None = None,
) -> Interval:
    """Return the mean difference of a measure over late episodes, paired by trial.

    A trial counts once, by the mean of its episodes from `FROM_EPISODE` on.

    Args:
        records: Of one context.
        cleared: Of the cleared context.
        name: The measure.
        part: Which episodes count; None: all. What was in view depends on where an agent went, so
            the contexts may have other episodes in it.

    Returns:
        `mean`, `low` and `high`; all None where no trial has such episodes under both.
    """
    both = _units(records) & _units(cleared)
    mean_U, table = [], None
    for whole in (records, cleared):
        shared = [r for r in whole if (r["repeat"], r["trial"]) in both]
        if not shared:
            return dict(_NOTHING)
        table = tabulate(shared, name)
        mean_U.append(_late_means(table, _chosen(shared, table, part)))
    assert table is not None
    difference_U = mean_U[0] - mean_U[1]
    has_U = ~np.isnan(difference_U)
    if not has_U.any():
        return dict(_NOTHING)
    _, cluster_U = np.unique(table.cluster_U[has_U], return_inverse=True)
    return interval(difference_U[has_U], cluster_U)


def _units(records: Sequence[Record]) -> set[tuple[int, int]]:
    return {(r["repeat"], r["trial"]) for r in records}


def _compare(kept: Sequence[Record], cleared: Sequence[Record], name: str, part: Part) -> Interval:
    means = {"kept": late_mean(kept, name, part), "cleared": late_mean(cleared, name, part)}
    return {**means, **difference(kept, cleared, name, part)}


def _chosen(records: Sequence[Record], table: Table, part: Part | None) -> np.ndarray:
    """Return which episodes count, (U, I)."""
    chosen_UI = ~np.isnan(table.value_UI)
    chosen_UI[:, :FROM_EPISODE] = False
    return chosen_UI if part is None else chosen_UI & part(records)


def _late_means(table: Table, chosen_UI: np.ndarray) -> np.ndarray:
    """Return each unit's mean over the chosen episodes; NaN where it has none."""
    count_U = chosen_UI.sum(axis=1)
    sum_U = np.where(chosen_UI, table.value_UI, 0.0).sum(axis=1)
    return np.where(count_U > 0, sum_U / np.maximum(count_U, 1), np.nan)
