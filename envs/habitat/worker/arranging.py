"""Puts goal objects on the surfaces of a scene, for scenes that have no published arrangements.

As in the paper: 30 to 40 instances are drawn and put on random receptacles. Those that an agent
cannot stand in front of and see are left out later, by their viewpoints. A receptacle is what a
ray from above meets: a level surface of one thing, at a height that an agent can see, with the
free space near. All draws come from the seed. Python 3.9; needs NumPy only.

Shapes: P probes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Spot = tuple[float, float, float]
"""Centre and radius of what an object stands on."""

VERSION = 1
"""Raised when a seed comes to mean another arrangement."""
DRAWN = (30, 40)
"""How many instances are drawn, both ends included."""
_PROBES = 3000
"""Rays from above that look for surfaces."""
_FROM = 1.9
"""Height above the floor that rays start from: under most ceilings and lamps."""
_HEIGHTS = (0.15, 1.6)
"""Heights of surfaces above the floor."""
_LEVEL = 0.98
"""Least upward part of a surface's unit normal."""
_REACH = 1.5
"""Metres from the free space in which surfaces are looked for."""
_SAME = 0.03
"""Metres by which the height of one surface may vary."""
_GAP = 0.01
"""Metres between an object and what is beside it."""
_FOOT = 0.7
"""Share of an object's radius that must stand on its surface."""
_TRIES = 60


def arrange(backend: Any, seed: list[int], rules: dict[str, Any]) -> list[Any]:
    """Draw an arrangement.

    Args:
        backend: the simulator, with the scene open and without goal objects.
        seed: numbers that the draws depend on.
        rules: `templates`, names of the goal objects' configurations, by category;
            `config_paths`, directories that hold them.

    Returns:
        (template, pose as a matrix (4, 4) in Habitat's frame, name of the receptacle) of each.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    surfaces = _surfaces(backend, rng)
    if not surfaces:
        return []
    names = sorted(surfaces)
    placed: list[Any] = []
    taken: list[Spot] = []
    for _ in range(int(rng.integers(DRAWN[0], DRAWN[1] + 1))):
        kinds = rules["templates"][int(rng.integers(len(rules["templates"])))]
        template = kinds[int(rng.integers(len(kinds)))]
        low, high = backend.extent(template, rules["config_paths"])
        for _ in range(_TRIES):
            name = names[int(rng.integers(len(names)))]
            spots = surfaces[name]
            x, y, z = spots[int(rng.integers(len(spots)))]
            yaw = float(rng.random()) * 2.0 * math.pi
            spot = _fit(backend, np.array([x, y, z]), yaw, low, high)
            if spot is None or any(_overlap(spot, other) for other in taken):
                continue
            taken.append(spot)
            placed.append([template, _pose(x, y, z - low[2] + 0.002, yaw).tolist(), name])
            break
    return placed


def _surfaces(
    backend: Any, rng: np.random.Generator
) -> dict[str, list[tuple[float, float, float]]]:
    """Look for surfaces from above; return their points by name."""
    triangles = np.asarray(backend.triangles(), np.float64)
    edges = triangles[:, 1:, :2] - triangles[:, :1, :2]
    areas = 0.5 * np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
    cumulative = np.cumsum(areas)
    found = {}
    for _ in range(_PROBES):
        index = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
        # Two sorted draws cut [0, 1] into three shares that spread evenly over a triangle.
        a, b = np.sort(rng.random(2))
        corners = triangles[min(index, len(triangles) - 1)]
        base = a * corners[0] + (b - a) * corners[1] + (1.0 - b) * corners[2]
        # The root spreads points evenly over the disc.
        angle, radius = 2.0 * math.pi * rng.random(), _REACH * math.sqrt(rng.random())
        start = base + np.array([radius * math.cos(angle), radius * math.sin(angle), _FROM])
        hit = backend.cast(start, (0.0, 0.0, -1.0))
        if hit is None or hit[2][2] < _LEVEL:
            continue
        height = _FROM - hit[0]
        if _HEIGHTS[0] <= height <= _HEIGHTS[1] and _open_between(backend, base, start):
            name = f"surface|{hit[1]}|{round(height, 1)}"
            found.setdefault(name, []).append((start[0], start[1], start[2] - hit[0]))
    return found


def _open_between(backend: Any, base: np.ndarray, start: np.ndarray) -> bool:
    """Say whether nothing is between the air over a floor and the air over a surface."""
    air = np.array([base[0], base[1], start[2]])
    way = start - air
    length = float(np.linalg.norm(way))
    if length < 1e-3:
        return True
    hit = backend.cast(air, (way / length).tolist())
    return hit is None or hit[0] >= length


def _fit(
    backend: Any, point: np.ndarray, yaw: float, low: np.ndarray, high: np.ndarray
) -> Spot | None:
    """Return (x, y, radius) of an object's place if it is level there and free, else None."""
    radius = 0.5 * float(np.hypot(high[0] - low[0], high[1] - low[1]))
    above = float(high[2] - low[2]) + 2.0 * _GAP
    for k in range(12):
        angle = yaw + k * math.pi / 6.0
        # Odd rays fall on the foot, which must stand; even ones on the rim, which may overhang.
        reach = radius * (_FOOT if k % 2 else 1.0)
        start = point + np.array([reach * math.cos(angle), reach * math.sin(angle), above])
        hit = backend.cast(start, (0.0, 0.0, -1.0))
        if hit is None or hit[0] < above - _SAME:
            return None  # something stands there
        if k % 2 and hit[0] > above + _SAME:
            return None  # the surface ends there
    return point[0], point[1], radius


def _overlap(spot: Spot, other: Spot) -> bool:
    """Say whether two objects' circles meet."""
    return math.hypot(spot[0] - other[0], spot[1] - other[1]) < spot[2] + other[2] + _GAP


def _pose(x: float, y: float, z: float, yaw: float) -> np.ndarray:
    """Return a pose in Habitat's frame, (4, 4)."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return np.array(
        [[cos, 0.0, sin, x], [0.0, 1.0, 0.0, z], [-sin, 0.0, cos, -y], [0.0, 0.0, 0.0, 1.0]]
    )
