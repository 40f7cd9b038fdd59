"""How agents move, look and are drawn in Habitat: options, checked, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from envs.habitat.geometry import (
    HEAD_ROOM,
    GeometryName,
    base_rules,
    make_geometry,
)
from envs.habitat.options import (
    WHERE,
    cache_directory,
    parse_choice,
    parse_gpus,
    parse_spacing,
)
from envs.objectnav_config import EYE_HEIGHT, ObjectNavConfig
from envs.objectnav_options import parse_resolution, parse_sensors, parse_task
from envs.validation import check_flag

_VIEWPOINT_DISTANCE: Final = 0.9875
"""Share of the success distance at which viewpoints may lie, so that none is on its very limit."""
_VIEWPOINT_PIXELS: Final = 1.5
"""Pixels that a viewpoint must show, in multiples of what success needs."""


class Setting:
    """Checked options; what workers are told follows from them."""

    def __init__(
        self,
        *,
        geometry: str = "paper",
        task: ObjectNavConfig | Mapping[str, Any] | None = None,
        resolution: int | Sequence[int] = 256,
        sensors: Sequence[str] = ("rgb",),
        viewpoint_spacing: float = 0.1,
        gpus: Sequence[int] = (-1,),
        image_lighting: bool = True,
        cache: str | Path | None = None,
    ) -> None:
        """Check options; `envs.habitat.env` says what they mean."""
        preset = parse_choice("geometry", geometry, GeometryName)
        self.rules = parse_task(task, where=WHERE, base=base_rules(preset))
        self.geometry = make_geometry(preset, self.rules)
        self.images = parse_sensors(sensors, where=WHERE)
        self.shape = parse_resolution(resolution, where=WHERE)
        self.gpus = parse_gpus(gpus)
        self.cache = cache_directory(cache)
        self._spacing = parse_spacing(viewpoint_spacing)
        self._image_lighting = check_flag(f"{WHERE}.image_lighting", image_lighting)

    def worker_options(self, scene_dataset: str) -> dict[str, Any]:
        """Return what `worker.scene_server.SceneServer` is made with."""
        return {
            "scene_dataset": scene_dataset,
            "sensors": list(self.images),
            "shape": list(self.shape),
            "hfov_deg": self.rules.hfov_deg,
            "eye": list(self.geometry.eye),
            "counted_side": self.rules.success_resolution,
            "image_lighting": self._image_lighting,
        }

    @property
    def viewpoint_rules(self) -> dict[str, Any]:
        """What `worker.viewpoints` looks for, and all else that viewpoints depend on."""
        return {
            "distance": self.rules.success_distance * _VIEWPOINT_DISTANCE,
            "spacing": self._spacing,
            "pixels": math.ceil(_VIEWPOINT_PIXELS * self.rules.success_pixels),
            "pitch_range": list(self.geometry.pitch_range),
            "camera": [*self.geometry.eye, self.rules.hfov_deg, self.rules.success_resolution],
        }

    @property
    def navmesh_rules(self) -> dict[str, float]:
        """The agent that free space is computed for."""
        return {
            "agent_radius": self.rules.agent_radius,
            "agent_height": EYE_HEIGHT + HEAD_ROOM,
        }

    def expert_rules(self, tilt: float) -> dict[str, Any]:
        """Return what `worker.expert` needs to know of an agent whose camera has a tilt."""
        look, pitch = self.geometry.look, self.geometry.pitch
        return {
            "forward": self.rules.forward_step,
            "turn": self.rules.turn,
            "up": pitch(look(tilt, up=True)),
            "down": pitch(look(tilt, up=False)),
            "pitch_range": list(self.geometry.pitch_range),
            "distance": self.rules.success_distance * _VIEWPOINT_DISTANCE,
            "pixels": self.rules.success_pixels,
        }
