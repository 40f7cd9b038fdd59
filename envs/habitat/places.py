"""Opens scenes in workers, and keeps what is known of them: in memory a few, viewpoints on disk.

Viewpoints of an arrangement are computed once, object by object, by one worker; then every run
with the same rules reads them.

Shape suffixes: K some of the rows, I objects, V viewpoints.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from envs.core.process_pool import Lost
from envs.habitat.agents import Call
from envs.habitat.data import HabitatData, OpenScene
from envs.habitat.place import Place, ViewpointStore
from envs.habitat.scene_files import SceneDataset
from envs.habitat.setting import Setting
from envs.habitat.worker.viewpoints import VERSION

_KEPT: Final = 64
"""Places that are kept in memory."""


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
        self._known: OrderedDict[int, Place] = OrderedDict()

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
            self.forget(row)
        fresh = {wanted[row]: (row, fact) for row, fact in facts.items()}
        unknown = {i: rf for i, rf in fresh.items() if i not in self._known}
        for index, viewpoints_I in self._viewpoints(
            {i: r for i, (r, _) in unknown.items()}
        ).items():
            self._keep(index, self._place(index, unknown[index][1], viewpoints_I))
        return {
            row: self._known[index]
            for row, index in wanted.items()
            if self._open.get(row) == index and index in self._known
        }

    def _keep(self, index: int, place: Place) -> None:
        """Remember a place, and forget the oldest that no row has open."""
        self._known[index] = place
        used = set(self._open.values())
        for old in [i for i in self._known if i not in used][: max(len(self._known) - _KEPT, 0)]:
            del self._known[old]

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
        content = hashlib.sha256(scene.scene.read_bytes()).hexdigest()
        facts = (VERSION, content, scene.navmesh.name, sorted(self._rules.items()))
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
        return f"{arrangement.scene}-{arrangement.digest}-{digest}"
