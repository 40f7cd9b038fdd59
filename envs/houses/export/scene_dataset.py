"""Writes houses as a Habitat scene dataset.

A house becomes a stage (walls, floors, ceilings, with a semantic mesh), one object for each piece
of furniture, and a scene instance that says where they stand. Each arrangement becomes an object
for each of its goal objects, and an episode in the format of ExtObjNav's published files. Semantic
ids are the embedded simulator's. The frame is y up: our (x, y, z) is Habitat's (x, z, -y), and our
heading h is a yaw of h - pi / 2 about its y axis, because its agents look along -z.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs.houses.dataset import DEFAULT_SCALE
from envs.houses.export import habitat_files as files
from envs.houses.export.glb import Part, glb
from envs.houses.export.meshes import (
    Mesh,
    Patch,
    by_tile,
    join,
    room_patch,
    solid_patches,
    to_habitat_frame,
)
from envs.houses.generation.arrangement import arrange
from envs.houses.scene import Face, House, Scene, Semantic
from envs.houses.textures.atlas import atlas
from envs.objectnav.goals import GOAL_CATEGORIES, GOAL_SEMANTIC


def export_houses(
    houses: Iterable[House],
    directory: str | Path,
    *,
    arrangements: Sequence[int] = (0,),
    scale: str | None = None,
) -> Path:
    """Write houses and some arrangements of objects in them as a Habitat scene dataset.

    Args:
        houses: from `generate_house`.
        directory: where the files go; it must not hold such a dataset yet.
        arrangements: numbers of arrangements, each of which becomes an episode in each house.
        scale: of the goal objects; by default that of a house's size.

    Returns:
        The path of the dataset's configuration, which is written last, for `scene_dataset=`.

    Raises:
        FileExistsError: If the directory holds such a dataset.
        ValueError: If an arrangement or the scale is not valid.
    """
    root = Path(directory)
    config = root / files.CONFIG_NAME
    if config.exists():
        raise FileExistsError(
            f"export_houses: directory must not hold a dataset yet, got {config}. "
            "Choose another directory, or delete that one."
        )
    for name in ("stages", "objects", "scenes"):
        (root / name).mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    episodes: list[files.Document] = []
    for house in houses:
        named = DEFAULT_SCALE[house.size] if scale is None else scale
        scenes = [arrange(house, number, scale=named) for number in arrangements]
        _write_house(house, root)
        for scene in scenes:
            _write_objects(scene, named, root)
            episodes.append(files.episode(scene, named, len(episodes)))
        names.append(files.house_name(house))
    _write_json(root / files.LEXICON_NAME, files.lexicon())
    _write_json(root / files.NAVMESH_NAME, files.NAVMESH)
    text = json.dumps({"episodes": episodes}, separators=(",", ":"))
    # Without a time in its header, the same houses give the same file.
    (root / files.EPISODES_NAME).write_bytes(gzip.compress(text.encode(), mtime=0))
    _write_json(config, files.dataset_config(names))
    return config


def _write_house(house: House, root: Path) -> None:
    """Write stage, furniture and scene instance."""
    name = files.house_name(house)
    stages = root / "stages"
    structure = _structure(house)
    patches = [patch for part in structure.values() for patch in part]
    (stages / f"{name}.glb").write_bytes(glb(_coloured(by_tile(patches))))
    (stages / f"{name}.semantic.glb").write_bytes(glb([_labelled(structure)]))
    (stages / f"{name}.semantic.txt").write_text(files.stage_descriptor())
    _write_json(stages / f"{name}.stage_config.json", files.stage_config(name))
    owners = files.receptacle_owners(house)
    for index, piece in enumerate(house.furniture):
        solids = range(piece.start, piece.stop)
        meshes = by_tile(solid_patches(house.primitives, house.materials, solids))
        local = _in_own_frame(meshes, np.array([piece.x, piece.y, 0.0]), piece.yaw)
        config = files.piece_config(house, index, owners)
        _write_object(root / "objects" / name, files.piece_name(house, index), local, config)
    _write_json(root / "scenes" / f"{name}.scene_instance.json", files.scene_instance(house))


def _write_objects(scene: Scene, scale: str, root: Path) -> None:
    """Write the goal objects of an arrangement."""
    folder = root / "objects" / files.house_name(scene.house)
    for item in scene.objects:
        name = files.goal_name(scene, scale, item)
        solids = range(item.start, item.stop)
        meshes = by_tile(solid_patches(scene.primitives, scene.materials, solids))
        local = _in_own_frame(meshes, np.array([item.x, item.y, item.z]), 0.0)
        category = GOAL_CATEGORIES[item.category]
        config = files.object_config(name, GOAL_SEMANTIC + item.category, category)
        _write_object(folder, name, local, config)


def _write_object(folder: Path, name: str, meshes: dict[int, Mesh], config: files.Document) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.glb").write_bytes(glb(_coloured(meshes)))
    _write_json(folder / f"{name}.object_config.json", config)


def _structure(house: House) -> dict[Semantic, list[Patch]]:
    """Make what is no furniture: walls, floors and ceilings."""
    loose = set(range(len(house.primitives)))
    for piece in house.furniture:
        loose -= set(range(piece.start, piece.stop))
    walls = solid_patches(house.primitives, house.materials, sorted(loose))
    top = house.wall_height
    return {
        Semantic.WALL: list(walls),
        Semantic.FLOOR: [room_patch(r, house.materials, 0.0, Face.POS_Z) for r in house.rooms],
        Semantic.CEILING: [room_patch(r, house.materials, top, Face.NEG_Z) for r in house.rooms],
    }


def _in_own_frame(
    meshes: dict[int, Mesh], origin_3: NDArray[np.float64], yaw: float
) -> dict[int, Mesh]:
    """Take meshes from the house's frame to that of an object, both z up."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    back_33 = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return {
        tile: mesh._replace(position_V3=(mesh.position_V3 - origin_3) @ back_33.T)
        for tile, mesh in meshes.items()
    }


def _coloured(meshes: dict[int, Mesh]) -> list[Part]:
    """Make the parts of a file that is looked at."""
    parts: list[Part] = []
    for tile, mesh in meshes.items():
        part = Part(to_habitat_frame(mesh.position_V3), mesh.triangle_T3, mesh.rgb_V3)
        if tile:  # the first tile is plain
            # glTF counts v from a picture's first row, which is a tile's top.
            downwards_V2 = mesh.tile_V2 * np.array([1.0, -1.0]) + np.array([0.0, 1.0])
            part = part._replace(texture_V2=downwards_V2, picture=_picture(tile))
        parts.append(part)
    return parts


def _labelled(structure: dict[Semantic, list[Patch]]) -> Part:
    """Make the semantic mesh of a stage."""
    meshes: list[Mesh] = []
    for semantic, patches in structure.items():
        for _, mesh in patches:
            rgb_V3 = np.tile(files.STRUCTURE_RGB[semantic], (len(mesh.position_V3), 1))
            meshes.append(mesh._replace(rgb_V3=rgb_V3))
    whole = join(meshes)
    return Part(to_habitat_frame(whole.position_V3), whole.triangle_T3, whole.rgb_V3)


@cache
def _picture(tile: int) -> bytes:
    """Return a tile as a PNG file."""
    stream = BytesIO()
    Image.fromarray(np.round(atlas()[tile] * 255.0).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _write_json(path: Path, content: files.Document) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
