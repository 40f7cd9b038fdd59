"""Demonstrations: the first episodes of trials, as actions that can be taken again.

What a trial's first episodes are depends on the trial and on what is done in it, so actions are all
that has to be kept. They come from an environment's expert, or from a file that a person's walk or
any other program has written.

A file holds one JSON object a line: first `{"format": 1, "dataset": NAME}`, with the
`dataset_name` of the environment, then `{"trial": 3, "episode": 0, "actions": [1, 1, 0]}` for each
episode.

Shapes: N rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from envs.core.vector import TrialVectorEnv

FORMAT: Final = 1
EXPERT: Final = "expert"
"""The source of demonstrations that an environment's expert gave."""

T = TypeVar("T")
Record = dict[str, Any]
Choose = Callable[[TrialVectorEnv], NDArray[Any]]
"""Returns the actions of all rows, (N,) or (N, A); those of rows that are done do not matter."""


class DemonstrationError(ValueError):
    """Demonstrations that cannot be shown where they were asked for."""


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """Actions by trial and episode."""

    dataset: str
    """`dataset_name` of the environment, which says what trial numbers mean."""
    actions: Mapping[tuple[int, int], NDArray[Any]]
    """Actions of each step, (T,) or (T, A), by (trial, episode)."""
    source: str
    """Whose they are: `EXPERT`, or a file."""

    def action(self, trial: int, episode: int, step: int) -> Any:
        """Return what was done at a step.

        Raises:
            DemonstrationError: If the demonstration is over.
        """
        actions = self.actions[trial, episode]
        if step >= len(actions):
            raise DemonstrationError(
                f"{self.source}: a demonstration must last until its episode ends, but episode "
                f"{episode} of trial {trial} goes on after its {len(actions)} actions. Record all "
                "of it, under the task's own rules."
            )
        return actions[step]

    def act(self, env: TrialVectorEnv, count: int, action_N: NDArray[Any]) -> NDArray[Any]:
        """Return actions with those of rows in the first `count` episodes replaced by the shown."""
        shown_N = action_N.copy()
        trial_N, episode_N, step_N = env.trial, env.episode, env.elapsed_steps
        for row in np.flatnonzero(episode_N < count).tolist():
            shown_N[row] = self.action(int(trial_N[row]), int(episode_N[row]), int(step_N[row]))
        return shown_N


def record_expert(
    env: TrialVectorEnv, trials: Sequence[int], count: int
) -> tuple[Demonstrations, list[Record]]:
    """Let the environment's expert run the first episodes of trials.

    Args:
        env: Its rows are moved to the trials, as many at a time as there are rows.
        trials: Their numbers.
        count: Episodes of each.

    Returns:
        What it did, and a record of each episode.

    Raises:
        NotImplementedError: If the environment has no expert.
    """
    actions, records = _run(env, trials, count, lambda env: env.expert_actions())
    return Demonstrations(env.dataset_name, actions, EXPERT), records


def rehearse(
    demonstrations: Demonstrations, env: TrialVectorEnv, trials: Sequence[int], count: int
) -> list[Record]:
    """Take the actions of the first episodes of trials, to see that they fit and what they earn.

    Args:
        demonstrations: Whose actions.
        env: As for `record_expert`.
        trials: Their numbers.
        count: Episodes of each.

    Returns:
        A record of each episode.

    Raises:
        DemonstrationError: If they are of another dataset, or an episode is missing, or it does
            not end with its last action.
    """
    source = demonstrations.source
    if demonstrations.dataset != env.dataset_name:
        raise DemonstrationError(
            f"{source}: demonstrations must be of {env.dataset_name}, got "
            f"{demonstrations.dataset}. Record them in the protocol's split and size."
        )
    for trial in trials:
        for episode in range(count):
            if (trial, episode) not in demonstrations.actions:
                raise DemonstrationError(
                    f"{source}: demonstrations must hold the first {count} episodes of trial "
                    f"{trial}, got no episode {episode}. Record it, or show fewer."
                )
    # What rows do that are done with their episodes does not matter, but must be allowed.
    idle_N = np.array([demonstrations.action(trials[0], 0, 0)] * env.num_envs)
    taken, records = _run(env, trials, count, lambda env: demonstrations.act(env, count, idle_N))
    for (trial, episode), actions in taken.items():
        recorded = len(demonstrations.actions[trial, episode])
        if len(actions) != recorded:
            raise DemonstrationError(
                f"{source}: a demonstration must last until its episode ends, but episode "
                f"{episode} of trial {trial} ended after {len(actions)} of its {recorded} actions. "
                "Record it under the task's own rules."
            )
    return records


def write_demonstrations(demonstrations: Demonstrations, path: Path) -> None:
    """Write a file of demonstrations, replacing one that is there."""
    lines: list[dict[str, Any]] = [{"format": FORMAT, "dataset": demonstrations.dataset}]
    for (trial, episode), actions in sorted(demonstrations.actions.items()):
        lines.append({"trial": trial, "episode": episode, "actions": actions.tolist()})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_demonstrations(path: Path) -> Demonstrations:
    """Read a file of demonstrations.

    Raises:
        FileNotFoundError: If there is none.
        DemonstrationError: If a line is not what the format says.
    """
    # What is no text becomes a line that is no JSON.
    lines = path.read_text(errors="replace").splitlines() or [""]
    dataset = _parsed(path, 1, lines[0], _dataset)
    numbered = enumerate(lines[1:], start=2)
    actions = dict(_parsed(path, number, line, _episode) for number, line in numbered)
    return Demonstrations(dataset, actions, str(path))


def _parsed(path: Path, number: int, line: str, parse: Callable[[Any], T]) -> T:
    try:
        return parse(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise DemonstrationError(
            f"{path}: line {number} must be as envs/core/demonstrations.py says, got "
            f"{type(error).__name__}: {error}. Record the file again."
        ) from None


def _dataset(content: Any) -> str:
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']!r} instead of {FORMAT}")
    return str(content["dataset"])


def _episode(content: Any) -> tuple[tuple[int, int], NDArray[Any]]:
    actions = np.array(content["actions"])
    if not actions.size or actions.dtype.kind not in "iuf":
        raise ValueError("actions are not a list of numbers")
    return (int(content["trial"]), int(content["episode"])), actions


def _run(
    env: TrialVectorEnv, trials: Sequence[int], count: int, choose: Choose
) -> tuple[dict[tuple[int, int], NDArray[Any]], list[Record]]:
    """Run the first episodes of trials and return what was done and how it went."""
    taken: dict[tuple[int, int], list[Any]] = {}
    records: list[Record] = []
    for begin in range(0, len(trials), env.num_envs):
        chosen = np.array(trials[begin : begin + env.num_envs], np.int64)
        # Rows that are left over repeat the last trial; what they do is not kept.
        padded_N = np.pad(chosen, (0, env.num_envs - len(chosen)), mode="edge")
        everywhere = np.ones(env.num_envs, bool)
        env.reset(options={"new_trial": everywhere, "trial": padded_N})
        while len(running := np.flatnonzero(env.episode[: len(chosen)] < count)):
            episode_N, action_N = env.episode, choose(env)
            for row in running.tolist():
                where = int(chosen[row]), int(episode_N[row])
                taken.setdefault(where, []).append(action_N[row])
            infos = env.step(action_N)[-1]
            ended_N = infos.get("_episode_record", np.zeros(env.num_envs, bool))
            for row in running[ended_N[running]].tolist():
                record = {k: v[row].item() for k, v in infos["episode_record"].items()}
                records.append(record)
    return {where: np.array(actions) for where, actions in taken.items()}, records
