"""What an agent of ExtObjNav earns, how it is scored, and what its odometry says. Pure formulas.

Sources: SPL is that of Anderson et al. 2018 (arXiv 1807.06757), SoftSPL that of Datta et al. 2020
(arXiv 2009.03231), `gps` and `compass` follow Habitat's episodic sensors.

Shape suffixes: N rows, I goal instances.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.objectnav_config import ObjectNavConfig

Array = NDArray[Any]


def reward(
    config: ObjectNavConfig, before_N: Array, after_N: Array, success_N: Array
) -> NDArray[np.float64]:
    """Reward of a step: metres gained, plus slack, plus what success earns.

    Args:
        config: The task.
        before_N: Geodesic distance to the goal before the step.
        after_N: The same after it.
        success_N: Whether the step was a stop that succeeded.
    """
    progress_N = config.progress_reward * (np.asarray(before_N) - np.asarray(after_N))
    return progress_N + config.slack_reward + config.success_reward * np.asarray(success_N)


def near_instances(
    config: ObjectNavConfig, x: float, y: float, instance_xy_I2: Array
) -> NDArray[np.bool_]:
    """Which instances are within `success_distance` of (x, y), horizontally."""
    return np.hypot(instance_xy_I2[:, 0] - x, instance_xy_I2[:, 1] - y) <= config.success_distance


def succeeded(config: ObjectNavConfig, near_I: Array, pixels_I: Array) -> bool:
    """Whether a stop here succeeds: one and the same instance is near and in view."""
    return bool(np.any(np.asarray(near_I) & (np.asarray(pixels_I) >= config.success_pixels)))


def _efficiency(start_N: Array, path_N: Array) -> NDArray[np.float64]:
    longest_N = np.maximum(start_N, path_N)
    return np.divide(start_N, longest_N, out=np.ones_like(longest_N), where=longest_N > 0)


def spl(success_N: Array, start_N: Array, path_N: Array) -> NDArray[np.float64]:
    """Success weighted by path length: success * d0 / max(d0, path).

    d0 is the geodesic distance at the start and the path is the sum of the base's displacements.
    An episode that starts on a viewpoint (d0 = 0) and succeeds without leaving the spot was
    perfect: 1. If it walked first it is 0, which is the formula's limit.
    """
    start_N, path_N = np.asarray(start_N, np.float64), np.asarray(path_N, np.float64)
    return np.asarray(success_N, np.float64) * _efficiency(start_N, path_N)


def soft_spl(end_N: Array, start_N: Array, path_N: Array) -> NDArray[np.float64]:
    """SPL with progress in the place of success: max(0, 1 - dT / d0) * d0 / max(d0, path).

    From d0 = 0 progress is 1 if the episode ended there too (dT = 0), else 0.
    """
    end_N, start_N = np.asarray(end_N, np.float64), np.asarray(start_N, np.float64)
    share_N = np.divide(
        end_N, start_N, out=np.where(end_N > 0, 1.0, 0.0), where=np.asarray(start_N > 0)
    )
    efficiency_N = _efficiency(start_N, np.asarray(path_N, np.float64))
    return np.maximum(0.0, 1.0 - share_N) * efficiency_N


def gps(x_N: Array, y_N: Array, origin_N: tuple[Array, Array, Array]) -> NDArray[np.float32]:
    """Displacement (forward, right), (N, 2), in the frame of the origin's (x, y, heading).

    Axes as Habitat's episodic GPS sensor. The origin is the start of the trial's first episode, so
    the frame lasts for the whole trial.
    """
    dx_N, dy_N = x_N - origin_N[0], y_N - origin_N[1]
    cos_N, sin_N = np.cos(origin_N[2]), np.sin(origin_N[2])
    moved_N2 = np.empty((*np.shape(dx_N), 2), np.float32)
    moved_N2[..., 0] = dx_N * cos_N + dy_N * sin_N
    moved_N2[..., 1] = dx_N * sin_N - dy_N * cos_N
    return moved_N2


def compass(heading_N: Array, origin_heading_N: Array) -> NDArray[np.float32]:
    """Heading relative to the origin's, (N, 1), in [-pi, pi), counter-clockwise positive."""
    turned_N = np.mod(heading_N - origin_heading_N + np.pi, 2.0 * np.pi) - np.pi
    return turned_N[..., None].astype(np.float32)
