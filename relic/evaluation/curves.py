"""Statistics of records: measures against the number of episodes already in the context.

Intervals are 95 % bootstrap intervals that resample houses (trials, where records name no house),
since episodes of one house are alike: more episodes in it say little about others.

`summarise` has the whole evaluation, `summarise_groups` its parts by goal category and by the size
of the house. Parts are small, so there each measure comes as a curve and as two numbers: its mean
over the first and over the last quarter of a trial's episodes.

Shapes: U units (a trial, evaluated once), I episode index, C clusters (houses), B resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from relic.evaluation.controls import ContextControl
from relic.evaluation.records import Record
from relic.schema import choice

MEASURES = ("success", "spl", "soft_spl", "return", "length")
RISING = ("success", "spl", "soft_spl", "return")
"""Measures of which more is better."""
LATE = 10
"""Episode index that gains are measured at."""
COMPETENT = 0.9
"""Share of the best mean that counts as competence."""
NUM_SIZES = 3
"""Parts that houses are cut into by their size, with equally many houses each."""

_RESAMPLES = 2000
_SEED = 0
_PERCENTILES = (2.5, 97.5)

Interval = dict[str, float | None]
Masks = Mapping[str, np.ndarray]
"""Which episodes (U, I) belong to a part, by its name."""


@dataclass(frozen=True)
class Table:
    """One measure of all units, by episode index."""

    value_UI: np.ndarray
    """NaN where a unit has no such episode."""
    cluster_U: np.ndarray
    """The number of each unit's house, counted from 0."""

    @property
    def common(self) -> int:
        """Episodes that every unit has; means over these compare the same trials."""
        lacking = np.flatnonzero(np.isnan(self.value_UI).any(axis=0))
        return int(lacking[0]) if len(lacking) else self.value_UI.shape[1]

    @property
    def late(self) -> int:
        """The index that gains are measured at: `LATE`, or the last that every unit has."""
        return max(min(LATE, self.common - 1), 0)


def measures(records: Sequence[Record]) -> list[str]:
    """Return the measures that the records have."""
    return [name for name in MEASURES if any(name in record for record in records)]


def tabulate(records: Sequence[Record], name: str) -> Table:
    """Arrange one measure by unit and episode.

    Raises:
        ValueError: If there are no records, or they have no such measure.
    """
    if not records:
        raise ValueError("records: must hold at least one episode, got none. Evaluate longer.")
    choice(name, {key: None for record in records for key in record}, "measure")
    units = sorted({(r["repeat"], r["trial"]) for r in records})
    row_of = {unit: row for row, unit in enumerate(units)}
    value_UI = np.full((len(units), 1 + max(r["episode"] for r in records)), np.nan)
    house_of = {}
    for record in records:
        row = row_of[record["repeat"], record["trial"]]
        value_UI[row, record["episode"]] = float(record.get(name, np.nan))
        house_of[row] = record.get("house", record.get("scene", record["trial"]))
    houses = np.array([house_of[row] for row in range(len(units))])
    return Table(value_UI, np.unique(houses, return_inverse=True)[1])


def curve(table: Table) -> dict[str, list[Any]]:
    """Return mean, interval and number of units for each episode index."""
    mean_I, low_I, high_I = _bootstrap(table.value_UI, table.cluster_U)
    count_I = (~np.isnan(table.value_UI)).sum(axis=0)
    return {
        "mean": _plain(mean_I),
        "low": _plain(low_I),
        "high": _plain(high_I),
        "count": count_I.tolist(),
    }


def varies(curves: Iterable[Mapping[str, Any]]) -> bool:
    """Say whether a measure ever varies, so that there is something to plot.

    Where all episodes have one length, say, a plot of it would be a flat line.

    Args:
        curves: All that one plot shows of it, as `curve` gives them, controls included.
    """
    parts = [
        values
        for curve in curves
        for name, values in curve.items()
        if name.endswith(("mean", "low", "high"))
    ]
    seen = [value for values in parts if isinstance(values, list) for value in values]
    known = np.array([value for value in seen if value is not None])
    # Means of equal numbers may differ in their last bits.
    return bool(known.size and np.ptp(known) > 1e-9 * max(np.abs(known).max(), 1.0))


def gain(table: Table, late: int | None = None) -> Interval:
    """Return how much a unit's late episode is above its first: mean and interval.

    Paired: only units that have both count. None where trials have a single episode.

    Args:
        table: A measure.
        late: Index of the late episode. Default: the table's own.
    """
    late = table.late if late is None else late
    if late == 0:
        return {"mean": None, "low": None, "high": None}
    return interval(table.value_UI[:, late] - table.value_UI[:, 0], table.cluster_U)


def area(table: Table) -> Interval:
    """Return the area under the curve, per episode: the mean over the episodes all units have."""
    return interval(table.value_UI[:, : max(table.common, 1)].mean(axis=1), table.cluster_U)


def episodes_to_competence(table: Table) -> int | None:
    """Return the first index whose mean reaches 90 % of the best mean; None if none is above 0."""
    mean_I = table.value_UI[:, : max(table.common, 1)].mean(axis=0)
    best = mean_I.max()
    return int(np.argmax(mean_I >= COMPETENT * best)) if best > 0 else None


def episodes_within(records: Sequence[Record], steps: int | None) -> float | None:
    """Return how many episodes, with a part of the last, so many steps of a trial are.

    Args:
        records: Of whole episodes.
        steps: From a trial's begin.

    Returns:
        The median over units. None where most trials are not longer, or the length is not known.
    """
    if steps is None or not records or "length" not in records[0]:
        return None
    found_U = []
    for length_I in tabulate(records, "length").value_UI:
        length_I = length_I[~np.isnan(length_I)]
        end_I = length_I.cumsum()
        whole = int(np.searchsorted(end_I, steps, side="right"))
        if whole == len(end_I):
            found_U.append(np.inf)
        else:
            found_U.append(whole + 1 - (end_I[whole] - steps) / length_I[whole])
    median = float(np.median(found_U))
    return median if np.isfinite(median) else None


def summarise(
    records: Sequence[Record], controls: Mapping[ContextControl, Sequence[Record]] | None = None
) -> dict[str, Any]:
    """Return all numbers that an evaluation reports.

    Args:
        records: Of episodes with the context kept.
        controls: Of the same trials, under other contexts.

    Returns:
        `metrics.<name>`: lists by episode index; `gain.<name>`, `area.<name>` and
        `episodes_to_competence.<name>`: numbers. What belongs to a control is in the same places
        under `<control>_mean`, `<control>_low`, ...
    """
    summary: dict[str, Any] = {
        "metrics": {},
        "gain": {},
        "area": {},
        "episodes_to_competence": {},
    }
    for name in measures(records):
        table = tabulate(records, name)
        summary["metrics"][name] = curve(table)
        summary["gain"][name] = {
            **gain(table),
            "cleared_mean": None,
            "from_episode": 0,
            "to_episode": table.late,
        }
        summary["area"][name] = area(table)
        if name in RISING:
            summary["episodes_to_competence"][name] = episodes_to_competence(table)
        for control, others in (controls or {}).items():
            _add_control(summary, name, control.value, tabulate(others, name), table.late)
    return summary


def _add_control(summary: dict[str, Any], name: str, control: str, table: Table, late: int) -> None:
    summary["metrics"][name] |= {f"{control}_{k}": v for k, v in curve(table).items()}
    if late == 0 or late >= table.value_UI.shape[1]:
        return
    # At the index of the agent itself, whatever the control's trials would allow.
    paired_U = table.value_UI[:, late] - table.value_UI[:, 0]
    paired = interval(paired_U, table.cluster_U)
    summary["gain"][name] |= {f"{control}_{k}": v for k, v in paired.items()}


def interval(value_U: np.ndarray, cluster_U: np.ndarray) -> Interval:
    """Return the mean of the values that are not NaN, and its interval, `low` to `high`."""
    values = (_plain(part)[0] for part in _bootstrap(value_U[:, None], cluster_U))
    return dict(zip(("mean", "low", "high"), values, strict=True))


def _bootstrap(
    value_UI: np.ndarray, cluster_U: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return means over units, and percentiles of means over resampled clusters."""
    num_clusters = int(cluster_U.max()) + 1
    has_UI = ~np.isnan(value_UI)
    sum_CI = np.zeros((num_clusters, value_UI.shape[1]))
    count_CI = np.zeros_like(sum_CI)
    np.add.at(sum_CI, cluster_U, np.where(has_UI, value_UI, 0.0))
    np.add.at(count_CI, cluster_U, has_UI)
    mean_I = _ratio(sum_CI.sum(axis=0), count_CI.sum(axis=0))
    # Houses are drawn, not episodes: within a house these are alike, and intervals would be too
    # narrow.
    times_BC = _resamples(num_clusters)
    # A house that is drawn brings all its episodes: sums and counts are resampled together. As
    # drawn counts are a matrix, all means are two products.
    mean_BI = _ratio(times_BC @ sum_CI, times_BC @ count_CI)
    low_I, high_I = np.full_like(mean_I, np.nan), np.full_like(mean_I, np.nan)
    # One house says nothing about others.
    for i in np.flatnonzero((count_CI > 0).sum(axis=0) > 1):
        drawn = mean_BI[~np.isnan(mean_BI[:, i]), i]  # a resample may lack a rare index
        low_I[i], high_I[i] = np.percentile(drawn, _PERCENTILES)
    return mean_I, low_I, high_I


@lru_cache(maxsize=4)
def _resamples(num_clusters: int) -> np.ndarray:
    """Return how often each cluster is drawn in each resample."""
    # One seed, so that the same records always have the same interval.
    generator = np.random.default_rng(_SEED)
    share_C = np.full(num_clusters, 1 / num_clusters)
    return generator.multinomial(num_clusters, share_C, size=_RESAMPLES).astype(float)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _plain(value_I: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in value_I]


def summarise_groups(records: Sequence[Record], categories: Sequence[str]) -> dict[str, Any]:
    """Return the curves of parts of the records.

    Args:
        records: Of episodes with the context kept.
        categories: Names of what the records' `goal` counts; empty where it has no categories.

    Returns:
        `by_goal.<category>` and `by_area.<square metres>`, as far as records tell them apart:
        `episodes`, and `metrics.<name>` with `mean`, `low`, `high`, `count` by episode index and
        `early` and `late`, each `mean`, `low`, `high`.
    """
    parts: dict[str, Masks] = {}
    if categories and "goal" in records[0]:
        parts["by_goal"] = _by_goal(records, categories)
    if "area" in records[0]:
        parts["by_area"] = _by_area(records)
    tables = {name: tabulate(records, name) for name in measures(records) if name in RISING}
    return {
        kind: {part: _part(tables, mask_UI) for part, mask_UI in masks.items()}
        for kind, masks in parts.items()
        if masks
    }


def _by_goal(records: Sequence[Record], categories: Sequence[str]) -> Masks:
    goal_UI = tabulate(records, "goal").value_UI
    asked = np.unique(goal_UI[~np.isnan(goal_UI)]).astype(int).tolist()
    return {str(categories[goal]): goal_UI == goal for goal in asked}


def _by_area(records: Sequence[Record]) -> Masks:
    """Cut the houses into parts of equally many; none where there are fewer houses than parts."""
    table = tabulate(records, "area")
    area_U = table.value_UI[:, 0]
    first_of_C = np.unique(table.cluster_U, return_index=True)[1]
    # A house counts once, however many of the trials are in it.
    house_areas = np.sort(area_U[first_of_C])
    if len(np.unique(house_areas)) < NUM_SIZES:
        return {}
    cuts = [house_areas[len(house_areas) * k // NUM_SIZES] for k in range(1, NUM_SIZES)]
    size_U = np.searchsorted(cuts, area_U, side="right")
    has_UI = ~np.isnan(table.value_UI)
    masks: dict[str, np.ndarray] = {}
    for size in np.unique(size_U):
        inside_U = size_U == size
        least, most = area_U[inside_U].min(), area_U[inside_U].max()
        name = f"{least:.1f} to {most:.1f} m²"
        # Houses that differ by less than what is shown are one part.
        masks[name] = masks.get(name, False) | (has_UI & inside_U[:, None])
    return masks


def _part(tables: Mapping[str, Table], mask_UI: np.ndarray) -> dict[str, Any]:
    metrics = {}
    for name, table in tables.items():
        part = Table(np.where(mask_UI, table.value_UI, np.nan), table.cluster_U)
        early, late = _bands(table.common)
        metrics[name] = {
            **curve(part),
            "early": _mean_of(part, early),
            "late": _mean_of(part, late),
        }
    return {"episodes": int(mask_UI.sum()), "metrics": metrics}


def _bands(num_episodes: int) -> tuple[slice, slice]:
    """Return the first and the last quarter of a trial's episodes, at least one each."""
    width = max(num_episodes // 4, 1)
    return slice(0, width), slice(max(num_episodes - width, 0), max(num_episodes, 1))


def _mean_of(table: Table, band: slice) -> dict[str, Any]:
    value_UI = table.value_UI[:, band]
    # Every episode counts by itself in the mean, but is drawn with its house.
    cluster_UI = np.broadcast_to(table.cluster_U[:, None], value_UI.shape)
    return interval(value_UI.ravel(), cluster_UI.ravel())
