"""Counts an object's pixels the slow way: one ray per pixel against every primitive, in numpy.

The reference for `envs.houses.navigation.visibility`; shares no code with it.
"""

from __future__ import annotations

import numpy as np

from envs.houses.scene import Kind, Primitives


def hit_depth(primitives: Primitives, p: int, origin, direction_R3) -> np.ndarray:
    """Return each ray's parameter where it enters primitive p, infinite where it misses.

    Rays start at one origin (3,) or each at its own (R, 3).
    """
    yaw = float(primitives.yaw_P[p])
    turn = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    half = primitives.half_P3[p].astype(float)
    # In units of the half extents every solid is a unit cube, ball or cylinder.
    o = (np.asarray(origin) - primitives.center_P3[p].astype(float)) @ turn.T / half
    d = direction_R3 @ turn.T / half
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (-1 - o) / d, (1 - o) / d
        enter, leave = np.fmin(a, b), np.fmax(a, b)
        axes = {Kind.BOX: [0, 1, 2], Kind.CYLINDER: [2], Kind.ELLIPSOID: []}
        near = [enter[:, i] for i in axes[Kind(primitives.kind_P[p])]]
        far = [leave[:, i] for i in axes[Kind(primitives.kind_P[p])]]
        if primitives.kind_P[p] != Kind.BOX:
            w = np.array([1, 1, float(primitives.kind_P[p] == Kind.ELLIPSOID)])
            qa, qb = (w * d * d).sum(1), (w * d * o).sum(1)
            root = np.sqrt(qb * qb - qa * ((w * o * o).sum(-1) - 1))
            near.append((-qb - root) / qa)
            far.append((-qb + root) / qa)
    first, last = np.max(near, axis=0), np.min(far, axis=0)
    return np.where((first < last) & (first > 0), first, np.inf)


def count_pixels(
    primitives: Primitives, own: range, eye, heading: float, pitch: float, *, size: int = 256
) -> int:
    """Count the pixels of primitives `own` in a square image with a view of 90 degrees."""
    grid = (np.arange(size) + 0.5) / size * 2 - 1
    right, down = np.meshgrid(grid, grid)
    ahead = np.array(
        [np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)]
    )
    side = np.array([np.sin(heading), -np.cos(heading), 0.0])
    up = np.cross(side, ahead)
    rays = ahead + right.reshape(-1, 1) * side - down.reshape(-1, 1) * up
    eye = np.asarray(eye, float)
    # Rays that pass every own primitive's ball by cannot hit it.
    hits = np.zeros(len(rays), bool)
    for p in own:
        to = primitives.center_P3[p] - eye
        aside = np.linalg.norm(np.cross(rays, to), axis=1) / np.linalg.norm(rays, axis=1)
        hits |= aside <= np.linalg.norm(primitives.half_P3[p])
    rays = rays[hits]
    if not len(rays):
        return 0
    depth = np.min([hit_depth(primitives, p, eye, rays) for p in own], axis=0)
    lit = np.flatnonzero(np.isfinite(depth))
    for p in range(len(primitives)):
        if p not in own and len(lit):
            lit = lit[hit_depth(primitives, p, eye, rays[lit]) > depth[lit]]
    return len(lit)
