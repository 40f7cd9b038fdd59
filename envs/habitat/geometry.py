"""How the agent of ExtObjNav turns and looks in Habitat: as the paper says, or as its code does.

The released code takes the 30 degrees of a turn for radians per second, and moves the point that
the camera looks at where the paper tilts the camera. Both are presets here.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final, Protocol

from envs.objectnav_config import EYE_HEIGHT, ObjectNavConfig

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
        return self.pitch(_POLAR_RANGE[1]), self.pitch(_POLAR_RANGE[0])

    def look(self, tilt: float, *, up: bool) -> float:
        low, high = _POLAR_RANGE
        return min(max(tilt - _POLAR_STEP if up else tilt + _POLAR_STEP, low), high)

    def pitch(self, tilt: float) -> float:
        polar = math.radians(tilt)
        above = _REACH * math.cos(polar) - EYE_HEIGHT
        return math.atan2(above, _REACH * math.sin(polar) - _FORWARD)
