"""The pinhole camera: the ray of each pixel.

The eye is `EYE_HEIGHT` above the agent's centre. The ray of pixel (column i, row j) is
`d = ray + i * step * right - j * step * up`, scaled so that its component along the optical axis
is 1: a hit at `eye + t d` has the depth t. Pixels are square and i = 0, j = 0 is the centre of
the upper left one.

Shapes: N rows, C the numbers of one camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.houses.scene import FloatArray
from envs.objectnav.config import EYE_HEIGHT

EYE: Final = 0
FORWARD: Final = 3
RIGHT: Final = 6
UP: Final = 9
RAY: Final = 12
STEP: Final = 15
CAMERA_SIZE: Final = 16
"""Offsets into a packed camera: three vectors of the body, the first ray, the pixel's size."""


@dataclass(frozen=True, slots=True)
class Camera:
    """Resolution and field of view, shared by all rows."""

    width: int
    height: int
    hfov: float
    """Horizontal field of view in radians; the vertical one follows from the aspect."""

    @property
    def step(self) -> float:
        """Width of a pixel at depth 1."""
        return 2.0 * math.tan(0.5 * self.hfov) / self.width

    @property
    def vfov(self) -> float:
        """Vertical field of view in radians."""
        return 2.0 * math.atan(0.5 * self.step * self.height)

    def scaled(self, factor: int) -> Camera:
        """Return the same view with `factor` times as many pixels per axis."""
        return Camera(self.width * factor, self.height * factor, self.hfov)

    def pack(self, pose_4N: NDArray[np.float64]) -> FloatArray:
        """Return the packed cameras of poses (x, y, heading, pitch), shape (N, CAMERA_SIZE)."""
        packed_NC = np.empty((pose_4N.shape[1], CAMERA_SIZE), np.float32)
        _pack(pose_4N, self.step, np.array([self.width, self.height], np.float64), packed_NC)
        return packed_NC


@njit(cache=True, nogil=True)
def _pack(
    pose_4N: NDArray[np.float64], step: float, size_2: NDArray[np.float64], packed_NC: FloatArray
) -> None:
    """Fill `packed_NC`. In float64, so that CPU and GPU draw from the same numbers."""
    # Rays go through pixel centres, so the first one is half a pixel inside the image's corner.
    left = (0.5 - 0.5 * size_2[0]) * step
    top = (0.5 * size_2[1] - 0.5) * step
    for n in range(pose_4N.shape[1]):
        ch, sh = math.cos(pose_4N[2, n]), math.sin(pose_4N[2, n])
        cp, sp = math.cos(pose_4N[3, n]), math.sin(pose_4N[3, n])
        packed = packed_NC[n]
        packed[EYE], packed[EYE + 1], packed[EYE + 2] = pose_4N[0, n], pose_4N[1, n], EYE_HEIGHT
        forward = (ch * cp, sh * cp, sp)
        # Level, as the camera never rolls. Kernels rely on it: a step by column changes no height.
        right = (sh, -ch, 0.0)
        up = (-ch * sp, -sh * sp, cp)
        for a in range(3):
            packed[FORWARD + a], packed[RIGHT + a], packed[UP + a] = forward[a], right[a], up[a]
            # Not of length 1: only so is a ray affine in column and row, and t the depth.
            packed[RAY + a] = forward[a] + left * right[a] + top * up[a]
        packed[STEP] = step
