"""Exact shortest paths among inflated obstacles, slowly: a visibility graph of their outlines.

The reference for `envs.houses.navigation.geodesic`. No grid: every inflated obstacle becomes a
convex polygon around it (with arcs at the corners), and Dijkstra runs over all polygon corners that
see each other. Shares no code with the implementation.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from envs.houses.scene import Kind, Primitives

_ARC = 7


def inflated_polygon(kind, center, half, yaw, radius) -> np.ndarray:
    """Return the corners (C, 2) of a convex polygon around one inflated footprint."""
    angles = np.linspace(0, 2 * np.pi, 4 * _ARC, endpoint=False) + np.pi / (4 * _ARC)
    if kind == Kind.BOX:
        corner = np.sign(np.stack([np.cos(angles), np.sin(angles)], 1)) * half[:2]
        grow = 1 / np.cos(np.pi / (4 * _ARC))
        local = corner + radius * grow * np.stack([np.cos(angles), np.sin(angles)], 1)
        # The arc's ends stick out along the sides by less than a millimetre.
    else:
        a, b = half[:2]
        # Outline of the offset ellipse, by its outward normals, pushed out to contain it.
        nx, ny = np.cos(angles), np.sin(angles)
        support = np.hypot(a * nx, b * ny) + radius
        nxt, support_next = np.roll(angles, -1), np.roll(support, -1)
        det = np.sin(nxt - angles)
        local = np.stack(
            [
                (support * np.sin(nxt) - support_next * np.sin(angles)) / det,
                (support_next * np.cos(angles) - support * np.cos(nxt)) / det,
            ],
            1,
        )
    cos, sin = np.cos(yaw), np.sin(yaw)
    return local @ np.array([[cos, sin], [-sin, cos]]) + center[:2]


class AnyAngle:
    """Shortest distances among obstacles that overlap the agent's heights."""

    def __init__(self, primitives: Primitives, radius: float, z_band=(0.05, 1.4)):
        self.polygons = []
        for p in range(len(primitives)):
            center, half = (
                primitives.center_P3[p].astype(float),
                primitives.half_P3[p].astype(float),
            )
            if center[2] - half[2] >= z_band[1] or center[2] + half[2] <= z_band[0]:
                continue
            self.polygons.append(
                inflated_polygon(primitives.kind_P[p], center, half, primitives.yaw_P[p], radius)
            )
        corners = np.concatenate(self.polygons)
        self.corners = corners[~self.inside(corners)]
        self.edges = self._lengths(self.corners, self.corners)

    def inside(self, points_K2, slack: float = 1e-7):
        """Tell which points lie in the interior of an inflated obstacle."""
        hit = np.zeros(len(points_K2), bool)
        for polygon in self.polygons:
            edge = np.roll(polygon, -1, 0) - polygon
            normal = np.stack([edge[:, 1], -edge[:, 0]], 1) / np.linalg.norm(edge, axis=1)[:, None]
            away = np.einsum("kce,ec->kc", points_K2[:, None] - polygon[None], normal.T)
            hit |= (away < -slack).all(1)
        return hit

    def _lengths(self, a_K2, b_J2):
        """Return straight distances (K, J), infinite where an obstacle is in the way."""
        start = np.repeat(a_K2, len(b_J2), 0)
        along = np.tile(b_J2, (len(a_K2), 1)) - start
        blocked = np.zeros(len(start), bool)
        for polygon in self.polygons:
            todo = np.flatnonzero(~blocked)
            edge = np.roll(polygon, -1, 0) - polygon
            normal = np.stack([edge[:, 1], -edge[:, 0]], 1) / np.linalg.norm(edge, axis=1)[:, None]
            offset = (polygon * normal).sum(1) - 1e-7
            enter, leave = np.zeros(len(todo)), np.ones(len(todo))
            for n, c in zip(normal, offset, strict=True):
                speed, gap = along[todo] @ n, c - start[todo] @ n
                with np.errstate(divide="ignore", invalid="ignore"):
                    t = gap / speed
                enter = np.where(speed < 0, np.maximum(enter, t), enter)
                leave = np.where(speed > 0, np.minimum(leave, t), leave)
                leave = np.where((speed == 0) & (gap < 0), -1.0, leave)
            blocked[todo[leave - enter > 1e-9]] = True
        length = np.linalg.norm(along, axis=1)
        length[blocked] = np.inf
        return length.reshape(len(a_K2), len(b_J2))

    def distances(self, goals_K2, points_J2) -> np.ndarray:
        """Return each point's shortest distance to the nearest goal."""
        nodes = np.concatenate([self.corners, goals_K2])
        n, k = len(self.corners), len(goals_K2)
        to_goal = self._lengths(goals_K2, self.corners)
        matrix = np.full((n + k, n + k), np.inf)
        matrix[:n, :n], matrix[n:, :n], matrix[:n, n:] = self.edges, to_goal, to_goal.T
        row, column = np.nonzero(np.isfinite(matrix) & (matrix > 0))
        graph = coo_array((matrix[row, column], (row, column)), shape=matrix.shape).tocsr()
        from_goal = dijkstra(graph, indices=np.arange(n, n + k)).min(0)
        return (self._lengths(points_J2, nodes) + from_goal[None]).min(1)
