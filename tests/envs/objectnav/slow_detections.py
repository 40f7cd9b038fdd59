"""What is seen of goal objects, derived the slow way: by a ray per pixel, in the house's frame."""

from __future__ import annotations

import numpy as np


def directions(shape: tuple[int, int], hfov: float, heading: float, pitch: float) -> np.ndarray:
    """Return the rays through the pixels' centres, one metre long along the axis, (H, W, 3)."""
    height, width = shape
    across = np.tan(0.5 * hfov) * (2.0 * (np.arange(width) + 0.5) / width - 1.0)
    down = np.tan(0.5 * hfov) * (2.0 * (np.arange(height) + 0.5) - height) / width
    axis = np.array(
        [np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)]
    )
    right = np.array([np.sin(heading), -np.cos(heading), 0.0])
    up = np.cross(right, axis)
    return axis + across[None, :, None] * right - down[:, None, None] * up


def slow_detections(depth_HW, semantic_HW, instance_HW, rays_HW3, heading, num_categories=20):
    """Return what is seen of each category, (C, 4): in view, pixels, metres ahead and right.

    The eye is at the agent's middle.
    """
    points_HW3 = depth_HW.astype(float)[..., None] * rays_HW3
    facing = np.array([np.cos(heading), np.sin(heading)])
    right = np.array([np.sin(heading), -np.cos(heading)])
    seen_C4 = np.zeros((num_categories, 4))
    for category in range(num_categories):
        shown = (semantic_HW == 100 + category) & (instance_HW > 0)
        if not shown.any():
            continue
        places = [
            points_HW3[shown & (instance_HW == i)].mean(axis=0)[:2]
            for i in np.unique(instance_HW[shown])
        ]
        nearest = min(places, key=np.linalg.norm)
        seen_C4[category] = 1.0, shown.sum(), nearest @ facing, nearest @ right
    return seen_C4


def slow_scan(depth_HW, columns=16, most=10.0):
    """Return the least depth in bands of columns of the middle quarter of the rows."""
    height = len(depth_HW)
    middle = depth_HW[(height - height // 4) // 2 :][: height // 4]
    bands = np.split(middle, columns, axis=1)
    return [min(most, np.where(band > 0, band, np.inf).min()) for band in bands]
