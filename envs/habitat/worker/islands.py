"""Which connected part of a navmesh is a house's floor, and by how much it lies above the floor.

Python 3.9; needs NumPy only.

Shape suffix: T triangles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from frames import from_habitat

Hit = tuple[float, int, list[float]]
"""Distance, number of the thing, its normal."""
Cast = Callable[[Any, Any], Any]
"""From a point and a direction to a `Hit`, or None."""

_PROBES = 32
"""Triangles of an island that rays are cast from."""
_ABOVE = 0.5
"""Height of their origins above the navmesh, in metres."""
_SMALLEST = 0.1
"""Least area of a floor, as a share of the largest island's."""
_MAX_LIFT = 0.3


def island_triangles(finder: Any, island: int) -> np.ndarray:
    """Return the triangles of an island, (T, 3, 3), in our frame."""
    corners = np.asarray(finder.build_navmesh_vertices(island), np.float32).reshape(-1, 3)
    indices = np.asarray(finder.build_navmesh_vertex_indices(island), np.int64)
    return from_habitat(corners[indices.reshape(-1, 3)])


def indoor_island(finder: Any, cast: Cast | None) -> int:
    """Return the largest connected part of the free space that has something above it.

    Roofs and furniture tops are parts, too, and yards may be larger than houses. Where nothing is
    above any part, as in a house without a roof, or where no rays can be cast, the largest counts.

    Args:
        finder: Habitat's pathfinder.
        cast: casts rays, if that is possible.
    """
    islands = sorted(range(finder.num_islands), key=finder.island_area, reverse=True)
    if not islands:
        raise RuntimeError("the navmesh is empty")
    least = _SMALLEST * finder.island_area(islands[0])
    for island in islands if cast is not None else []:
        above = _cast_from(finder, island, cast, 1.0)
        covered = 2 * sum(hit is not None for hit in above) > len(above)
        if covered and finder.island_area(island) >= least:
            return island
    return islands[0]


def height_above_floor(finder: Any, island: int, cast: Cast | None) -> float:
    """Return by how much an island lies above the floor: a navmesh is cut from voxels."""
    if cast is None:
        return 0.0
    hits = _cast_from(finder, island, cast, -1.0)
    below = [hit[0] - _ABOVE for hit in hits if hit is not None]
    lift = float(np.median(below)) if below else 0.0
    return lift if 0.0 < lift < _MAX_LIFT else 0.0


def _cast_from(finder: Any, island: int, cast: Any, up: float) -> list[Hit | None]:
    """Cast rays up or down from above some places of an island."""
    centers = island_triangles(finder, island).mean(axis=1)
    chosen = centers[:: max(1, len(centers) // _PROBES)]
    return [cast(c + np.array([0.0, 0.0, _ABOVE]), (0.0, 0.0, up)) for c in chosen]
