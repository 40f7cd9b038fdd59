"""Every constant and choice of ExtObjNav, and the options that its environments share, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum, StrEnum
from typing import Any, Final, Self

import numpy as np
from gymnasium import spaces

from envs.core.validation import check_flag, unknown_name
from envs.objectnav.goals import GOAL_CATEGORIES, GOAL_SEMANTIC

EYE_HEIGHT: Final = 1.2
"""Metres from the floor to the camera."""


class Action(IntEnum):
    """The six actions, in the paper's order."""

    STOP = 0
    FORWARD = 1
    TURN_LEFT = 2
    TURN_RIGHT = 3
    LOOK_UP = 4
    LOOK_DOWN = 5


class GoalSampling(StrEnum):
    """Weight of a category that is present in the trial's scene, before normalisation."""

    UNIFORM = "uniform"
    """1."""
    INSTANCES = "instances"
    """Its number of instances."""
    INVERSE_INSTANCES = "inverse_instances"
    """1 / its number of instances."""
    FAILURES = "failures"
    """1 + its failed episodes in this trial."""
    FEWEST_STEPS = "fewest_steps"
    """1 + the steps by which it is behind the category that took most of them in this trial."""
    UCB = "ucb"
    """sqrt(ln(2 + successes of the trial) / (1 + its own successes))."""


class GoalInstances(StrEnum):
    """Which instances of the goal category satisfy it."""

    ALL = "all"
    ONE = "one"
    """One, drawn anew in each episode."""
    ONE_PER_TRIAL = "one_per_trial"
    """One, drawn once for each category of the trial."""


class Outcome(IntEnum):
    """How the episode before ended, as the observation `outcome` says it at an episode's start."""

    NONE = 0
    """At all other steps, and at the start of a trial."""
    FOUND = 1
    """A stop that found the goal."""
    NOT_FOUND = 2
    """A stop that did not."""
    OUT_OF_TIME = 3


class StartMode(StrEnum):
    """Where an episode starts."""

    RANDOM = "random"
    PREVIOUS_END = "previous_end"
    """Where the trial's last episode ended; at random in its first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectNavConfig:
    """Every constant of the task. Metres and steps, degrees where the name ends in `_deg`."""

    turn_deg: float = 30.0
    forward_step: float = 0.25
    look_deg: float = 30.0
    pitch_min_deg: float = -60.0
    pitch_max_deg: float = 30.0
    pitch_start_deg: float = 0.0
    """Camera pitch at the start of each episode; up is positive."""
    hfov_deg: float = 90.0
    agent_radius: float = 0.25
    max_episode_steps: int = 500
    success_distance: float = 2.0
    """Horizontal distance to an instance at which it may still be found."""
    success_pixels: int = 10
    """Pixels of that same instance that must be in view."""
    success_resolution: int = 256
    """Side of the square view that `success_pixels` are counted in."""
    success_reward: float = 2.0
    slack_reward: float = -0.001
    """Added at every step."""
    progress_reward: float = 1.0
    """Earned for each metre by which the geodesic distance shrinks."""
    closed_progress: bool = False
    """An episode that ends without success gives back what it earned by progress. Otherwise an
    agent that is credited across episodes may live on the progress of short failed ones."""
    goal_sampling: GoalSampling = GoalSampling.UNIFORM
    goal_instances: GoalInstances = GoalInstances.ALL
    fixed_goal: bool = False
    """Keep the category of the trial's first episode."""
    max_goals: int | None = None
    """After this many distinct categories, ask only for those."""
    start: StartMode = StartMode.RANDOM
    num_starts: int | None = None
    """After this many random starts, choose among those."""
    min_start_distance: float = 1.0
    """Geodesic distance to the goal below which a random start is redrawn."""
    start_attempts: int = 50
    """Draws after which the farthest one is taken."""

    def __post_init__(self) -> None:
        """Check types and ranges, and turn names of choices into their enums."""
        for f in fields(self):
            _check_field(self, f.name)
        if not self.pitch_min_deg <= self.pitch_start_deg <= self.pitch_max_deg:
            raise ValueError(
                "ObjectNavConfig.pitch_start_deg: the start pitch must lie within "
                f"[pitch_min_deg, pitch_max_deg] = [{self.pitch_min_deg}, {self.pitch_max_deg}], "
                f"got {self.pitch_start_deg}."
            )
        if self.start is StartMode.PREVIOUS_END and self.num_starts is not None:
            raise ValueError(
                "ObjectNavConfig.num_starts: must be None with start='previous_end', got "
                f"{self.num_starts}. Choose one of the two."
            )

    @classmethod
    def create(cls, base: ObjectNavConfig | None = None, **overrides: Any) -> Self:
        """Change some values of `base` (default: the paper's), naming the nearest on a typo.

        Raises:
            ValueError: if an override is unknown or has a value that it must not have.
            TypeError: if an override has a value of the wrong type.
        """
        names = [f.name for f in fields(cls)]
        for name in overrides:
            if name not in names:
                raise unknown_name("ObjectNavConfig", "an option", name, names)
        start = {name: getattr(base, name) for name in names} if base is not None else {}
        return cls(**(start | overrides))

    @property
    def turn(self) -> float:
        """Turn angle in radians."""
        return math.radians(self.turn_deg)

    @property
    def look(self) -> float:
        """Look angle in radians."""
        return math.radians(self.look_deg)


_CHOICES: Final = {
    "goal_sampling": GoalSampling,
    "goal_instances": GoalInstances,
    "start": StartMode,
}
_COUNTS: Final = {
    "max_episode_steps": 1,
    "success_pixels": 1,
    "success_resolution": 8,
    "max_goals": 1,
    "num_starts": 1,
    "start_attempts": 1,
}
_OPTIONAL: Final = ("max_goals", "num_starts")
_RANGES: Final = {
    "turn_deg": (0.0, 180.0),
    "forward_step": (0.0, 5.0),
    "look_deg": (0.0, 90.0),
    "pitch_min_deg": (-89.0, 89.0),
    "pitch_max_deg": (-89.0, 89.0),
    "pitch_start_deg": (-89.0, 89.0),
    "hfov_deg": (10.0, 150.0),
    "agent_radius": (0.05, 1.0),
    "success_distance": (0.0, 100.0),
    "success_reward": (-math.inf, math.inf),
    "slack_reward": (-math.inf, math.inf),
    "progress_reward": (-math.inf, math.inf),
    "min_start_distance": (0.0, 100.0),
}


def _check_field(config: ObjectNavConfig, name: str) -> None:
    value = getattr(config, name)
    where = f"ObjectNavConfig.{name}"
    if name in _CHOICES:
        choice = _CHOICES[name]
        if value not in list(choice):
            raise unknown_name(where, "it", value, [str(c.value) for c in choice])
        object.__setattr__(config, name, choice(value))
    elif name in _COUNTS:
        if value is None and name in _OPTIONAL:
            return
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{where}: must be an int, got {value!r}.")
        if value < _COUNTS[name]:
            raise ValueError(f"{where}: must be at least {_COUNTS[name]}, got {value}.")
    elif name in _RANGES:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise TypeError(f"{where}: must be a number, got {value!r}.")
        low, high = _RANGES[name]
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{where}: must lie in [{low}, {high}], got {value}.")
        object.__setattr__(config, name, float(value))
    else:
        check_flag(where, value)


IMAGES: Final = ("rgb", "depth", "semantic", "instance")
PRIVILEGED: Final = ("semantic", "instance")
"""Images that an agent must not know; it can be trained to see what they say."""
OBSERVATION_KINDS: Final = {
    "rgb": "colour",
    "depth": "depth",
    "semantic": "classes",
    "instance": "classes",
}
"""What images hold."""
DETECTIONS: Final = "detections"
"""The sensor that finds goal objects by itself, from the images that it needs."""
_DETECTED_IN: Final = ("depth", "semantic", "instance")
SENSORS: Final = (*IMAGES, DETECTIONS)
NUM_FIELDS: Final = 4
"""Numbers that `detections` has of each category."""
SCAN_COLUMNS: Final = 16
SCAN_RANGE: Final = 10.0
"""Metres; what `depth_scan` finds nothing within is as far as this."""
MAX_DEPTH: Final = 100.0
"""Bound of depth, `gps` and `prev_reward`: wider than any house."""
MAX_PLACES: Final = 8
"""Instances of the goal that `goal_places` names, and that the expert turns to; more are left out.
None of 4,500 arrangements had more of a category."""
MIN_RESOLUTION: Final = 8
MAX_RESOLUTION: Final = 1024


def parse_task(
    task: ObjectNavConfig | Mapping[str, Any] | None,
    *,
    where: str,
    base: ObjectNavConfig | None = None,
) -> ObjectNavConfig:
    """Return the rules: those of `base` (default: the paper's) but for what `task` says.

    Args:
        task: the rules, or some of their constants.
        where: the environment's name, for messages; so in all functions here.
        base: what the others are.
    """
    if isinstance(task, ObjectNavConfig):
        return task
    if task is not None and not isinstance(task, Mapping):
        raise TypeError(
            f"{where}.task: must be an ObjectNavConfig or a dict of its options, got "
            f"{type(task).__name__}."
        )
    return ObjectNavConfig.create(base, **(task or {}))


def parse_resolution(resolution: int | Sequence[int], *, where: str) -> tuple[int, int]:
    """Return (height, width)."""
    sides = tuple(resolution) if isinstance(resolution, Sequence) else (resolution, resolution)
    good = len(sides) == 2 and all(
        isinstance(s, int | np.integer)
        and not isinstance(s, bool)
        and MIN_RESOLUTION <= s <= MAX_RESOLUTION
        for s in sides
    )
    if not good:
        raise ValueError(
            f"{where}.resolution: must be the side of a square or (height, width), each in "
            f"[{MIN_RESOLUTION}, {MAX_RESOLUTION}], got {resolution!r}."
        )
    return int(sides[0]), int(sides[1])


def parse_sensors(sensors: Sequence[str], *, where: str) -> tuple[str, ...]:
    """Return the names of the sensors, each once, in the order of `SENSORS`."""
    if isinstance(sensors, str) or not isinstance(sensors, Iterable):
        known = ", ".join(map(repr, SENSORS))
        raise TypeError(
            f"{where}.sensors: must be a list of names, got {sensors!r}. Use some of [{known}]."
        )
    for name in sensors:
        if name not in SENSORS:
            raise unknown_name(f"{where}.sensors", "a sensor", name, SENSORS)
    return tuple(name for name in SENSORS if name in sensors)


def observed_images(sensors: tuple[str, ...]) -> tuple[str, ...]:
    """Return the images among some sensors."""
    return tuple(name for name in IMAGES if name in sensors)


def drawn_images(sensors: tuple[str, ...]) -> tuple[str, ...]:
    """Return the images that must be drawn for some sensors."""
    needed = {*sensors, *(_DETECTED_IN if DETECTIONS in sensors else ())}
    return tuple(name for name in IMAGES if name in needed)


def observation_space(
    sensors: tuple[str, ...],
    shape: tuple[int, int],
    *,
    compass: bool,
    prev_reward: bool,
    goal_places: bool = False,
    outcome: bool = False,
    goal_recall: bool = False,
    critic_state: bool = False,
    where: str,
    max_semantic: int = GOAL_SEMANTIC + len(GOAL_CATEGORIES) - 1,
) -> spaces.Dict:
    """Return the space of what one row sees. `max_semantic` bounds semantic images."""
    for name, flag in (
        ("compass", compass),
        ("prev_reward", prev_reward),
        ("goal_places", goal_places),
        ("outcome", outcome),
        ("goal_recall", goal_recall),
        ("critic_state", critic_state),
    ):
        check_flag(f"{where}.{name}", flag)
    if goal_recall and DETECTIONS not in sensors:
        raise ValueError(
            f"{where}.goal_recall: must be False without the sensor detections, which it is made "
            "of, got True. Add 'detections' to sensors."
        )
    known = {
        "rgb": spaces.Box(0, 255, (*shape, 3), np.uint8),
        "depth": spaces.Box(0.0, MAX_DEPTH, shape, np.float32),
        "semantic": spaces.Box(0, max_semantic, shape, np.int16),
        "instance": spaces.Box(0, np.iinfo(np.int16).max, shape, np.int16),
        **_detection_spaces(shape),
        "gps": spaces.Box(-MAX_DEPTH, MAX_DEPTH, (2,), np.float32),
        "compass": spaces.Box(-np.pi, np.pi, (1,), np.float32),
        "goal": spaces.Discrete(len(GOAL_CATEGORIES)),
        "prev_reward": spaces.Box(-MAX_DEPTH, MAX_DEPTH, (1,), np.float32),
        "goal_places": spaces.Box(-MAX_DEPTH, MAX_DEPTH, (MAX_PLACES, 2), np.float32),
        "outcome": spaces.Discrete(len(Outcome)),
        "goal_recall": spaces.Box(-MAX_DEPTH, MAX_DEPTH, (3,), np.float32),
        "critic_state": spaces.Box(-MAX_DEPTH, MAX_DEPTH, (4,), np.float32),
    }
    wanted = {*observed_images(sensors), "gps", "goal"}
    wanted |= set(_detection_spaces(shape)) if DETECTIONS in sensors else set()
    wanted |= {"compass"} if compass else set()
    wanted |= {"prev_reward"} if prev_reward else set()
    wanted |= {"goal_places"} if goal_places else set()
    wanted |= {"outcome"} if outcome else set()
    wanted |= {"goal_recall"} if goal_recall else set()
    wanted |= {"critic_state"} if critic_state else set()
    return spaces.Dict({name: space for name, space in known.items() if name in wanted})


def _detection_spaces(shape: tuple[int, int]) -> dict[str, spaces.Space[Any]]:
    """Return the spaces of what `envs.objectnav.detections` finds in pictures of a shape."""
    count = len(GOAL_CATEGORIES)
    scan = spaces.Box(0.0, SCAN_RANGE, (SCAN_COLUMNS,), np.float32)
    return {**told_spaces(count, pixels=math.prod(shape)), "depth_scan": scan}


def told_spaces(categories: int, *, pixels: int) -> dict[str, spaces.Space[Any]]:
    """Return the spaces of what `envs.objectnav.detections.InView` tells.

    Args:
        categories: number of categories, C.
        pixels: most pixels of a category.
    """
    low_4 = np.array([0.0, 0.0, -MAX_DEPTH, -MAX_DEPTH], np.float32)
    high_4 = np.array([1.0, pixels, MAX_DEPTH, MAX_DEPTH], np.float32)
    goal_low, goal_high = np.full(5, -MAX_DEPTH, np.float32), np.full(5, MAX_DEPTH, np.float32)
    goal_low[0], goal_high[0] = 0.0, 1.0
    low, high = np.tile(low_4, categories), np.tile(high_4, categories)
    return {
        # Flat, as two dimensions would be taken for a picture's.
        DETECTIONS: spaces.Box(low, high, dtype=np.float32),
        "named": spaces.Discrete(categories + 1),
        "named_place": spaces.Box(-MAX_DEPTH, MAX_DEPTH, (2,), np.float32),
        "goal_detection": spaces.Box(goal_low, goal_high, dtype=np.float32),
    }
