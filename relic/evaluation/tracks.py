"""Where the agent went in chosen trials of an evaluation, kept to be replayed.

Tracks are written beside the records while a block is evaluated. They are as exact as a replay
needs, and the same whenever the block is evaluated again.

Legend: N rows, T steps of an episode.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.core.vector import Observation, TrialVectorEnv
from relic.evaluation.maps import Positions, ground_of, has_ground
from relic.evaluation.protocol import Block, Protocol
from relic.evaluation.store import write_text
from relic.files import complete_lines
from relic.schema import ConfigError

_FEW, _MOST = 3, 12
"""Trials that are kept if none are named, and that may be named."""
_DECIMALS = 3
"""Of metres and radians: a tenth of a pixel is coarser."""


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
            pose_N4 = ground_of(env).poses(env, observation)
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
        return tuple(trials[:_FEW]) if has_ground(env) else ()
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
    if trials and not has_ground(env):
        raise ConfigError(
            f"{key}: must be empty for {protocol.env}, which has no map, got trials {list(trials)}."
        )


def track_file(directory: Path, trial: int) -> Path:
    """Return where the track of a trial is kept in the directory of an evaluation."""
    return directory / "tracks" / f"trial-{trial:06d}.jsonl"


def missing_tracks(directory: Path, protocol: Protocol, trials: Collection[int]) -> set[int]:
    """Return the blocks that must be evaluated for the tracks of trials to be there."""
    missing = {trial for trial in trials if not track_file(directory, trial).exists()}
    return {block.index for block in protocol.blocks() if Tracker(block, missing).trials}


def read_track(directory: Path, trial: int) -> Track:
    """Read the track of a trial."""
    lines = complete_lines(track_file(directory, trial))
    return Track(trial, tuple(np.array(line["pose"], float).reshape(-1, 4) for line in lines))


def _write(directory: Path, track: Track) -> None:
    file = track_file(directory, track.trial)
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for episode, pose_T4 in enumerate(track.episodes):
        rounded = np.round(pose_T4, _DECIMALS).tolist()
        pose = [[None if math.isnan(value) else value for value in row] for row in rounded]
        lines.append(json.dumps({"episode": episode, "pose": pose}) + "\n")
    write_text(file, "".join(lines))
