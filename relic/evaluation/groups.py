"""Curves of parts of an evaluation: by what was asked for, and by the size of the house.

Parts are small, so each measure comes as a curve and as two numbers: its mean over the first and
over the last quarter of a trial's episodes.

Legend: U units (a trial, evaluated once), I episode index, C clusters (houses).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from relic.evaluation.curves import RISING, Table, curve, interval, measures, tabulate
from relic.evaluation.evaluator import Record

NUM_SIZES = 3
"""Parts that houses are cut into by their size, with equally many houses each."""
BANDS = ("early", "late")

Masks = Mapping[str, np.ndarray]
"""Which episodes (U, I) belong to a part, by its name."""


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
    cluster_UI = np.broadcast_to(table.cluster_U[:, None], value_UI.shape)
    return interval(value_UI.ravel(), cluster_UI.ravel())
