"""The open scenes of the workers as the task rules see them, and what is cached of each.

A few places are kept in memory. Viewpoints of an arrangement are computed once, object by object,
by one worker, and kept on disk; then every run with the same rules reads them.

Shapes: K some of the rows, T triangles, V viewpoints, I objects.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.core.process_pool import Lost
from envs.core.vector import Rows
from envs.habitat.data import HabitatData, OpenScene
from envs.habitat.scene_files import SceneDataset
from envs.habitat.setting import Setting
from envs.habitat.worker.viewpoints import VERSION
from envs.objectnav.goals import GOAL_CATEGORIES
from envs.objectnav.rules import Goal

_KEPT: Final = 64
"""Places that are kept in memory."""


class Call(Protocol):
    """Calls a method of the workers of some rows; what is lost gives `Lost`."""

    def __call__(
        self, rows: Rows, method: str, arguments: Sequence[Sequence[Any]], *, show: bool
    ) -> list[Any]:
        """Return what each returned; with `show`, without the observation, which is kept."""
        ...


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
        # Rounding may put a draw at the very end of the sum.
        corners_33 = self.triangles_T33[min(triangle, len(self.triangles_T33) - 1)].astype(float)
        # Two sorted draws cut [0, 1] into three shares that spread evenly over a triangle.
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
        # Written beside its place and moved there, so that no reader sees a part of it.
        with tempfile.NamedTemporaryFile(dir=self.directory, suffix=".part", delete=False) as file:
            np.savez_compressed(file, **columns)
        os.replace(file.name, self._path(key))

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.npz"


def open_arguments(
    dataset: SceneDataset, scene: Path, navmesh: Path, agent: Mapping[str, float]
) -> dict[str, Any]:
    """Return what a worker's `Backend.open_scene` wants, by name.

    Args:
        dataset: the scene's.
        scene: file of the scene instance.
        navmesh: file of its free space.
        agent: whom that is computed for, see `Setting.navmesh_rules`.
    """
    settings = dataset.navmesh_settings
    return {
        **agent,
        "scene": str(scene),
        "navmesh": str(navmesh),
        "navmesh_settings": None if settings is None else str(settings),
    }


class Places:
    """What each row's worker has open."""

    def __init__(self, data: HabitatData, setting: Setting, call: Call) -> None:
        """Prepare for workers that have nothing open.

        Args:
            data: the arrangements.
            setting: how agents move and look.
            call: reaches the workers.
        """
        self._data, self._call = data, call
        self._store = ViewpointStore(setting.cache / "viewpoints")
        self._rules, self._navmesh = setting.viewpoint_rules, setting.navmesh_rules
        self._gpus = setting.gpus
        self._open: dict[int, int] = {}
        self.known: OrderedDict[int, Place] = OrderedDict()

    def forget(self, row: int) -> None:
        """Take note that a row's worker has started anew."""
        self._open.pop(row, None)

    def open(self, wanted: Mapping[int, int]) -> dict[int, Place]:
        """Open arrangements in workers, unless they are open.

        Args:
            wanted: arrangement by row.

        Returns:
            Place by row; rows whose workers were lost on the way are absent.
        """
        rows = [row for row, index in wanted.items() if self._open.get(row) != index]
        facts = self._ask(rows, "open", [self._arguments(row, wanted[row]) for row in rows])
        self._open |= {row: wanted[row] for row in facts}
        for row in set(rows) - facts.keys():
            # What a lost worker had open is gone with it.
            self.forget(row)
        fresh = {wanted[row]: (row, fact) for row, fact in facts.items()}
        unknown = {i: rf for i, rf in fresh.items() if i not in self.known}
        for index, viewpoints_I in self._viewpoints(
            {i: r for i, (r, _) in unknown.items()}
        ).items():
            self._keep(index, self._place(index, unknown[index][1], viewpoints_I))
        return {
            row: self.known[index]
            for row, index in wanted.items()
            if self._open.get(row) == index and index in self.known
        }

    def _keep(self, index: int, place: Place) -> None:
        """Remember a place, and forget the oldest that no row has open."""
        self.known[index] = place
        used = set(self._open.values())
        for old in [i for i in self.known if i not in used][: max(len(self.known) - _KEPT, 0)]:
            del self.known[old]

    def _place(
        self, index: int, fact: Mapping[str, Any], viewpoints_I: Sequence[NDArray[np.float32]]
    ) -> Place:
        instances: dict[int, tuple[int, ...]] = {}
        for number, item in enumerate(self._data.arrangements[index].objects):
            if item.category >= 0 and len(viewpoints_I[number]):
                instances[item.category] = (*instances.get(item.category, ()), number)
        triangles_T33 = np.asarray(fact["triangles"], np.float32)
        centers_I3 = np.asarray(fact["centers"], np.float64)
        return Place(triangles_T33, centers_I3, viewpoints_I, instances)

    def _viewpoints(self, row_of: Mapping[int, int]) -> dict[int, list[NDArray[np.float32]]]:
        """Return viewpoints by arrangement, computed by a row that has it open where need be."""
        found: dict[int, list[NDArray[np.float32]]] = {}
        computing: dict[int, list[NDArray[np.float32]]] = {}
        for index in row_of:
            saved = self._store.load(self._key(index), self._num_objects(index))
            if saved is None:
                computing[index] = []
            else:
                found[index] = saved
        while computing:
            due = [i for i in computing if len(computing[i]) < self._num_objects(i)]
            for index in computing.keys() - set(due):
                self._store.save(self._key(index), computing[index])
                found[index] = computing.pop(index)
            answers = self._compute({i: len(computing[i]) for i in due}, row_of)
            for index in due:
                if index in answers:
                    computing[index].append(answers[index])
                else:
                    del computing[index]  # its worker was lost
        return found

    def _compute(
        self, numbers: Mapping[int, int], row_of: Mapping[int, int]
    ) -> dict[int, NDArray[np.float32]]:
        """Compute the viewpoints of one object of each of some arrangements."""
        none = np.zeros((0, 3), np.float32)
        found = {i: none for i, n in numbers.items() if self._category(i, n) < 0}
        asked = [i for i in numbers if i not in found]
        arguments = [(numbers[i], self._rules) for i in asked]
        answers = self._ask([row_of[i] for i in asked], "viewpoints", arguments)
        found |= {
            i: np.asarray(answers[row_of[i]], np.float32).reshape(-1, 3)
            for i in asked
            if row_of[i] in answers
        }
        return found

    def _ask(
        self, rows: Sequence[int], method: str, arguments: Sequence[Sequence[Any]]
    ) -> dict[int, Any]:
        """Call workers; return what those that live have answered."""
        if not rows:
            return {}
        answers = self._call(np.array(rows), method, arguments, show=False)
        return {r: a for r, a in zip(rows, answers, strict=True) if not isinstance(a, Lost)}

    def _arguments(self, row: int, index: int) -> tuple[Any, ...]:
        """Return the arguments of the worker's `open`."""
        scene: OpenScene = self._data.open(index)
        arrangement = scene.arrangement
        return (
            self._gpus[row % len(self._gpus)],
            open_arguments(self._data.dataset, scene.scene, scene.navmesh, self._navmesh),
            [[o.template, o.pose, o.category] for o in arrangement.objects],
            [str(path) for path in scene.config_paths],
            {name: dict(joints) for name, joints in arrangement.joints},
        )

    def _num_objects(self, index: int) -> int:
        return len(self._data.arrangements[index].objects)

    def _category(self, index: int, number: int) -> int:
        return self._data.arrangements[index].objects[number].category

    def _key(self, index: int) -> str:
        """Name what an arrangement's viewpoints depend on."""
        arrangement = self._data.arrangements[index]
        scene = self._data.open(index)
        content = [hashlib.sha256(path.read_bytes()).hexdigest() for path in scene.sources]
        facts = (VERSION, *content, scene.navmesh.name, sorted(self._rules.items()))
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
        return f"{arrangement.scene}-{arrangement.digest}-{digest}"
