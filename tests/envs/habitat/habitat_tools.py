"""A tiny Habitat scene dataset on disk, for the plain simulator, and environments over it."""

import json
import struct
from pathlib import Path

import numpy as np

from envs.habitat.env import HabitatVectorEnv
from envs.habitat.scene_files import Arrangement, MovableObject, write_episodes

PLAIN = Path(__file__).parent / "plain_backend.py"
ROOMS = {
    "east": {"room": [5.0, 4.0], "boxes": [[2.0, 1.5, 0.0, 3.0, 2.5, 0.7]]},
    "west": {"room": [4.0, 6.0], "boxes": [[0.0, 2.8, 0.0, 2.4, 3.0, 2.5]]},
}
OBJECTS = {
    "024_bowl": 0.12,
    "013_apple": 0.1,
    "025_mug": 0.1,
    "900_clutter": 0.1,
}
PLACES = {
    "east": [
        [("024_bowl", 2.5, 2.0, 0.8), ("013_apple", 0.4, 0.4, 1.0), ("900_clutter", 1, 1, 0.2)],
        [("025_mug", 4.6, 3.6, 0.9), ("013_apple", 2.3, 1.8, 0.8), ("013_apple", 4.5, 0.5, 1.2)],
    ],
    "west": [[("025_mug", 0.5, 5.5, 1.0), ("024_bowl", 3.5, 0.6, 0.9)]],
}
SMALL = {"success_resolution": 64, "success_pixels": 3, "max_episode_steps": 30}


def glb(path: Path, missing: int = 0) -> None:
    """Write a file that looks like a binary glTF, or the start of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 32 + missing) + bytes(20))


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def pose(x, y, z):
    """Return a pose in Habitat's frame."""
    return tuple(map(tuple, np.array([[1, 0, 0, x], [0, 1, 0, z], [0, 0, 1, -y], [0, 0, 0, 1.0]])))


def write_dataset(root: Path) -> tuple[Path, Path]:
    """Write a dataset; return its configuration and its episodes."""
    config = root / "tiny.scene_dataset_config.json"
    sections = {"stages": "stages", "objects": "objects", "scene_instances": "scenes"}
    write_json(config, {name: {"paths": {".json": [d]}} for name, d in sections.items()})
    for name, plain in ROOMS.items():
        scene = {"stage_instance": {"template_name": f"stages/{name}"}, "plain": plain}
        write_json(root / "scenes" / f"{name}.scene_instance.json", scene)
        glb(root / "stages" / f"{name}.glb")
        write_json(root / "stages" / f"{name}.stage_config.json", {"render_asset": f"{name}.glb"})
        (root / "navmeshes").mkdir(exist_ok=True)
        (root / "navmeshes" / f"{name}.navmesh").write_bytes(b"any")
    for name, radius in OBJECTS.items():
        content = {"render_asset": f"{name}.glb", "radius": radius}
        write_json(root / "objects" / f"{name}.object_config.json", content)
        glb(root / "objects" / f"{name}.glb")
    arrangements = [
        Arrangement(
            scene=scene,
            objects=tuple(
                MovableObject(f"{name}.object_config.json", pose(x, y, z), 0)
                for name, x, y, z in placed
            ),
        )
        for scene, several in PLACES.items()
        for placed in several
    ]
    episodes = root / "episodes.json.gz"
    write_episodes(episodes, arrangements, {})
    return config, episodes


def make(root: Path, num_envs: int = 1, **options) -> HabitatVectorEnv:
    """Build an environment over the tiny dataset, which must be there."""
    defaults = {
        "scene_dataset": root / "tiny.scene_dataset_config.json",
        "episodes": root / "episodes.json.gz",
        "backend": PLAIN,
        "task": SMALL,
        "resolution": 16,
        "viewpoint_spacing": 0.5,
        "cache": root / "cache",
        "timeout": 30.0,
    }
    return HabitatVectorEnv(num_envs, **{**defaults, **options})
