"""Tasks of POPGym (Morad et al. 2023) as trials: games that none can play without a memory.

A trial is one game after the other, each dealt anew; only the rules stay. POPGym empties an agent's
memory before every game, here it lasts for the trial: whether that helps or hurts is the memory's.
"""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium import spaces

from envs.core.single import SingleTrialEnv
from envs.core.trials import EpisodeTrials, by_method
from envs.core.validation import unknown_name

SPLITS = {"train": (0, 2**24), "val": (2**24, 2**20), "test": (2**24 + 2**20, 2**20)}
"""First trial and number of trials; their numbers seed the games."""
LONGEST = 416
"""Steps of a game whose end is in its rules, at the most: four decks of two packs."""


class NamedParts(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Names the parts of an observation that is a tuple."""

    def __init__(self, env: gymnasium.Env[Any, Any]):
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Tuple)
        parts = env.observation_space.spaces
        self.observation_space = spaces.Dict({f"part_{i}": s for i, s in enumerate(parts)})

    def observation(self, observation: Any) -> dict[str, Any]:
        """Return the parts by name."""
        return {f"part_{i}": part for i, part in enumerate(observation)}


def make(
    num_envs: int = 1, *, task: str = "RepeatPreviousEasy", split: str = "train", **options: Any
) -> EpisodeTrials:
    """Build rows of a task.

    Args:
        num_envs: N.
        task: The class of the task in `popgym.envs`, such as RepeatFirstEasy.
        split: Of the seeds: train, val or test.
        options: Of `EpisodeTrials`.

    Raises:
        ImportError: If POPGym is not installed.
        ValueError: If there is no such task or split.
    """
    try:
        from popgym.envs import ALL  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "relic/POPGym-v0: popgym must be installed. Run: pip install 'popgym>=1.0.6'"
        ) from error
    known = {one.__name__: one for one in ALL}
    for value, names, what in ((task, known, "task"), (split, SPLITS, "split")):
        if value not in names:
            raise unknown_name(f"env.options.{what}", f"the {what}", value, list(names))
    game = known[task]

    def build() -> gymnasium.Env[Any, Any]:
        env = game()
        return NamedParts(env) if isinstance(env.observation_space, spaces.Tuple) else env

    first_trial, num_trials = SPLITS[split]
    given: dict[str, Any] = {"first_trial": first_trial, "num_trials": num_trials, **options}
    return EpisodeTrials(
        build,
        num_envs,
        dataset_name=f"popgym-1/{task}/{split}",
        start=by_method(lambda env, trial: None),
        max_episode_steps=getattr(game(), "max_episode_length", None) or LONGEST,
        **given,
    )


def make_one(**options: Any) -> SingleTrialEnv:
    """Build a plain Gymnasium environment of one row; see `make`."""
    return SingleTrialEnv(make(1, **options))
