"""Writes houses as a Habitat scene dataset: `python -m envs.houses.export --size small DIR`.

A house becomes a stage (walls, floors, ceilings, with a semantic mesh), one object for each piece
of furniture, and a scene instance that says where they stand. Each arrangement becomes an object
for each of its goal objects, and an episode in the format of ExtObjNav's published files. Semantic
ids are the embedded simulator's. The frame is y up: our (x, y, z) is Habitat's (x, z, -y), and our
heading h is a yaw of h - pi / 2 about its y axis, because its agents look along -z.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs.houses.dataset import DEFAULT_SCALE, HouseDataset
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
from envs.houses.furniture.goal_objects import SCALES
from envs.houses.generation.arrangement import arrange
from envs.houses.generation.floorplan import SIZES
from envs.houses.generation.generator import SPLITS, split_of
from envs.houses.scene import (
    GOAL_CATEGORIES,
    GOAL_SEMANTIC,
    Face,
    House,
    Scene,
    Semantic,
)
from envs.houses.textures.atlas import atlas


def to_habitat(
    house: House,
    directory: str | Path,
    *,
    arrangements: Sequence[int] = (0,),
    scale: str | None = None,
) -> Path:
    """Write a house and some arrangements of objects in it as a Habitat scene dataset.

    Args:
        house: from `generate_house`.
        directory: where the files go; it must not hold such a dataset yet.
        arrangements: numbers of arrangements, each of which becomes an episode.
        scale: of the goal objects; by default that of the house's size.

    Returns:
        The path of the dataset's configuration, for `scene_dataset=`.

    Raises:
        FileExistsError: If the directory holds such a dataset.
        ValueError: If an arrangement or the scale is not valid.
    """
    return export_houses([house], directory, arrangements=arrangements, scale=scale)


def export_houses(
    houses: Iterable[House],
    directory: str | Path,
    *,
    arrangements: Sequence[int] = (0,),
    scale: str | None = None,
) -> Path:
    """Write several houses as one dataset; see `to_habitat`. The configuration comes last."""
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


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m envs.houses.export",
        description="Write houses as a Habitat scene dataset.",
    )
    parser.add_argument("directory", type=Path, help="where the files go")
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--first", type=int, default=0, help="number of the first house")
    parser.add_argument("--count", type=int, default=1, help="how many houses of the split")
    parser.add_argument("--seed", type=int, nargs="+", help="seeds of houses, instead of a split's")
    parser.add_argument("--size", choices=tuple(SIZES), default="medium")
    parser.add_argument("--scale", choices=SCALES, help="of the goal objects; default by size")
    parser.add_argument("--arrangements", type=int, default=1, help="how many of each house")
    return parser.parse_args(arguments)


def _chosen_houses(options: argparse.Namespace) -> Iterable[House]:
    """Return the houses that the command line asks for, made one by one.

    Raises:
        ValueError: If there are no such houses.
    """
    if options.count < 1 or options.arrangements < 0:
        raise ValueError(
            "--count must be at least 1 and --arrangements at least 0, got "
            f"{options.count} and {options.arrangements}."
        )
    seeds = options.seed
    split = options.split if seeds is None else split_of(seeds[0])
    dataset = HouseDataset(split, options.size, scale=options.scale, houses=seeds, cache=1)
    numbers = range(len(seeds)) if seeds else range(options.first, options.first + options.count)
    for number in numbers:
        dataset.house_seed(number)
    return (dataset.house(number) for number in numbers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parse(arguments)
    wanted: dict[str, Any] = {"arrangements": range(options.arrangements), "scale": options.scale}
    try:
        config = export_houses(_chosen_houses(options), options.directory, **wanted)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    size = sum(path.stat().st_size for path in config.parent.rglob("*") if path.is_file())
    scenes = sum(1 for _ in (config.parent / "scenes").iterdir())
    sys.stdout.write(
        f"Wrote {scenes} houses with {options.arrangements} arrangements of each, "
        f"{size / 1e6:.1f} MB, to {config}.\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
