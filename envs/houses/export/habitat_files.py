"""The content of the JSON files of an exported house, and the names in them.

Habitat looks names up by substring, so that no name here is a part of another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from envs.houses.export.meshes import to_habitat_frame
from envs.houses.furniture.catalogue import FURNITURE_CATEGORIES, SEMANTIC_NAMES
from envs.houses.scene import (
    FURNITURE_SEMANTIC,
    GENERATOR_VERSION,
    Furniture,
    GoalObject,
    House,
    Receptacle,
    Scene,
    Semantic,
)
from envs.objectnav.goals import YCB_NAMES

Document = dict[str, Any]

DATASET: Final = f"relic-houses-v{GENERATOR_VERSION}"
CONFIG_NAME: Final = f"{DATASET}.scene_dataset_config.json"
EPISODES_NAME: Final = "episodes.json.gz"
NAVMESH_NAME: Final = "navmesh_settings.json"
LEXICON_NAME: Final = "semantic_lexicon.json"

NAVMESH: Final[Document] = {
    "cellSize": 0.02,
    "cellHeight": 0.05,
    "agentHeight": 1.4,
    "agentRadius": 0.25,
    "agentMaxClimb": 0.05,
    "includeStaticObjects": True,
}
"""Settings with which habitat-sim's navmesh stands for the embedded simulator's free space: what
reaches between 0.05 and 1.4 m is an obstacle to a disc of 0.25 m."""

STRUCTURE_RGB: Final = {
    Semantic.WALL: (1.0, 0.0, 0.0),
    Semantic.FLOOR: (0.0, 1.0, 0.0),
    Semantic.CEILING: (0.0, 0.0, 1.0),
}
"""Colours by which the stage's semantic mesh tells its parts apart."""

_ASSET: Final[Document] = {
    "up": [0.0, 1.0, 0.0],
    "front": [0.0, 0.0, -1.0],
    "units_to_meters": 1.0,
    "shader_type": "flat",
    "force_flat_shading": True,
}


def house_name(house: House) -> str:
    """Return what a house is called; its stage and its scene have the same name."""
    return f"{house.size}_{house.seed}_house"


def piece_name(house: House, index: int) -> str:
    """Return what a piece of furniture is called."""
    category = FURNITURE_CATEGORIES[house.furniture[index].category]
    return f"{house_name(house)}_{index:03d}_{category}"


def goal_name(scene: Scene, scale: str, item: GoalObject) -> str:
    """Return what a goal object is called."""
    where = f"{house_name(scene.house)}_{scale}_{scene.arrangement}"
    return f"{YCB_NAMES[item.category]}_{where}_{item.instance:02d}"


def instance_name(name: str) -> str:
    """Return the handle of the only instance of an object in a scene."""
    return f"{name}_:0000"


def position(x: float, y: float, z: float) -> list[float]:
    """Return a position in Habitat's frame."""
    return [float(v) for v in to_habitat_frame(np.array([x, y, z], np.float64))]


def rotation(yaw: float) -> list[float]:
    """Return a yaw as Habitat's quaternion w, x, y, z."""
    return [math.cos(yaw / 2), 0.0, math.sin(yaw / 2), 0.0]


def dataset_config(houses: Iterable[str]) -> Document:
    """Describe a dataset: where its files are."""
    return {
        "stages": {"paths": {".json": ["stages"]}},
        "objects": {"paths": {".json": ["objects/*"]}},
        "scene_instances": {"paths": {".json": ["scenes"]}},
        "semantic_scene_descriptor_instances": {
            name: f"stages/{name}.semantic.txt" for name in houses
        },
    }


def stage_config(name: str) -> Document:
    """Describe a stage: walls, floors and ceilings, and the mesh that tells them apart."""
    return _ASSET | {
        "render_asset": f"{name}.glb",
        "semantic_asset": f"{name}.semantic.glb",
        "semantic_up": _ASSET["up"],
        "semantic_front": _ASSET["front"],
    }


def stage_descriptor() -> str:
    """Name the colours of a stage's semantic mesh, in the format of HM3D."""
    lines = ["HM3D Semantic Annotations"]
    for semantic, rgb in STRUCTURE_RGB.items():
        colour = "".join(f"{round(255 * v):02X}" for v in rgb)
        lines.append(f'{int(semantic)},{colour},"{semantic.name.lower()}",0')
    return "\n".join(lines) + "\n"


def object_config(name: str, semantic: int, category: str) -> Document:
    """Describe an object whose own frame is that of its file."""
    return _ASSET | {
        "render_asset": f"{name}.glb",
        "COM": [0.0, 0.0, 0.0],
        "semantic_id": semantic,
        "user_defined": {"category": category},
    }


def piece_config(house: House, index: int, owners: list[int]) -> Document:
    """Describe a piece of furniture with the surfaces that objects may stand on.

    Args:
        house: the house.
        index: of the piece.
        owners: which piece each of the house's receptacles belongs to.
    """
    piece = house.furniture[index]
    category = FURNITURE_CATEGORIES[piece.category]
    config = object_config(piece_name(house, index), FURNITURE_SEMANTIC + piece.category, category)
    for number, surface in enumerate(house.receptacles):
        if owners[number] == index:
            key = receptacle_name(number)
            config["user_defined"][key] = _surface(piece, surface) | {"name": key}
    return config


def receptacle_name(number: int) -> str:
    """Return what one of a house's receptacles is called."""
    return f"receptacle_aabb_{number:03d}"


def _surface(piece: Furniture, surface: Receptacle) -> Document:
    """Describe a receptacle in the frame of its piece, to which it is aligned."""
    cos, sin = math.cos(piece.yaw), math.sin(piece.yaw)
    x, y = surface.x - piece.x, surface.y - piece.y
    half = [surface.half_x, surface.half_y]
    if round((surface.yaw - piece.yaw) / (math.pi / 2)) % 2:
        half.reverse()
    return {
        "position": position(cos * x + sin * y, cos * y - sin * x, surface.z),
        "scale": [half[0], 0.001, half[1]],
        "clearance": surface.clearance,
    }


def receptacle_owners(house: House) -> list[int]:
    """Return which piece of furniture each receptacle belongs to.

    It is the nearest piece of the receptacle's category whose outline holds its centre.
    """
    return [_owner(house, surface) for surface in house.receptacles]


def _owner(house: House, surface: Receptacle) -> int:
    distances: dict[int, float] = {}
    for index, piece in enumerate(house.furniture):
        if FURNITURE_CATEGORIES[piece.category] != surface.furniture:
            continue
        dx, dy = surface.x - piece.x, surface.y - piece.y
        cos, sin = math.cos(piece.yaw), math.sin(piece.yaw)
        along, across = abs(cos * dx + sin * dy), abs(cos * dy - sin * dx)
        if along <= piece.half_x and across <= piece.half_y:
            distances[index] = math.hypot(dx, dy)
    return min(distances, key=distances.__getitem__)


def scene_instance(house: House) -> Document:
    """Describe a house: its stage and where its furniture stands."""
    name = house_name(house)
    return {
        "translation_origin": "asset_local",
        "stage_instance": {"template_name": f"stages/{name}"},
        "object_instances": [
            {
                "template_name": f"objects/{name}/{piece_name(house, index)}",
                "translation_origin": "asset_local",
                "motion_type": "static",
                "translation": position(piece.x, piece.y, 0.0),
                "rotation": rotation(piece.yaw),
            }
            for index, piece in enumerate(house.furniture)
        ],
        "semantic_scene_instance": name,
    }


def episode(scene: Scene, scale: str, number: int) -> Document:
    """Describe an arrangement as a rearrangement episode: which objects stand where.

    Poses are 4 x 4 matrices, row by row, of the objects' own frames.
    """
    house = scene.house
    owners = receptacle_owners(house)
    names = [goal_name(scene, scale, item) for item in scene.objects]
    parents = [instance_name(piece_name(house, owners[o.receptacle])) for o in scene.objects]
    return {
        "episode_id": str(number),
        "scene_id": f"scenes/{house_name(house)}.scene_instance.json",
        "scene_dataset_config": CONFIG_NAME,
        "additional_obj_config_paths": [],
        "start_position": [0.0, 0.0, 0.0],
        "start_rotation": [0.0, 0.0, 0.0, 1.0],
        "ao_states": {},
        "rigid_objs": [
            [f"{name}.object_config.json", _pose(item)]
            for name, item in zip(names, scene.objects, strict=True)
        ],
        "targets": {},
        "markers": [],
        "target_receptacles": [],
        "goal_receptacles": [],
        "name_to_receptacle": {
            instance_name(name): f"{parent}|{receptacle_name(item.receptacle)}"
            for name, parent, item in zip(names, parents, scene.objects, strict=True)
        },
        "info": {"object_labels": {}, "house": house.seed, "arrangement": scene.arrangement},
    }


def _pose(item: GoalObject) -> list[list[float]]:
    x, y, z = position(item.x, item.y, item.z)
    return [[1.0, 0.0, 0.0, x], [0.0, 1.0, 0.0, y], [0.0, 0.0, 1.0, z], [0.0, 0.0, 0.0, 1.0]]


def lexicon() -> Document:
    """Name all semantic ids."""
    return {"classes": [{"id": number, "name": name} for number, name in SEMANTIC_NAMES.items()]}
