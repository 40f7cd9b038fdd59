"""Turns any Gymnasium environment into trials: N copies in one process, as a `TrialVectorEnv`.

A trial needs a task that stays the same while episodes follow each other, and Gymnasium has no
word for that. Here an `EpisodeStart` says it: a function that begins one episode of one trial,
and must depend on nothing else. Three are ready: `by_seed`, `by_option` and `by_method`.

State is saved by replay: the actions of the running episode are kept, and a restored environment
begins the same episode and takes them again. So the wrapped environment needs no way to save
itself, only to be a function of its seed.

Shape suffixes: N rows, A action dimensions.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.draws import keyed_generator
from envs.vector import Observation, Rows, State, TrialVectorEnv

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
        set_task: sets the trial's task, e.g. `lambda env, trial: env.unwrapped.set_task(trial)`.
    """

    def start(env: gymnasium.Env[Any, Any], trial: int, episode: int) -> tuple[Any, dict[str, Any]]:
        set_task(env, trial)
        return env.reset(seed=episode_seed(trial, episode))

    return start


class EpisodeTrials(TrialVectorEnv):
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
        first_trial: int = 0,
        num_trials: int = 2**20,
        max_episode_steps: int | None = None,
        record: Sequence[str] = (),
        expert: Callable[[gymnasium.Env[Any, Any]], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Build the copies.

        Args:
            make_env: builds one environment. Observations are a Dict of Box, Discrete,
                MultiDiscrete or MultiBinary, or one of these alone, then named `observation`.
            num_envs: N.
            dataset_name: names the tasks and their version.
            start: begins an episode; says how the task is fixed.
            first_trial: number of the first trial of the split.
            num_trials: number of trials in the split.
            max_episode_steps: time limit; by default the one of the environment's spec.
            record: entries of the `info` of an episode's last step that its record shall hold,
                as floats; NaN where absent.
            expert: returns an expert's action for an environment, if there is an expert.
            kwargs: `fixed_horizon`, `time_limit_default`, `seed`, `first_row`, `copy` of
                `TrialVectorEnv`.

        Raises:
            ValueError: No time limit is known.
            TypeError: The observation space cannot be batched as arrays.
        """
        self.envs = [make_env()]
        self._start, self._expert, self._keys = start, expert, tuple(record)
        self.first_trial = first_trial
        spec = self.envs[0].spec
        limit = max_episode_steps or (spec.max_episode_steps if spec else None)
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
            dataset_name=f"{dataset_name}/{first_trial}+{num_trials}",
            num_trials=num_trials,
            max_episode_steps=limit,
            **kwargs,
        )
        self.envs += [make_env() for _ in range(1, self.num_envs)]
        action_space = self.single_action_space
        self._actions = np.zeros(
            (self.num_envs, limit, *(action_space.shape or ())), action_space.dtype
        )
        self._current = self._empty()
        self._info: list[dict[str, Any]] = [{} for _ in self.envs]

    def task(self, row: int) -> int:
        """Return the number of a row's trial among all trials of the task."""
        return self.first_trial + int(self._trial[row]) % self.num_trials

    def _begin_trials(self, rows: Rows, trials: Rows) -> None:
        """Do nothing: each episode begins with its trial's number."""

    def _begin_episodes(self, rows: Rows) -> None:
        for row in rows:
            env = self.envs[row]
            observation, _ = self._start(env, self.task(row), int(self._episode[row]))
            self._keep(row, observation)

    def _advance(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        reward_N = np.zeros(self.num_envs, dtype=np.float32)
        terminated_N, truncated_N = (np.zeros(self.num_envs, dtype=bool) for _ in range(2))
        self._actions[np.arange(self.num_envs), self._elapsed] = actions
        for row, env in enumerate(self.envs):
            observation, reward_N[row], terminated_N[row], truncated_N[row], self._info[row] = (
                env.step(actions[row])
            )
            self._keep(row, observation)
        return reward_N, terminated_N, truncated_N

    def _keep(self, row: int, observation: Any) -> None:
        """Keep what a copy showed until it is asked for."""
        parts = {"observation": observation} if self._bare else observation
        for name, value in self._current.items():
            value[row] = parts[name]

    def _observe(self, rows: Rows | None, out: Observation) -> None:
        chosen = slice(None) if rows is None else rows
        for name, value in self._current.items():
            out[name][chosen] = value[chosen]

    def _record(self, rows: Rows) -> dict[str, NDArray[Any]]:
        return {
            key: np.array([float(self._info[row].get(key, np.nan)) for row in rows])
            for key in self._keys
        }

    def _expert_actions(self) -> NDArray[Any]:
        if self._expert is None:
            return super()._expert_actions()
        actions = [self._expert(env) for env in self.envs]
        return np.stack([np.asarray(a, dtype=self.single_action_space.dtype) for a in actions])

    def _state(self) -> State:
        return {"actions": self._actions.copy(), "seen": self._seen()}

    def _seen(self) -> NDArray[np.int64]:
        """Return a checksum of what each row sees."""
        checks = [0] * self.num_envs
        for value in self._current.values():
            checks = [zlib.crc32(v.tobytes(), c) for v, c in zip(value, checks, strict=True)]
        return np.array(checks, dtype=np.int64)

    def _load_state(self, state: State) -> None:
        self._actions[:] = state["actions"]
        self._begin_episodes(np.arange(self.num_envs))
        for row, env in enumerate(self.envs):
            for action in self._actions[row, : self._elapsed[row]]:
                observation, *_, self._info[row] = env.step(action)
                self._keep(row, observation)
        changed = np.flatnonzero(self._seen() != state["seen"])
        if len(changed):
            raise ValueError(
                f"EpisodeTrials.load_state_dict: replaying the actions of row {changed[0]} must "
                "lead to the saved observation, got another one. Episodes must depend on (trial, "
                "episode index, actions) alone; run envs.check_trial_env on the environment."
            )

    def close_extras(self, **kwargs: Any) -> None:
        """Close the copies."""
        for env in self.envs:
            env.close()


def _dict_space(space: gymnasium.Space[Any]) -> spaces.Dict:
    """Return an observation space as a Dict of array spaces."""
    parts = dict(space.items()) if isinstance(space, spaces.Dict) else {"observation": space}
    arrays = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    for name, part in parts.items():
        if not isinstance(part, arrays):
            raise TypeError(
                f"EpisodeTrials: observation {name!r} must be a Box, Discrete, MultiDiscrete or "
                f"MultiBinary space, got {type(part).__name__}. Put a wrapper such as "
                "gymnasium.wrappers.FlattenObservation around the environment."
            )
    return spaces.Dict(parts)
