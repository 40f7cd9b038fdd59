"""Videos of chosen episodes: the map with the way so far, beside what the agent saw.

They are drawn from the tracks that an evaluation leaves, so nothing is acted again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from envs.core.vector import TrialVectorEnv
from envs.houses.show.topdown import write_film
from relic.evaluation.maps import Track, map_of
from relic.evaluation.records import Record
from relic.evaluation.report.replay import outcome
from relic.schema import ConfigError

SIDE = 320
"""Pixels along a side of the view; the map is as high."""


def write_videos(
    env: TrialVectorEnv,
    tracks: Mapping[int, Track],
    records: Sequence[Record],
    filmed: Sequence[tuple[int, int]],
    directory: Path,
) -> list[Path]:
    """Film episodes of the first repeat of trials.

    Args:
        env: Of one row; it is moved into the trials.
        tracks: By trial.
        records: Of the evaluation.
        filmed: Trials and episodes.
        directory: Made if needed.

    Returns:
        The files.

    Raises:
        ConfigError: If a trial has no such episode.
    """
    own = {(r["trial"], r["episode"]): r for r in records if r["repeat"] == 0}
    for trial, episode in filmed:
        if (trial, episode) not in own:
            whole = sum(t == trial for t, _ in own)
            raise ConfigError(
                f"videos: trial {trial} must have had the episode, got {episode} and {whole} "
                "whole episodes. Name one before."
            )
    files = []
    for trial, episode in filmed:
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / f"trial-{trial:06d}-episode-{episode:03d}.mp4"
        if not file.exists():
            temporary = file.with_suffix(".tmp.mp4")
            _film(env, tracks[trial], own[trial, episode], temporary)
            temporary.replace(file)
        files.append(file)
    return files


def _film(env: TrialVectorEnv, track: Track, record: Record, file: Path) -> None:
    env.reset(options={"new_trial": np.ones(1, bool), "trial": np.array([track.trial])})
    trial_map, goal = map_of(env), record.get("goal")
    picture = trial_map.picture(goal, side=SIDE)
    pose_T4 = track.episodes[record["episode"]]
    asked = f"{env.goal_categories[goal]}: " if env.goal_categories and goal is not None else ""
    where = f"episode {record['episode']} of trial {track.trial}"
    ended = outcome(record, trial_map.found_after(record, pose_T4))
    captions = [f"{asked}{text}".replace("_", " ") for text in (where, f"{ended}; {where}")]
    on_picture_T4 = pose_T4 - np.array([picture.left, picture.bottom, 0.0, 0.0])
    views = trial_map.views(env, pose_T4, SIDE)
    write_film(
        file, picture.plan, on_picture_T4, views, caption=captions[0], last_caption=captions[1]
    )
