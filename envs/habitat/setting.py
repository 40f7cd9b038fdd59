"""Options of Habitat agents: movement, camera and rendering, checked.

Agents turn and look as the paper says, or as its released code does. That code takes the 30 degrees
of a turn for radians per second, and moves the point that the camera looks at where the paper tilts
the camera. Both are presets of the geometry.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from envs.core.validation import check_flag, unknown_name
from envs.objectnav.config import (
    EYE_HEIGHT,
    ObjectNavConfig,
    drawn_images,
    parse_resolution,
    parse_sensors,
    parse_task,
)

HEAD_ROOM: Final = 0.2
"""Metres above the camera that must be free where the agent walks."""
_FORWARD: Final = 0.25
"""Of the released code's camera, ahead of the base's centre."""
_REACH: Final = 1.25
"""Distance from the base's centre to the point that the released code's camera looks at."""
_POLAR_START: Final = 36.87
_POLAR_STEP: Final = 30.0
_POLAR_RANGE: Final = (20.0, 100.0)
"""Degrees from the vertical to that point."""
_RELEASED_TURN: Final = 0.25
"""Radians: 30 rad/s for 1/120 s."""


class GeometryName(StrEnum):
    """Presets."""

    PAPER = "paper"
    """Turns of 30 degrees; the camera is above the base and tilts by 30 degrees."""
    RELEASED = "released"
    """Turns of 0.25 rad; the camera is 0.25 m ahead, and starts at -21.8 degrees."""


class Geometry(Protocol):
    """Where the camera is, and how it tilts. A tilt is a number that only this understands."""

    eye: tuple[float, float]
    """(forward, up) from the base, in metres."""
    start: float
    """Tilt at an episode's start."""

    def look(self, tilt: float, *, up: bool) -> float:
        """Return the tilt after a look."""
        ...

    def pitch(self, tilt: float) -> float:
        """Return the camera's pitch in radians; up is positive."""
        ...

    @property
    def pitch_range(self) -> tuple[float, float]:
        """Least and greatest pitch."""
        ...


def base_rules(name: GeometryName) -> ObjectNavConfig:
    """Return the rules of a preset, before any are changed."""
    if name is GeometryName.RELEASED:
        return ObjectNavConfig(turn_deg=math.degrees(_RELEASED_TURN))
    return ObjectNavConfig()


def make_geometry(name: GeometryName, rules: ObjectNavConfig) -> Geometry:
    """Build a preset.

    Raises:
        ValueError: The rules change what the preset fixes.
    """
    if name is GeometryName.PAPER:
        return _PaperGeometry(rules)
    for field in ("look_deg", "pitch_min_deg", "pitch_max_deg", "pitch_start_deg"):
        default = getattr(ObjectNavConfig(), field)
        if getattr(rules, field) != default:
            raise ValueError(
                f"Habitat.task.{field}: must stay at {default} with geometry='released', whose "
                f"camera does not tilt by angles, got {getattr(rules, field)}. Leave it out."
            )
    return _ReleasedGeometry()


class _PaperGeometry:
    """The tilt is the pitch."""

    eye = (0.0, EYE_HEIGHT)

    def __init__(self, rules: ObjectNavConfig) -> None:
        """Read angles."""
        self.start = math.radians(rules.pitch_start_deg)
        self._look = rules.look
        self._range = (math.radians(rules.pitch_min_deg), math.radians(rules.pitch_max_deg))

    @property
    def pitch_range(self) -> tuple[float, float]:
        return self._range

    def look(self, tilt: float, *, up: bool) -> float:
        low, high = self._range
        return min(max(tilt + (self._look if up else -self._look), low), high)

    def pitch(self, tilt: float) -> float:
        return tilt


class _ReleasedGeometry:
    """The tilt is the angle from the vertical to the point that is looked at, in degrees."""

    eye = (_FORWARD, EYE_HEIGHT)
    start = _POLAR_START

    @property
    def pitch_range(self) -> tuple[float, float]:
        # Angles are from the vertical, so the largest of them looks down most.
        return self.pitch(_POLAR_RANGE[1]), self.pitch(_POLAR_RANGE[0])

    def look(self, tilt: float, *, up: bool) -> float:
        low, high = _POLAR_RANGE
        return min(max(tilt - _POLAR_STEP if up else tilt + _POLAR_STEP, low), high)

    def pitch(self, tilt: float) -> float:
        polar = math.radians(tilt)
        above = _REACH * math.cos(polar) - EYE_HEIGHT
        return math.atan2(above, _REACH * math.sin(polar) - _FORWARD)


WHERE = "Habitat"
"""What messages call the environment."""

_Choice = TypeVar("_Choice", bound=StrEnum)


def parse_choice(name: str, value: str, choices: type[_Choice]) -> _Choice:
    """Return a choice by its name."""
    if value not in list(choices):
        raise unknown_name(f"{WHERE}.{name}", "it", value, [str(c.value) for c in choices])
    return choices(value)


def parse_path(name: str, value: str | Path | None, instead: str) -> Path:
    """Return the path of a file that must be named.

    Args:
        name: of the option.
        value: what was given.
        instead: what to do if nothing was.
    """
    if value is None or value == "":
        raise ValueError(f"{WHERE}.{name}: must name a file, got none. {instead}")
    if not isinstance(value, str | Path):
        raise TypeError(f"{WHERE}.{name}: must be a path, got {value!r}.")
    return Path(value).expanduser().absolute()


def parse_gpus(gpus: Sequence[int]) -> tuple[int, ...]:
    """Return the devices that rows draw on, in turn."""
    numbers = tuple(gpus) if isinstance(gpus, Iterable) and not isinstance(gpus, str) else ()
    good = numbers and all(
        isinstance(g, int | np.integer) and not isinstance(g, bool) and g >= -1 for g in numbers
    )
    if not good:
        raise ValueError(
            f"{WHERE}.gpus: must be a list of CUDA devices that draw, got {gpus!r}. Use [0], or "
            "[-1] for the first device of EGL, which may be the CPU."
        )
    return tuple(int(g) for g in numbers)


def parse_spacing(spacing: float) -> float:
    """Return the spacing of the grid that viewpoints are looked for on, in metres."""
    good = isinstance(spacing, int | float) and not isinstance(spacing, bool)
    if not (good and math.isfinite(spacing) and 0.05 <= spacing <= 1.0):
        raise ValueError(
            f"{WHERE}.viewpoint_spacing: must lie in [0.05, 1] metres, got {spacing!r}."
        )
    return float(spacing)


def cache_directory(cache: str | Path | None) -> Path:
    """Return where viewpoints and computed navmeshes are kept."""
    if cache is not None:
        return Path(cache).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "relic" / "habitat"


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
        self.sensors = parse_sensors(sensors, where=WHERE)
        self.shape = parse_resolution(resolution, where=WHERE)
        self.gpus = parse_gpus(gpus)
        self.cache = cache_directory(cache)
        self._spacing = parse_spacing(viewpoint_spacing)
        self._image_lighting = check_flag(f"{WHERE}.image_lighting", image_lighting)

    def worker_options(self, scene_dataset: str) -> dict[str, Any]:
        """Return what `worker.scene_server.SceneServer` is made with."""
        return {
            "scene_dataset": scene_dataset,
            "sensors": list(drawn_images(self.sensors)),
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
