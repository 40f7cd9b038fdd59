"""What must hold of a scene before kernels read it, because kernels check nothing.

Shape suffixes: P primitives, F faces, M materials.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.houses.scene import Kind, Scene


def check_scene(scene: Scene, *, max_rooms: int, num_tiles: int) -> None:
    """Refuse a scene unless every index and number of it may be followed blindly.

    Args:
        scene: what is to be drawn.
        max_rooms: most rooms that the kernels can tell apart.
        num_tiles: tiles that materials can name.

    Raises:
        ValueError: The message says which number is wrong.
    """
    house, solids, materials = scene.house, scene.primitives, scene.materials
    name = f"Scene of house {house.seed}"
    numbers = (solids.center_P3, solids.half_P3, solids.yaw_P, materials.rgb_M3, materials.repeat_M)
    if not all(np.isfinite(array).all() for array in numbers):
        raise ValueError(f"{name}: geometry and materials must be finite. Fix the generator.")
    if not 1 <= len(house.rooms) <= max_rooms:
        raise ValueError(
            f"{name}: rooms must be 1 to {max_rooms}, got {len(house.rooms)}. Change the plan."
        )
    used = [solids.material_PF.ravel()]
    used += [np.array([r.floor_material, r.ceiling_material]) for r in house.rooms]
    _check_range(f"{name}: material indices", np.concatenate(used), len(materials.tile_M))
    _check_range(f"{name}: tile indices", materials.tile_M, num_tiles)
    _check_range(f"{name}: primitive kinds", solids.kind_P, len(Kind))
    ends = np.array([end for d in house.doors for end in (d.room_a, d.room_b)], np.int64)
    _check_range(f"{name}: door rooms", ends, len(house.rooms))
    _check_range(f"{name}: instance ids", solids.instance_P, 1 << 15)
    if (solids.half_P3 <= 0.0).any():
        raise ValueError(
            f"{name}: half extents must be positive, got {solids.half_P3.min()}. Drop such solids."
        )


def _check_range(what: str, index: NDArray[np.integer], size: int) -> None:
    """Raise ValueError unless all indices are in [0, size)."""
    if index.size and (index.min() < 0 or index.max() >= size):
        raise ValueError(
            f"{what} must be in [0, {size}), got {index.min()} to {index.max()}. Fix the generator."
        )
