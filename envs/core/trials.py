"""Turns any Gymnasium environment into trials: N copies in one process, as a `TrialVectorEnv`.

A trial needs a task that stays the same while episodes follow each other, and Gymnasium has no
word for that. Here an `EpisodeStart` says it: a function that begins one episode of one trial,
and must depend on nothing else. Three are ready: `by_seed`, `by_option` and `by_method`.

State is saved by replay (`envs.core.replay`).

Shape suffix: K some of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from envs.core.answers import AnswerError
from envs.core.draws import keyed_generator
from envs.core.replay import ReplayVectorEnv
from envs.core.vector import Rows, Transition

EpisodeStart = Callable[[gymnasium.Env[Any, Any], int, int], tuple[Any, dict[str, Any]]]
"""(environment, trial, episode index in the trial) -> what its `reset` returned."""


def episode_seed(trial: int, episode: int) -> int:
    """Return a seed for what differs between the episodes of a trial."""
    return int(keyed_generator("episode", trial, episode).integers(2**31))


def by_seed(env: gymnasium.Env[Any, Any], trial: int, episode: int) -> tuple[Any, dict[str, Any]]:
    """Reset with the trial's number as seed, in every episode.

    For environments in which the seed fixes the task. It fixes starts and noise too: all
    episodes of a trial are alike.
    """
    return env.reset(seed=trial)


def by_option(name: str) -> EpisodeStart:
    """Return a start for environments that take the task's number as `reset(options={name: ...})`.

    The seed is another one in each episode, and so are starts and noise.
    """

    def start(env: gymnasium.Env[Any, Any], trial: int, episode: int) -> tuple[Any, dict[str, Any]]:
        return env.reset(seed=episode_seed(trial, episode), options={name: trial})

    return start


def by_method(set_task: Callable[[gymnasium.Env[Any, Any], int], Any]) -> EpisodeStart:
    """Return a start for environments whose task is set by a call before `reset`.

    Args:
        set_task: Sets the trial's task, e.g. `lambda env, trial: env.unwrapped.set_task(trial)`.
    """

    def start(env: gymnasium.Env[Any, Any], trial: int, episode: int) -> tuple[Any, dict[str, Any]]:
        set_task(env, trial)
        return env.reset(seed=episode_seed(trial, episode))

    return start


class EpisodeTrials(ReplayVectorEnv):
    """N copies of a Gymnasium environment whose episodes are grouped into trials.

    Trial t of this environment is trial `first_trial + t % num_trials` of the task, so ranges
    that do not overlap are splits that share no task.
    """

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env[Any, Any]],
        num_envs: int = 1,
        *,
        dataset_name: str,
        start: EpisodeStart = by_seed,
        max_episode_steps: int | None = None,
        expert: Callable[[gymnasium.Env[Any, Any]], Any] | None = None,
        memory_expert: Callable[[gymnasium.Env[Any, Any], str], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Build the copies.

        Args:
            make_env: Builds one environment. Observations are a Dict of Box, Discrete,
                MultiDiscrete or MultiBinary, or one of these alone, then named `observation`.
            num_envs: Number of rows, N.
            dataset_name: Name of the tasks, with their version.
            start: How an episode begins: `by_seed`, `by_option`, `by_method` or your own function.
            max_episode_steps: Time limit. Default: the one of the environment's spec.
            expert: Returns an expert's action for an environment, if there is an expert.
            memory_expert: Returns the action of one that knows only what the environment has shown,
                since the trial began (`memory`) or the episode (`episode`), if there is one.
            kwargs: `first_trial`, `num_trials` and `record` of `ReplayVectorEnv`;
                `fixed_horizon`, `time_limit_default`, `privileged`, `kinds`, `seed`, `first_row`,
                `copy` of `TrialVectorEnv`.

        Raises:
            ValueError: If no time limit is known, or `make_env` returns the same copy twice.
            TypeError: If the observation space cannot be batched as arrays.
        """
        # One at first, which tells the spaces. The others follow once all arguments are accepted.
        self.envs = [make_env()]
        self._start, self._expert, self._memory_expert = start, expert, memory_expert
        spec = self.envs[0].spec
        limit = max_episode_steps
        if limit is None and spec is not None:
            limit = spec.max_episode_steps
        if limit is None:
            raise ValueError(
                "EpisodeTrials: max_episode_steps must be given where the environment's spec has "
                "none, got None. Say how long an episode may last."
            )
        space = self.envs[0].observation_space
        self._bare = not isinstance(space, spaces.Dict)
        super().__init__(
            num_envs,
            _dict_space(space),
            single_action_space=self.envs[0].action_space,
            dataset_name=dataset_name,
            max_episode_steps=limit,
            **kwargs,
        )
        self.envs += [make_env() for _ in range(1, self.num_envs)]
        if len({id(env.unwrapped) for env in self.envs}) < self.num_envs:
            raise ValueError(
                "EpisodeTrials: make_env must build another environment at each call, got one "
                "again: rows would move each other. Build it inside the function."
            )

    def begin_rows(self, rows: Rows) -> None:
        """Reset the environments into their episodes."""
        for row in rows:
            episode = int(self.episode[row])
            begun = self._ask(row, self._start, self.envs[row], self.task(row), episode)
            if not isinstance(begun, tuple) or len(begun) != 2:
                raise AnswerError(
                    f"{self.told(row)}: reset() must return (observation, info), got a "
                    f"{type(begun).__name__}. Correct the environment, or its start."
                )
            self.show(row, {"observation": begun[0]} if self._bare else begun[0])

    def step_rows(self, rows: Rows, actions: NDArray[Any]) -> Transition:
        """Step the environments one after the other."""
        reward_K = np.zeros(len(rows), dtype=np.float32)
        terminated_K, truncated_K = (np.zeros(len(rows), dtype=bool) for _ in range(2))
        for k, row in enumerate(rows):
            answer = self._ask(row, self.envs[row].step, actions[k])
            observation, *rest = answer if isinstance(answer, Sequence) else (answer,)
            reward_K[k], terminated_K[k], truncated_K[k] = self.take(row, rest)
            self.show(row, {"observation": observation} if self._bare else observation)
        return reward_K, terminated_K, truncated_K

    def _ask(self, row: int, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call an environment, and add to what it raises where that was."""
        try:
            return call(*arguments)
        except Exception as error:
            error.add_note(self.told(row))
            raise

    def ask_expert(self) -> ArrayLike:
        """Ask the expert about each environment."""
        if self._expert is None:
            return super().ask_expert()
        return [self._expert(env) for env in self.envs]

    def ask_memory_expert(self, kind: str) -> ArrayLike:
        """Ask the expert that has to remember about each environment."""
        if self._memory_expert is None:
            return super().ask_memory_expert(kind)
        return [self._memory_expert(env, kind) for env in self.envs]

    def close_extras(self, **kwargs: Any) -> None:
        """Close the copies."""
        for env in getattr(self, "envs", ()):  # none if the first could not be built
            env.close()


def _dict_space(space: gymnasium.Space[Any]) -> spaces.Dict:
    """Return an observation space as a Dict of array spaces."""
    parts = dict(space.items()) if isinstance(space, spaces.Dict) else {"observation": space}
    arrays = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    good = [name for name, part in parts.items() if isinstance(part, arrays)]
    for name, part in parts.items():
        if name in good:
            continue
        if isinstance(part, spaces.Dict | spaces.Tuple):
            advice = "Put gymnasium.wrappers.FlattenObservation around the environment."
        elif good:
            advice = f"Leave it out: gymnasium.wrappers.FilterObservation(env, {good})."
        else:
            advice = "Turn it into numbers, by gymnasium.wrappers.TransformObservation."
        raise TypeError(
            f"EpisodeTrials: observation {name!r} must be a Box, Discrete, MultiDiscrete or "
            f"MultiBinary space, got {type(part).__name__}. {advice}"
        )
    return spaces.Dict(parts)
