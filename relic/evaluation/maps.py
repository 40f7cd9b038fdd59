"""Maps of trials seen from above, and the tracks of agents on them.

A `TrialMap` knows positions and goals, and gives a picture to draw them on. A `Track` is the way of
the agent in one trial, kept to be replayed: it is written beside the records while a block is
evaluated, as exact as a replay needs, and the same whenever the block is evaluated again.

Shapes: N rows, T steps of an episode, K goals, H and W picture height and width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from envs.core.vector import Observation, TrialVectorEnv
from envs.darkroom import DarkroomVectorEnv
from envs.houses.env import HousesVectorEnv
from envs.houses.rendering.renderer import BatchRenderer
from envs.houses.scene import Scene
from envs.houses.show.topdown import (
    Frame,
    Map,
    draw_map,
    draw_scale,
    mark_objects,
    plot_map,
)
from relic.evaluation.protocol import Block, Protocol
from relic.evaluation.records import Record
from relic.files import Seal, read_sealed, write_text
from relic.schema import ConfigError

Positions = NDArray[np.float64]
"""(..., 2): x and y in the units of the map."""

_GOAL, _LINE = (250, 214, 165), (205, 211, 219)
SIDE = 640
"""Pixels along the longer side of a picture, unless another number is given."""
_FEW, _MOST = 3, 12
"""Trials that are kept if none are named, and that may be named."""
_DECIMALS = 3
"""Of metres and radians: a tenth of a pixel is coarser."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A map, whose first row is the far side, of greatest y."""

    plan: Map
    """Its own origin is the picture's lower left corner, and its metre the map's unit."""
    left: float
    bottom: float

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top in the units of the map."""
        height, width = (n / self.plan.pixels_per_metre for n in self.plan.image.shape[:2])
        return self.left, self.left + width, self.bottom, self.bottom + height


@dataclass(frozen=True, slots=True)
class DarkroomMap:
    """Darkroom: cells of a square, which the agent knows by their numbers."""

    size: int

    def poses(self, env: TrialVectorEnv, observation: Observation) -> Positions:
        """Return x, y, heading and pitch of all rows, (N, 4); NaN for what agents lack."""
        scaled_N2 = observation["position"].astype(np.float64)
        cell_N2 = np.rint((scaled_N2 + 1.0) * 0.5 * (self.size - 1))
        return np.concatenate([cell_N2, np.full_like(cell_N2, np.nan)], axis=1)

    def goals(self, goal: int) -> Positions:
        """Return the places that satisfy a record's `goal`, (K, 2): the hidden cell."""
        return np.array([divmod(goal, self.size)], np.float64)

    def found_after(self, record: Record, pose_T4: Positions) -> int | None:
        """Return the number of steps after which an episode first reached its goal, if it did.

        The episode goes on on the goal, so its length does not tell. Poses are those before each
        action: one that begins on the goal has not found it, and what is found by the last action
        is in no pose.
        """
        if not record["success"]:
            return None
        # Cells are whole numbers in float64, so they can be compared for equality.
        on_goal_T = (pose_T4[:, :2] == self.goals(record["goal"])).all(axis=1)
        reached = np.flatnonzero(on_goal_T[1:])
        return int(reached[0]) + 1 if len(reached) else len(pose_T4)

    def draw(self, axes: Axes) -> None:
        """Draw the lines between cells, and set the limits of the axes."""
        edges = np.arange(self.size + 1) - 0.5
        axes.hlines(edges, edges[0], edges[-1], color="#d5dae1", lw=0.5, zorder=0)
        axes.vlines(edges, edges[0], edges[-1], color="#d5dae1", lw=0.5, zorder=0)
        axes.set(xlim=(-0.6, self.size - 0.4), ylim=(-0.6, self.size - 0.4), aspect="equal")
        axes.set_axis_off()

    def picture(self, goal: int | None = None, *, side: int = SIDE) -> Picture:
        """Return a picture; with the places that satisfy a goal marked, if it is given."""
        scale = max(side // self.size, 2)
        side = scale * self.size
        image_HW3 = np.full((side, side, 3), 255, np.uint8)
        if goal is not None:
            left, low = scale * self.goals(goal)[0].astype(int)
            image_HW3[side - low - scale : side - low, left : left + scale] = _GOAL
        lines = np.arange(0, side, scale)
        image_HW3[lines] = image_HW3[:, lines] = _LINE
        image_HW3[-1] = image_HW3[:, -1] = _LINE
        return Picture(Map(image_HW3, float(scale)), -0.5, -0.5)

    def views(self, env: TrialVectorEnv, pose_T4: Positions, side: int) -> Iterator[Frame] | None:
        """Return what agents see that stand so, in pictures of a side; here None: it is dark."""
        return None


@dataclass(frozen=True, slots=True)
class HouseMap:
    """A furnished house, in metres."""

    scene: Scene

    def poses(self, env: TrialVectorEnv, observation: Observation) -> Positions:
        """Return how the agents stand, (N, 4)."""
        assert isinstance(env, HousesVectorEnv)
        return env.simulator.pose_N4.copy()

    def goals(self, goal: int) -> Positions:
        """Return where the objects of the category are, (K, 2)."""
        return np.array([(o.x, o.y) for o in self.scene.objects if o.category == goal])

    def found_after(self, record: Record, pose_T4: Positions) -> int | None:
        """Return the number of steps after which the goal was found, if it was: the last."""
        return len(pose_T4) if record["success"] else None

    def draw(self, axes: Axes) -> None:
        """Draw rooms and furniture, pale, as more is drawn over them."""
        plot_map(axes, self.scene, pixels_per_metre=32.0)
        axes.images[-1].set_alpha(0.5)
        axes.set_axis_off()

    def picture(self, goal: int | None = None, *, side: int = SIDE) -> Picture:
        """Paint rooms and furniture with a scale, and ring the objects, or those of a goal."""
        plan = draw_map(self.scene, side / max(self.scene.house.extent))
        plan = mark_objects(plan, self.scene, names=goal is None, goal=goal)
        return Picture(draw_scale(plan), 0.0, 0.0)

    def views(self, env: TrialVectorEnv, pose_T4: Positions, side: int) -> Iterator[Frame] | None:
        """Render what the camera saw, in finer pictures than the agent's."""
        assert isinstance(env, HousesVectorEnv)
        return _render(self.scene, pose_T4, side, math.radians(env.task.hfov_deg))


TrialMap = DarkroomMap | HouseMap
"""What one trial's positions are drawn on."""


def _render(scene: Scene, pose_T4: Positions, side: int, hfov: float) -> Iterator[Frame]:
    renderer = BatchRenderer(1, width=side, height=side, hfov=hfov, sensors=("rgb",), antialias=2)
    try:
        renderer.set_scene(0, scene)
        for pose in pose_T4:
            yield renderer.render(*pose[:, None])["rgb"][0].copy()
    finally:
        renderer.close()


def has_map(env: TrialVectorEnv) -> bool:
    """Say whether an environment shows where its agents are."""
    return isinstance(env, DarkroomVectorEnv | HousesVectorEnv)


def map_of(env: TrialVectorEnv, row: int = 0) -> TrialMap:
    """Return the map of the trial that a row is in.

    Raises:
        ValueError: If the environment shows no positions.
    """
    if isinstance(env, DarkroomVectorEnv):
        return DarkroomMap(env.size)
    if isinstance(env, HousesVectorEnv):
        return HouseMap(env.simulator.task_scene(row).scene)
    raise ValueError(
        f"map_of: the environment must be Darkroom or Houses, got {type(env).__name__}. "
        "Others have no map."
    )


@dataclass(frozen=True, slots=True)
class Track:
    """One trial."""

    trial: int
    episodes: tuple[Positions, ...]
    """Of each episode, in order, how the agent stood before each action: x, y, heading, pitch
    (T, 4). The last may be unfinished."""


class Tracker:
    """Notes poses while a block is evaluated; an `on_act` of `run_block`."""

    def __init__(self, block: Block, trials: Collection[int]):
        """Choose the rows: the first repeat of these trials, as far as the block has them."""
        self._rows = {
            row: unit.trial
            # Without the padding, which repeats a trial that is in the block already.
            for row, unit in enumerate(block.units[: block.num_real])
            if unit.repeat == 0 and unit.trial in trials
        }
        self._episodes: dict[int, list[list[NDArray[np.float64]]]] = {row: [] for row in self._rows}

    @property
    def trials(self) -> list[int]:
        """The chosen trials."""
        return list(self._rows.values())

    def __call__(
        self,
        env: TrialVectorEnv,
        observation: Observation,
        starts_N: np.ndarray,
        action_N: np.ndarray,
    ) -> np.ndarray:
        """Note how the agents stand; their actions are left alone."""
        if self._rows:
            pose_N4 = map_of(env).poses(env, observation)
            for row, episodes in self._episodes.items():
                if starts_N[row]:
                    episodes.append([])
                episodes[-1].append(pose_N4[row])
        return action_N

    def write(self, directory: Path) -> None:
        """Write a file for each chosen trial."""
        for row, trial in self._rows.items():
            episodes = [np.stack(poses) for poses in self._episodes[row]]
            _write(directory, Track(trial, tuple(episodes)))


def replayed_trials(
    wanted: Sequence[int] | None, protocol: Protocol, env: TrialVectorEnv
) -> tuple[int, ...]:
    """Return the trials that are replayed.

    Args:
        wanted: Their numbers. None: the first few, if there is a map to show them on.
        protocol: Whose trials they are.
        env: Its environment.

    Raises:
        ConfigError: If they are too many for one page, or as `check_trials` says.
    """
    if wanted is None:
        trials = range(protocol.first_trial, protocol.first_trial + protocol.trials)
        return tuple(trials[:_FEW]) if has_map(env) else ()
    if len(wanted) > _MOST:
        raise ConfigError(
            f"replay: must name at most {_MOST} trials, which one page can hold, got "
            f"{len(wanted)}. Leave some out."
        )
    check_trials(wanted, protocol, env, key="replay")
    return tuple(wanted)


def check_trials(
    trials: Sequence[int], protocol: Protocol, env: TrialVectorEnv, *, key: str
) -> None:
    """Check that tracks of trials can be had; `key` is what names them.

    Raises:
        ConfigError: If a trial is not the protocol's, or if there is no map.
    """
    first, last = protocol.first_trial, protocol.first_trial + protocol.trials - 1
    for trial in trials:
        if not first <= trial <= last:
            raise ConfigError(
                f"{key}: must name trials of the protocol, {first} to {last}, got {trial}. "
                "Name others."
            )
    if trials and not has_map(env):
        raise ConfigError(
            f"{key}: must be empty for {protocol.env}, which has no map, got trials {list(trials)}."
        )


def track_file(directory: Path, trial: int) -> Path:
    """Return where the track of a trial is kept in the directory of an evaluation."""
    return directory / "tracks" / f"trial-{trial:06d}.jsonl"


def missing_tracks(directory: Path, protocol: Protocol, trials: Collection[int]) -> set[int]:
    """Return the blocks that must be evaluated for the tracks of trials to be there."""
    missing = {trial for trial in trials if _sealed_lines(directory, trial) is None}
    return {block.index for block in protocol.blocks() if Tracker(block, missing).trials}


def read_track(directory: Path, trial: int) -> Track:
    """Read the track of a trial.

    Raises:
        ConfigError: If it is absent or damaged.
    """
    lines = _sealed_lines(directory, trial)
    if lines is None:
        raise ConfigError(
            f"{track_file(directory, trial)}: must hold a whole track, found none or a damaged "
            "one. Run the evaluation again."
        )
    poses = (json.loads(line)["pose"] for line in lines)
    return Track(trial, tuple(np.array(pose, float).reshape(-1, 4) for pose in poses))


def _sealed_lines(directory: Path, trial: int) -> list[str] | None:
    file = track_file(directory, trial)
    return read_sealed(file, file.name)


def _write(directory: Path, track: Track) -> None:
    file = track_file(directory, track.trial)
    file.parent.mkdir(parents=True, exist_ok=True)
    lines, seal = [], Seal(file.name)
    for episode, pose_T4 in enumerate(track.episodes):
        rounded = np.round(pose_T4, _DECIMALS).tolist()
        pose = [[None if math.isnan(value) else value for value in row] for row in rounded]
        lines.append(seal.add(json.dumps({"episode": episode, "pose": pose}) + "\n"))
    write_text(file, "".join([*lines, seal.line]))
