"""Habitat's frame and ours. Ours is z up; Habitat's is y up, so our (x, y, z) is its (x, z, -y).

A heading of 0 looks along +x and grows counter-clockwise; Habitat's agent looks along -z, so it is
turned by our heading less a quarter turn. Python 3.9; needs NumPy only.

Shape suffix: P points.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def to_habitat(point: Any) -> np.ndarray:
    """Return a point, or points (P, 3), in Habitat's frame."""
    point = np.asarray(point, np.float32)
    return np.stack([point[..., 0], point[..., 2], -point[..., 1]], axis=-1)


def from_habitat(point: Any) -> np.ndarray:
    """Return a point, or points (P, 3), of Habitat's frame in ours."""
    point = np.asarray(point, np.float32)
    return np.stack([point[..., 0], -point[..., 2], point[..., 1]], axis=-1)


def quaternion(matrix: np.ndarray) -> np.ndarray:
    """Return a rotation matrix (3, 3) as x, y, z, w, from its largest diagonal sum."""
    diagonal = np.append(np.diag(matrix), np.trace(matrix))
    i = int(np.argmax(diagonal))
    q = np.empty(4)
    if i == 3:
        q[:3] = (
            matrix[2, 1] - matrix[1, 2],
            matrix[0, 2] - matrix[2, 0],
            matrix[1, 0] - matrix[0, 1],
        )
        q[3] = 1.0 + diagonal[3]
    else:
        j, k = (i + 1) % 3, (i + 2) % 3
        q[i] = 1.0 - diagonal[3] + 2.0 * matrix[i, i]
        q[j] = matrix[j, i] + matrix[i, j]
        q[k] = matrix[k, i] + matrix[i, k]
        q[3] = matrix[k, j] - matrix[j, k]
    return q / np.linalg.norm(q)
