"""Habitat's files: a scene dataset, and the arrangements of movable objects in its scenes.

Arrangements are the rearrangement episodes of Habitat's published files, JSON compressed with gzip.
Their starts and targets are not read: where an agent starts, and what it is asked for, the rules of
ExtObjNav draw. Of all other files only names, JSON and first bytes are read, to say which are
missing or damaged; habitat-sim is not needed.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from envs.objectnav.goals import goal_of_asset

_LFS: Final = b"version https://git-lfs"
_GLB_MAGIC: Final = b"glTF"


def damage(path: Path) -> str | None:
    """Return what is wrong with a file, or None.

    A binary glTF says how long it is; any file may be one of Git LFS's pointers, which stand in
    for what was not downloaded.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not size:
        return "is empty"
    if head.startswith(_LFS):
        return "is a Git LFS pointer: its content was not downloaded"
    if path.suffix == ".glb":
        if len(head) < 12 or not head.startswith(_GLB_MAGIC):
            return "is no binary glTF file"
        length = struct.unpack("<I", head[8:12])[0]
        if length != size:
            return f"is incomplete: {size} of {length} bytes"
    return None


class DataError(ValueError):
    """A file that cannot be used; the message says which and why."""

    foreseen = True


def read_json(path: Path) -> Any:
    """Read a JSON file, compressed where its name ends in `.gz`.

    Raises:
        DataError: It is missing, incomplete or no such file.
    """
    broken = damage(path)
    if broken is not None:
        raise DataError(f"{path} {broken}")
    try:
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no complete gzip file ({error})") from None
    except ValueError as error:
        raise DataError(f"{path} is no JSON file ({error})") from None


Pose = tuple[tuple[float, ...], ...]
"""4 x 4, row by row, in Habitat's frame."""


@dataclass(frozen=True, slots=True)
class MovableObject:
    """One object of an arrangement."""

    template: str
    """Name of its configuration file."""
    pose: Pose
    category: int
    """Goal category; -1 for what nobody is asked for."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """One scene with its movable objects."""

    scene: str
    """Name of the scene instance."""
    objects: tuple[MovableObject, ...]
    config_paths: tuple[str, ...] = ()
    """Further directories with configurations of objects, as the file names them."""
    joints: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()
    """Positions of articulated objects' joints."""

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with what stands where."""
        text = repr((self.scene, self.objects, self.joints))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def scene_name(scene_id: str) -> str:
    """Return a scene's name: `data/x/scenes/102.scene_instance.json` is `102`."""
    return scene_id.rsplit("/", 1)[-1].removesuffix(".json").removesuffix(".scene_instance")


def read_episodes(path: Path) -> list[Arrangement]:
    """Read all arrangements of a file.

    Raises:
        DataError: The file is missing, damaged or of another format; it says which episode is.
    """
    content = read_json(path)
    episodes = content.get("episodes") if isinstance(content, dict) else None
    if not isinstance(episodes, list) or not episodes:
        raise DataError(f"{path} must hold a list of episodes, got none")
    arrangements = []
    for number, episode in enumerate(episodes):
        try:
            arrangements.append(_arrangement(episode))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: episode {number} is not of the rearrangement format: {error!r}"
            ) from None
    return arrangements


def write_episodes(
    path: Path, arrangements: Sequence[Arrangement], notes: Mapping[str, Any]
) -> None:
    """Write a file that `read_episodes` reads. The same arrangements give the same bytes."""
    episodes = [
        {
            "episode_id": str(number),
            "scene_id": arrangement.scene,
            "additional_obj_config_paths": list(arrangement.config_paths),
            "start_position": [0.0, 0.0, 0.0],
            "start_rotation": [0.0, 0.0, 0.0, 1.0],
            "ao_states": {name: dict(joints) for name, joints in arrangement.joints},
            "rigid_objs": [[o.template, o.pose] for o in arrangement.objects],
            "targets": {},
            "info": {},
        }
        for number, arrangement in enumerate(arrangements)
    ]
    text = json.dumps({"notes": dict(notes), "episodes": episodes}, separators=(",", ":"))
    # gzip would note the time of day, and no two files would be alike.
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _arrangement(episode: Mapping[str, Any]) -> Arrangement:
    objects = tuple(_movable(name, pose) for name, pose in episode["rigid_objs"])
    joints = episode.get("ao_states") or {}
    return Arrangement(
        scene=scene_name(str(episode["scene_id"])),
        objects=objects,
        config_paths=tuple(map(str, episode.get("additional_obj_config_paths") or ())),
        joints=tuple(
            (str(name), tuple((str(k), float(v)) for k, v in states.items()))
            for name, states in joints.items()
        ),
    )


def _movable(template: str, pose: Any) -> MovableObject:
    matrix = np.asarray(pose, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"the pose of {template} must be a 4 x 4 matrix of numbers")
    category = goal_of_asset(template)
    return MovableObject(
        template=str(template),
        pose=tuple(map(tuple, matrix.tolist())),
        category=-1 if category is None else category,
    )


SUFFIX: Final = ".scene_dataset_config.json"
NAVMESH_SETTINGS: Final = "navmesh_settings.json"
"""Beside a dataset's configuration: how its navmeshes are computed."""
_ASSETS: Final = ("render_asset", "collision_asset", "semantic_asset")


class SceneDataset:
    """Names and files of a dataset."""

    def __init__(self, config: Path) -> None:
        """Read a dataset's configuration.

        Raises:
            DataError: It is missing or damaged.
        """
        content = read_json(config)
        if not config.name.endswith(SUFFIX) or not isinstance(content, dict):
            raise DataError(f"{config} must be a file that ends in {SUFFIX}")
        self.config = config
        self.root = config.parent
        self.name = config.name.removesuffix(SUFFIX)
        self._content = content
        self._checked: dict[Path, tuple[str, ...]] = {}
        self._objects = self._index("objects", ".object_config.json")
        self._stages = self._index("stages", ".stage_config.json")
        self._bare = self._index("objects", ".glb") | self._index("stages", ".glb")
        self._articulated = self._index("articulated_objects", ".urdf")
        self._articulated |= self._index("articulated_objects", ".ao_config.json")
        self.scenes = self._index("scene_instances", ".scene_instance.json")

    @property
    def navmesh_settings(self) -> Path | None:
        """File that says how navmeshes are computed, if there is one."""
        path = self.root / NAVMESH_SETTINGS
        return path if path.is_file() else None

    def scene(self, name: str) -> Path:
        """Return the file of a scene instance.

        Raises:
            DataError: There is none of that name.
        """
        if name not in self.scenes:
            known = ", ".join(sorted(self.scenes)[:5]) or "none"
            raise DataError(f"{self.config} has no scene {name!r} (the first it has: {known})")
        return self.scenes[name]

    def navmesh(self, name: str) -> Path | None:
        """Return the navmesh that comes with a scene, if one does."""
        content = read_json(self.scene(name))
        named = self._content.get("navmesh_instances") or {}
        listed = named.get(content.get("navmesh_instance", ""))
        candidates = [self.root / listed] if isinstance(listed, str) else []
        candidates += [
            folder / "navmeshes" / f"{name}{ending}.navmesh"
            for folder in (self.root, self.scene(name).parent.parent)
            for ending in ("", "_static_furniture")
        ]
        return next((path for path in candidates if path.is_file()), None)

    def object_config(self, template: str, config_paths: Iterable[Path]) -> Path | None:
        """Return the file of an object's configuration, of this dataset or of directories."""
        stem = _stem(template)
        listings = (self._objects, *map(_object_configs, config_paths))
        return next((listing[stem] for listing in listings if stem in listing), None)

    def object_names(self, config_paths: Iterable[Path]) -> list[str]:
        """Return the names of all objects of this dataset and of directories."""
        return sorted({*self._objects, *(n for d in config_paths for n in _object_configs(d))})

    def problems(self, arrangement: Arrangement, config_paths: Sequence[Path]) -> Iterator[str]:
        """Say what an arrangement lacks, one file at a time."""
        try:
            scene = read_json(self.scene(arrangement.scene))
        except DataError as error:
            yield str(error)
            return
        yield from self._stage_problems(scene)
        for item in scene.get("object_instances") or ():
            name = _stem(str(item.get("template_name")))
            yield from self._template_problems(name, self._objects.get(name))
        for item in scene.get("articulated_object_instances") or ():
            name = _stem(str(item.get("template_name")))
            if name not in self._articulated:
                yield f"articulated object {name} is missing"
        for item in dict.fromkeys(o.template for o in arrangement.objects):
            config = self.object_config(item, config_paths)
            yield from self._template_problems(_stem(item), config)

    def _stage_problems(self, scene: dict[str, Any]) -> Iterator[str]:
        name = _stem(str((scene.get("stage_instance") or {}).get("template_name")))
        yield from self._template_problems(name, self._stages.get(name))

    def _template_problems(self, name: str, config: Path | None) -> Iterable[str]:
        file = config or self._bare.get(name)
        if file is None:
            return (f"{name} is missing: no configuration of that name",)
        if file not in self._checked:  # scenes share most of their objects
            found = _file_problems if config is None else _config_problems
            self._checked[file] = tuple(found(file))
        return self._checked[file]

    def _index(self, section: str, suffix: str) -> dict[str, Path]:
        """List a section's files by name."""
        paths = (self._content.get(section) or {}).get("paths") or {}
        found: dict[str, Path] = {}
        for pattern in paths.get(Path(suffix).suffix or suffix) or ():
            for place in sorted(glob.glob(str(self.root / pattern))):
                path = Path(place)
                files = sorted(path.glob(f"*{suffix}")) if path.is_dir() else [path]
                found |= {_stem(f.name): f for f in files if f.name.endswith(suffix)}
        return found


def _config_problems(config: Path) -> Iterator[str]:
    """Say what is wrong with a configuration and with the files that it names."""
    try:
        content = read_json(config)
    except DataError as error:
        yield str(error)
        return
    for key in _ASSETS:
        asset = content.get(key)
        if isinstance(asset, str) and asset:
            yield from _file_problems(config.parent / asset)


def _file_problems(path: Path) -> Iterator[str]:
    broken = damage(path)
    if broken is not None:
        yield f"{path} {broken}"


@cache
def _object_configs(folder: Path) -> dict[str, Path]:
    """List the configurations of objects in a directory and below it, by name."""
    return {_stem(p.name): p for p in sorted(folder.rglob("*.object_config.json"))}


def _stem(name: str) -> str:
    """Return the name of an object, stage or scene: that of its file without endings."""
    short = scene_name(name)
    for ending in (".object_config", ".stage_config", ".ao_config", ".glb", ".urdf"):
        short = short.removesuffix(ending)
    return short
