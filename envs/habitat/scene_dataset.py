"""A Habitat scene dataset on disk: which files a scene needs, and whether they are there and whole.

Only file names, JSON and first bytes are read; habitat-sim is not needed.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from envs.habitat.assets import DataError, damage, read_json
from envs.habitat.episodes import Arrangement, scene_name

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
