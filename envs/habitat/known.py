"""The paper's data sets: where they are looked for, and how to get them. Nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from envs.habitat.assets import damage

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
            "put the published file there, or python -m envs.habitat arrange ... (docs/HABITAT.md)",
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
