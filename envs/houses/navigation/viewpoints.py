"""Where the agent can stand to see a goal object: the ends of every path in the task.

A viewpoint of an object is a free node near it from which, turned and tilted to face it, the agent
sees enough of it. Distances to a goal are distances to its nearest viewpoint.

Shape suffixes: V viewpoints, O objects, P primitives, C columns of a packed primitive.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.navigation.navigation import NavGrid
from envs.houses.navigation.sight import (
    Sight,
    full_pixels,
    pack,
    seen_pixels,
    solids_near,
    view_of,
)
from envs.houses.scene import GoalObject, Scene

MAX_DISTANCE: Final = 2.0
MIN_PIXELS: Final = 15.0
"""Estimated pixels; half as many again as the success test counts, as estimates err."""
SQUARE_PIXELS: Final = 256
"""Side of the square image that pixels are counted in, with a view of 90 degrees."""
_FOCAL: Final = SQUARE_PIXELS / 2.0
_INSIDE: Final = 0.975
"""Share of the squared distance that is used, so that a viewpoint is not on its very limit."""


@njit(cache=True, nogil=True)
def _object_viewpoints(
    sight: Sight,
    which: int,
    free_YX: NDArray[np.bool_],
    cell: float,
    distance: float,
    min_pixels: float,
) -> NDArray[np.float32]:
    """List the viewpoints of one object."""
    rows, columns = free_YX.shape
    object_9 = sight.objects_O9[which]
    near = solids_near(sight.solids_PC, object_9, distance)
    view = view_of(_FOCAL, 0.0, 0.0, 0.0)
    ox = object_9[0]
    oy = object_9[1]
    first_x = max(math.ceil((ox - distance) / cell - 0.5), 0)
    last_x = min(math.floor((ox + distance) / cell - 0.5), columns - 1)
    first_y = max(math.ceil((oy - distance) / cell - 0.5), 0)
    last_y = min(math.floor((oy + distance) / cell - 0.5), rows - 1)
    found = np.empty(((last_x - first_x + 1) * max(last_y - first_y + 1, 0), 2), np.float32)
    count = 0
    for iy in range(first_y, last_y + 1):
        y = (iy + 0.5) * cell
        for ix in range(first_x, last_x + 1):
            x = (ix + 0.5) * cell
            if not free_YX[iy, ix] or (x - ox) ** 2 + (y - oy) ** 2 > distance * distance:
                continue
            if full_pixels(sight.solids_PC, object_9, x, y, _FOCAL) < min_pixels:
                continue
            pixels = seen_pixels(sight, object_9, near, x, y, view)
            if pixels >= min_pixels:
                found[count] = x, y
                count += 1
    return found[:count].copy()


def scene_viewpoints(
    scene: Scene,
    grid: NavGrid,
    max_distance: float = MAX_DISTANCE,
    *,
    min_pixels: float = MIN_PIXELS,
    sight: Sight | None = None,
) -> list[NDArray[np.float32]]:
    """Return the viewpoints (V, 2) of each of a scene's goal objects, in the scene's order.

    Args:
        scene: The scene.
        grid: The free space of its house.
        max_distance: Horizontal distance from the object's centre.
        min_pixels: Pixels of the object, by estimate, in a square image of 256 x 256 with a view
            of 90 degrees that faces it.
        sight: The scene as packed by `sight.pack`, if the caller has it.
    """
    packed = pack(scene) if sight is None else sight
    distance = max_distance * math.sqrt(_INSIDE)
    return [
        _object_viewpoints(packed, i, grid.free_YX, grid.cell, distance, min_pixels)
        for i in range(len(scene.objects))
    ]


def viewpoints(
    scene: Scene,
    grid: NavGrid,
    obj: GoalObject,
    max_distance: float = MAX_DISTANCE,
    *,
    min_pixels: float = MIN_PIXELS,
    sight: Sight | None = None,
) -> NDArray[np.float32]:
    """Return the viewpoints (V, 2) of one goal object; see `scene_viewpoints`.

    Raises:
        ValueError: If the object is not in the scene.
    """
    packed = pack(scene) if sight is None else sight
    for i, other in enumerate(scene.objects):
        if other.instance == obj.instance:
            distance = max_distance * math.sqrt(_INSIDE)
            return _object_viewpoints(packed, i, grid.free_YX, grid.cell, distance, min_pixels)
    raise ValueError(
        f"viewpoints: obj must be one of the scene's objects, got instance {obj.instance}. "
        f"Take it from scene.objects (instances {[o.instance for o in scene.objects]})."
    )
