"""One scene with one arrangement as the rules of the task see it, and where viewpoints are kept.

Shape suffixes: T triangles, V viewpoints, I goal instances.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.houses.scene import GOAL_CATEGORIES
from envs.objectnav.rules import Goal


@dataclass(frozen=True)
class Place:
    """What a worker said of a scene, and the viewpoints of its goal objects."""

    triangles_T33: NDArray[np.float32]
    """Free space of the largest connected part; corners, x y z."""
    centers_I3: NDArray[np.float64]
    """Of the movable objects."""
    viewpoints_I: Sequence[NDArray[np.float32]]
    """Where the agent can stand to see each, (V, 3)."""
    goal_instances: dict[int, tuple[int, ...]]
    """The objects that can be seen from somewhere, by category."""
    _cumulative_T: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        """Measure the triangles."""
        edges_T22 = (self.triangles_T33[:, 1:, :2] - self.triangles_T33[:, :1, :2]).astype(float)
        (ax, ay), (bx, by) = edges_T22[:, 0].T, edges_T22[:, 1].T
        object.__setattr__(self, "_cumulative_T", np.cumsum(0.5 * np.abs(ax * by - ay * bx)))

    @property
    def area(self) -> float:
        """Square metres of free space."""
        return float(self._cumulative_T[-1])

    def random_position(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Draw a position uniformly over free space."""
        drawn = rng.random() * self.area
        triangle = int(np.searchsorted(self._cumulative_T, drawn, side="right"))
        corners_33 = self.triangles_T33[min(triangle, len(self.triangles_T33) - 1)].astype(float)
        a, b = sorted(rng.random(2).tolist())
        x, y, z = (np.array([a, b - a, 1.0 - b]) @ corners_33).tolist()
        return x, y, z

    def goal_points(self, goal: Goal) -> NDArray[np.float32]:
        """Return the viewpoints of all instances of a goal, (V, 3)."""
        return np.concatenate([self.viewpoints_I[i] for i in goal.instances])


@dataclass(frozen=True)
class RowScene:
    """A place that a row is in. Answers the questions of `envs.objectnav.rules.TaskScene`."""

    place: Place
    ask: Callable[[tuple[float, float, float], Goal], float]
    """Asks the row's worker for a walking distance."""
    num_categories: int = len(GOAL_CATEGORIES)

    @property
    def goal_instances(self) -> dict[int, tuple[int, ...]]:
        """The objects that can be seen from somewhere, by category."""
        return self.place.goal_instances

    def random_position(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Draw a position uniformly over free space."""
        return self.place.random_position(rng)

    def distance(self, position: tuple[float, float, float], goal: Goal) -> float:
        """Return the walking distance from a position to the goal's nearest viewpoint."""
        return self.ask(position, goal)


class ViewpointStore:
    """Viewpoints on disk, one file for each arrangement and way to compute them."""

    def __init__(self, directory: Path) -> None:
        """Keep files in a directory, which is made when it is needed."""
        self.directory = directory

    def load(self, key: str, count: int) -> list[NDArray[np.float32]] | None:
        """Return the viewpoints of `count` objects, or None if they are not there."""
        path = self._path(key)
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as saved:
            points, ends = saved["points"], saved["ends"]
        return np.split(points, ends[:-1]) if len(ends) == count else None

    def save(self, key: str, viewpoints_I: Sequence[NDArray[np.float32]]) -> None:
        """Write viewpoints; a reader sees all of them or none."""
        self.directory.mkdir(parents=True, exist_ok=True)
        columns: dict[str, Any] = {
            "points": np.concatenate([np.zeros((0, 3), np.float32), *viewpoints_I]),
            "ends": np.cumsum([len(v) for v in viewpoints_I]),
        }
        with tempfile.NamedTemporaryFile(dir=self.directory, suffix=".part", delete=False) as file:
            np.savez_compressed(file, **columns)
        os.replace(file.name, self._path(key))

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.npz"
