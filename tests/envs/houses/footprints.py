"""Distances from points to obstacle footprints, slowly and by other means than the kernels.

Footprints are outlined densely; the distance is that to the nearest point of the outline.
"""

from __future__ import annotations

import numpy as np

from envs.houses.scene import Kind, Primitives

_OUTLINE = 1200


def outline(kind: int, half_x: float, half_y: float) -> np.ndarray:
    """Return points (K, 2) around a footprint in its own frame."""
    t = np.linspace(0.0, 1.0, _OUTLINE, endpoint=False)
    if kind != Kind.BOX:
        return np.stack([half_x * np.cos(2 * np.pi * t), half_y * np.sin(2 * np.pi * t)], 1)
    side = np.linspace(-1.0, 1.0, _OUTLINE // 4)
    one = np.ones_like(side)
    square = [(side, one), (side, -one), (one, side), (-one, side)]
    return np.concatenate([np.stack(s, 1) for s in square]) * (half_x, half_y)


def footprint_distances(
    primitives: Primitives, points_K2: np.ndarray, z_band: tuple[float, float] = (0.05, 1.4)
) -> np.ndarray:
    """Return each point's distance to the nearest obstacle, 0 inside one; error below 3 mm."""
    best = np.full(len(points_K2), np.inf)
    for p in range(len(primitives)):
        center = primitives.center_P3[p].astype(float)
        half = primitives.half_P3[p].astype(float)
        kind = int(primitives.kind_P[p])
        heights = np.linspace(center[2] - half[2], center[2] + half[2], 2001)
        heights = heights[(heights > z_band[0] + 1e-4) & (heights < z_band[1] - 1e-4)]
        if len(heights) == 0:
            continue
        scale = 1.0
        if kind == Kind.ELLIPSOID:
            scale = np.sqrt(1 - ((heights - center[2]) / half[2]) ** 2).max()
        hx, hy = half[:2] * scale
        yaw = float(primitives.yaw_P[p])
        rotate = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
        local = (points_K2 - center[:2]) @ rotate.T
        if kind == Kind.BOX:
            inside = (np.abs(local) <= (hx, hy)).all(1)
        else:
            inside = ((local / (hx, hy)) ** 2).sum(1) <= 1.0
        # Only points that this obstacle could be nearest to are worth the outline.
        near = np.flatnonzero(np.linalg.norm(local, axis=1) - max(hx, hy) * 1.5 < best)
        ring = outline(kind, hx, hy)
        away = np.full(len(points_K2), np.inf)
        for chunk in np.array_split(near, max(len(near) // 500, 1)):
            gap = local[chunk, None, :] - ring[None]
            away[chunk] = np.sqrt((gap**2).sum(2).min(1))
        best = np.minimum(best, np.where(inside, 0.0, away))
    return best
