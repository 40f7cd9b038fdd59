"""The room of FourBoxes: its geometry, its scene for the houses' renderer, and where one can walk.

Shape suffix: K positions.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from envs.houses.scene import (
    FURNITURE_SEMANTIC,
    House,
    Kind,
    Materials,
    Primitives,
    Room,
    Scene,
    Semantic,
)

COLORS: Final = ("red", "green", "blue", "yellow")

_RGB: Final = ((0.8, 0.1, 0.1), (0.1, 0.6, 0.15), (0.12, 0.2, 0.8), (0.9, 0.8, 0.1))
_WALL, _FLOOR, _CEILING = range(len(COLORS), len(COLORS) + 3)
_SURFACES: Final = ((0.7, 0.68, 0.64), (0.38, 0.33, 0.3), (0.9, 0.9, 0.9))

SIDE: Final = 5.0
"""Length of the room's walls in metres."""
BOX_HALF: Final = 0.4
BOX_HEIGHT: Final = 1.0
RADIUS: Final = 0.25
"""Of the agent."""
CORNERS: Final = np.array(
    [
        [BOX_HALF, BOX_HALF],
        [SIDE - BOX_HALF, BOX_HALF],
        [SIDE - BOX_HALF, SIDE - BOX_HALF],
        [BOX_HALF, SIDE - BOX_HALF],
    ]
)
CENTER: Final = np.array([SIDE / 2, SIDE / 2])


def arrangement_colors(arrangement: int) -> tuple[int, ...]:
    """Return the colour, as an index into `COLORS`, of the box in each corner."""
    return list(itertools.permutations(range(4)))[arrangement]


@lru_cache(maxsize=24)
def scene(arrangement: int) -> Scene:
    """Return the room with its boxes, for the renderer. Cached: rows share scenes."""
    height, thickness = 2.5, 0.1
    half, middle = thickness / 2, SIDE / 2
    solids = [
        ((middle, -half, height / 2), (middle + thickness, half, height / 2), _WALL),
        ((middle, SIDE + half, height / 2), (middle + thickness, half, height / 2), _WALL),
        ((-half, middle, height / 2), (half, middle, height / 2), _WALL),
        ((SIDE + half, middle, height / 2), (half, middle, height / 2), _WALL),
    ]
    for (x, y), color in zip(CORNERS.tolist(), arrangement_colors(arrangement), strict=True):
        solids.append(((x, y, BOX_HEIGHT / 2), (BOX_HALF, BOX_HALF, BOX_HEIGHT / 2), color))
    materials = Materials(
        rgb_M3=np.array(_RGB + _SURFACES, dtype=np.float32),
        tile_M=np.zeros(len(_RGB) + len(_SURFACES), dtype=np.int16),
        repeat_M=np.ones(len(_RGB) + len(_SURFACES), dtype=np.float32),
    )
    primitives = Primitives(
        center_P3=np.array([center for center, _, _ in solids], dtype=np.float32),
        half_P3=np.array([extent for _, extent, _ in solids], dtype=np.float32),
        yaw_P=np.zeros(len(solids), dtype=np.float32),
        kind_P=np.full(len(solids), Kind.BOX, dtype=np.uint8),
        material_PF=np.array([[material] * 6 for _, _, material in solids], dtype=np.int16),
        semantic_P=np.array(
            [Semantic.WALL if m == _WALL else FURNITURE_SEMANTIC for _, _, m in solids], np.int16
        ),
        instance_P=np.zeros(len(solids), dtype=np.int16),
    )
    house = House(
        seed=arrangement,
        size="four_boxes",
        extent=(SIDE, SIDE),
        wall_height=height,
        rooms=(Room("room", 0.0, 0.0, SIDE, SIDE, _FLOOR, _WALL, _CEILING),),
        doors=(),
        furniture=(),
        receptacles=(),
        primitives=primitives,
        materials=materials,
    )
    return Scene(house, 0, (), primitives, materials)


def is_free(position_K2: NDArray[np.float64], margin: float = RADIUS) -> NDArray[np.bool_]:
    """Return where an agent of this radius touches neither box nor wall, bool (K,)."""
    inside_K = ((position_K2 >= margin) & (position_K2 <= SIDE - margin)).all(axis=-1)
    away_K4 = np.abs(position_K2[..., None, :] - CORNERS) > BOX_HALF + margin
    return np.asarray(inside_K & away_K4.any(axis=-1).all(axis=-1))


def slide(position_K2: NDArray[np.float64], move_K2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where small moves lead: on, or along x or along y only, or nowhere."""
    there_K2 = position_K2 + move_K2
    for kept in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        blocked_K = ~is_free(there_K2)
        there_K2[blocked_K] = (position_K2 + move_K2 * kept)[blocked_K]
    return there_K2
