"""Checks that the scenes, objects and arrangements of a run are on disk, before it starts.

Nothing is downloaded. `KNOWN` lists the paper's data sets and says how to get them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from envs.habitat.scene_files import Arrangement, DataError, SceneDataset, damage, read_episodes

_DOWNLOAD: Final = "python -m habitat_sim.utils.datasets_download --data-path data --uids"


@dataclass(frozen=True, slots=True)
class Known:
    """Something that a run may need on disk."""

    name: str
    path: str
    """From the folder that holds `data`."""
    how: str
    """How to get it."""


KNOWN: Final = (
    Known(
        "HSSD scenes",
        "data/scene_datasets/hssd-hab/hssd-hab-uncluttered.scene_dataset_config.json",
        f"{_DOWNLOAD} hssd-hab",
    ),
    Known(
        "ReplicaCAD scenes",
        "data/replica_cad/replicaCAD.scene_dataset_config.json",
        f"{_DOWNLOAD} replica_cad_dataset",
    ),
    Known("YCB objects", "data/objects/ycb/configs", f"{_DOWNLOAD} ycb"),
    *(
        Known(
            f"{name} episodes, {split}",
            f"data/datasets/ext_objnav/{folder}/{split}.json.gz",
            "the paper's are on Hugging Face, aielawady/ExtObjNav; or make some: "
            "python -m envs.habitat arrange ... (docs/HABITAT.md)",
        )
        for name, folder in (("HSSD", "hssd"), ("ReplicaCAD", "replica_cad"))
        for split in ("train", "val")
    ),
)
"""What the experiments `hssd`, `hssd_64k` and `replica_cad` read."""


def status(item: Known, folder: Path) -> str | None:
    """Return what is wrong with an item in a folder, or None."""
    path = folder / item.path
    if path.is_dir():
        return None if any(path.iterdir()) else "is empty"
    return damage(path)


VERSION: Final = 1
"""Part of every dataset's name; raised when a trial number comes to mean something else."""
_SHOWN: Final = 5
"""Problems that a message lists."""


class NavmeshMode(StrEnum):
    """Where the free space of a scene comes from."""

    FILE = "file"
    """A navmesh that comes with the scene; it must be there."""
    COMPUTE = "compute"
    """Computed from the scene for the task's agent, once, and kept in the cache."""


@dataclass(frozen=True, slots=True)
class OpenScene:
    """What a worker needs to open an arrangement."""

    arrangement: Arrangement
    scene: Path
    navmesh: Path
    config_paths: tuple[Path, ...]
    sources: tuple[Path, ...]
    """Files of the dataset that scene and free space come from. Those of objects are not among
    them."""


class HabitatData:
    """A scene dataset with a file of arrangements. Trial t is arrangement t of the file."""

    def __init__(
        self,
        scene_dataset: str | Path,
        episodes: str | Path,
        *,
        objects: Sequence[str | Path] = (),
        navmesh: NavmeshMode = NavmeshMode.FILE,
        cache: Path,
        agent_radius: float = 0.25,
        refuse: bool = True,
    ) -> None:
        """Find and check all files.

        Args:
            scene_dataset: configuration of the dataset.
            episodes: file of arrangements.
            objects: further directories with configurations of objects.
            navmesh: where free space comes from.
            cache: directory that computed navmeshes are kept in.
            agent_radius: what they are computed for.
            refuse: whether to raise if `problems` finds any.

        Raises:
            DataError: Files are missing or damaged; the message names the first of them.
        """
        self.episodes = Path(episodes).expanduser().absolute()
        try:
            self.dataset = SceneDataset(Path(scene_dataset).expanduser().absolute())
            self.arrangements = read_episodes(self.episodes)
        except DataError as error:
            if not refuse:
                raise
            raise DataError(
                f"Habitat: scenes and episodes must be there and whole, but {error}. See what is "
                f"missing, and how to get it, with: {sys.executable} -m envs.habitat check"
            ) from None
        self._scenes = sorted(self.dataset.scenes)
        self._objects = tuple(Path(p).expanduser().absolute() for p in objects)
        self._mode, self._cache, self._radius = navmesh, cache, agent_radius
        problems = self.problems() if refuse else []
        if problems:
            more = len(problems) - _SHOWN
            listed = "; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
            raise DataError(
                f"Habitat: all files of {self.episodes.name} must be there and whole, but "
                f"{listed}. "
                f"List all with: {sys.executable} -m envs.habitat check {self.dataset.config} "
                f"{self.episodes}"
            )

    @property
    def name(self) -> str:
        """The name of the dataset, which changes with the meaning of its numbers."""
        digests = "".join(a.digest for a in self.arrangements)
        digest = hashlib.sha256(digests.encode()).hexdigest()[:12]
        return f"habitat-v{VERSION}/{self.dataset.name}/{digest}"

    def open(self, index: int) -> OpenScene:
        """Return what a worker needs to open an arrangement."""
        arrangement = self.arrangements[index]
        navmesh = self._navmesh(arrangement.scene)
        assert navmesh is not None
        scene = self.dataset.scene(arrangement.scene)
        # The name of a computed navmesh holds what it comes from.
        sources = (scene, navmesh) if self._mode is NavmeshMode.FILE else (scene,)
        return OpenScene(
            arrangement, scene, navmesh, self._config_paths(arrangement), sources=sources
        )

    def scene_number(self, index: int) -> int:
        """Return the number of an arrangement's scene in the dataset."""
        return self._scenes.index(self.arrangements[index].scene)

    def problems(self) -> list[str]:
        """List all that is missing or damaged, each once, in the order of the file."""
        # A dict, as a set would lose the order.
        found: dict[str, None] = {}
        seen: set[tuple[str, frozenset[str]]] = set()
        for arrangement in self.arrangements:
            key = (arrangement.scene, frozenset(o.template for o in arrangement.objects))
            if key in seen:
                continue
            # Arrangements of the same objects in a scene lack the same files.
            seen.add(key)
            paths = self._config_paths(arrangement)
            found |= dict.fromkeys(self.dataset.problems(arrangement, paths))
            if arrangement.scene in self.dataset.scenes and not self._navmesh(arrangement.scene):
                found[f"scene {arrangement.scene} has no navmesh (navmesh='compute' makes one)"] = (
                    None
                )
        return list(found)

    def _navmesh(self, scene: str) -> Path | None:
        return navmesh_path(self.dataset, scene, self._mode, self._cache, self._radius)

    def _config_paths(self, arrangement: Arrangement) -> tuple[Path, ...]:
        """Return the directories of an arrangement's objects that exist.

        Published files name them from the folder that Habitat is run in, above `data`.
        """
        found = list(self._objects)
        bases = [Path.cwd(), self.episodes.parent, self.dataset.root, *self.dataset.root.parents]
        for named in arrangement.config_paths:
            found += [base / named for base in bases if (base / named).is_dir()][:1]
        return tuple(found)


def navmesh_path(
    dataset: SceneDataset, scene: str, mode: NavmeshMode, cache: Path, agent_radius: float
) -> Path | None:
    """Return the file of a scene's free space; None if it should be there and is not."""
    if mode is NavmeshMode.FILE:
        return dataset.navmesh(scene)
    settings = dataset.navmesh_settings
    # The name holds all that a navmesh depends on, so that none is read for another scene.
    digest = hashlib.sha256(dataset.scene(scene).read_bytes())
    digest.update(b"" if settings is None else settings.read_bytes())
    cache.mkdir(parents=True, exist_ok=True)
    return cache / f"{scene}-{digest.hexdigest()[:12]}-radius{agent_radius:g}.navmesh"
