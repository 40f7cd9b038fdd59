"""Files of rearrangement episodes: which movable objects stand where in which scene.

The format is that of Habitat's published files, JSON compressed with gzip. An episode there is an
arrangement here: what an agent is asked for, and where it starts, the rules of ExtObjNav draw
themselves.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.habitat.assets import DataError, read_json
from envs.ycb import goal_of_asset

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
