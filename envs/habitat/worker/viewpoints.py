"""Viewpoints, the places from which an agent sees a goal object: where paths to it end.

A viewpoint is a place of the free space, on a grid around the object, from which the camera,
turned and tilted towards the object, shows enough pixels of it. Distances to a goal are walking
distances to its nearest viewpoint. Python 3.9; needs NumPy only.

Shapes: V viewpoints, P grid points.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

VERSION = 1
"""Raised when other viewpoints come out."""
_MAX_DROP = 2.5
"""Metres by which an object may be above the floor that it is seen from."""
_ON_FLOOR = 0.02
"""Metres by which a grid point may lie beside the free space."""


def aim(
    position: Any, target: Any, eye: list[float], pitch_range: list[float]
) -> tuple[float, float]:
    """Return the heading and pitch by which the camera at a position faces a point.

    Args:
        position: of the agent's base, z up.
        target: the point.
        eye: (forward, up) of the camera from the base.
        pitch_range: least and greatest pitch that the camera has.
    """
    x, y, z = (float(target[i]) - float(position[i]) for i in range(3))
    # The camera is ahead of the base, and may be right above the target or past it.
    pitch = math.atan2(z - eye[1], max(math.hypot(x, y) - eye[0], 1e-6))
    return math.atan2(y, x), min(max(pitch, pitch_range[0]), pitch_range[1])


def seen_pixels(
    backend: Any,
    position: Any,
    target: Any,
    instance: int,
    eye: list[float],
    pitch_range: list[float],
) -> int:
    """Return how many pixels of an instance the camera shows that faces its centre."""
    heading, pitch = aim(position, target, eye, pitch_range)
    backend.look(position, heading, pitch)
    return int(backend.count()[instance])


def find_viewpoints(
    backend: Any, centers: np.ndarray, instance: int, rules: dict[str, Any], eye: list[float]
) -> np.ndarray:
    """Return the viewpoints of a goal object, (V, 3).

    Args:
        backend: the simulator.
        centers: of the goal objects.
        instance: the number of the object.
        rules: `distance` (horizontal, to its centre), `spacing` of the grid, `pixels` that must
            show, `pitch_range` of the camera.
        eye: (forward, up) of the camera from the agent's base.
    """
    center, found = centers[instance], []
    for point in _grid(center, rules["distance"], rules["spacing"]):
        place = np.asarray(backend.snap(point), np.float64)
        aside = float(np.hypot(*(place[:2] - point[:2])))
        if not (aside <= _ON_FLOOR and 0.0 <= center[2] - place[2] <= _MAX_DROP):
            continue  # also where nothing is near, which is not a number
        pixels = seen_pixels(backend, place, center, instance, eye, rules["pitch_range"])
        if pixels >= rules["pixels"]:
            found.append(place)
    return np.array(found, np.float32).reshape(-1, 3)


def _grid(center: Any, distance: float, spacing: float) -> np.ndarray:
    """Return grid points around a point at its own height, (P, 3), nearest first."""
    steps = int(distance / spacing)
    side = np.arange(-steps, steps + 1) * spacing
    dx, dy = np.meshgrid(side, side, indexing="ij")
    radius = np.hypot(dx, dy).ravel()
    order = np.argsort(radius, kind="stable")
    order = order[radius[order] <= distance]
    points = np.stack([dx.ravel(), dy.ravel(), np.zeros(radius.size)], axis=1)[order]
    return np.asarray(center, np.float64) + points
