"""Trial environments around simulators that cannot save themselves: state by replay.

The actions of the running episode are kept. A restored environment begins the same episode and
takes them again; a checksum of what each row sees tells whether that led to the same place. So a
simulator need only be a function of (trial, episode index, actions).

Shapes: N rows, K some of the rows, A action dimensions.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.core.answers import (
    AnswerError,
    BrokenNumberError,
    ObservationForm,
    check_outcome,
    nothing_in,
)
from envs.core.validation import check_count
from envs.core.vector import Observation, Rows, State, Transition, TrialVectorEnv


class ReplayVectorEnv(TrialVectorEnv):
    """Rows with foreign simulators in them. Subclasses fill in `begin_rows` and `step_rows`.

    Trial t is task `first_trial + t % num_trials`, so ranges that do not overlap are splits that
    share no task.
    """

    def __init__(
        self,
        num_envs: int,
        single_observation_space: spaces.Dict,
        *,
        single_action_space: gymnasium.Space[Any],
        dataset_name: str,
        first_trial: int = 0,
        num_trials: int = 2**20,
        record: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        """Set up the rows.

        Args:
            num_envs: N.
            single_observation_space: what one row sees.
            single_action_space: Discrete, MultiDiscrete, MultiBinary or Box.
            dataset_name: names the tasks and their version.
            first_trial: number of the split's first task.
            num_trials: number of tasks in the split.
            record: entries of the simulator's last info that an episode's record shall hold, as
                floats; NaN where absent. It should be in the last info of every episode.
            kwargs: further arguments of `TrialVectorEnv`.
        """
        check_count(type(self).__name__, "first_trial", first_trial, least=0)
        if isinstance(record, str):
            raise TypeError(
                f"{type(self).__name__}: record must be a list of names, got {record!r}. "
                f"Use [{record!r}]."
            )
        super().__init__(
            num_envs,
            single_observation_space,
            single_action_space=single_action_space,
            # With the split, as trial numbers count from its first task.
            dataset_name=f"{dataset_name}/{first_trial}+{num_trials}",
            num_trials=num_trials,
            **kwargs,
        )
        self.first_trial = first_trial
        self._tasks_name = dataset_name
        self._record_keys = tuple(record)
        self.never_recorded = set(record)
        """Of them, those that no episode has told yet."""
        shape = (self.num_envs, self.max_episode_steps, *(single_action_space.shape or ()))
        self._actions = np.zeros(shape, dtype=single_action_space.dtype)
        self.shown = self.empty_observation()
        for name, part in single_observation_space.items():
            # A row that breaks down at once never writes here, and its whole numbers are looked at.
            self.shown[name][:] = nothing_in(part)
        self._form = ObservationForm(single_observation_space)
        self.last_info: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]

    def task(self, row: int) -> int:
        """Return the number of a row's trial among all tasks."""
        return self.first_trial + int(self.trial[row]) % self.num_trials

    def shared_trials(self, other: TrialVectorEnv, trials: Sequence[int]) -> list[int]:
        """Return the trials whose task lies in the range of another environment of these tasks."""
        if not isinstance(other, ReplayVectorEnv) or other._tasks_name != self._tasks_name:
            return []
        theirs = range(other.first_trial, other.first_trial + other.num_trials)
        return [t for t in trials if self.first_trial + t % self.num_trials in theirs]

    def begin_rows(self, rows: Rows) -> None:
        """Begin episode `self.episode[row]` of `self.task(row)`; `show` what is seen."""
        raise NotImplementedError

    def step_rows(self, rows: Rows, actions: NDArray[Any]) -> Transition:
        """Act in some rows, (K,) or (K, A); `show` what is seen and keep infos in `last_info`."""
        raise NotImplementedError

    def show(self, row: int, observation: Any) -> None:
        """Keep what a row sees until it is asked for; what cannot be meant is a crash.

        Raises:
            AnswerError: It does not fit the space.
        """
        try:
            self._form.copy(observation, self.shown, row)
        except BrokenNumberError as error:
            self.watch.note(int(row), str(error))
        except AnswerError as error:
            raise AnswerError(f"{self.told(row)}: {error}") from None

    def take(self, row: int, answer: Any) -> tuple[float, bool, bool]:
        """Keep the info of a step, and return its reward, terminated and truncated.

        Args:
            row: Whose.
            answer: These four, in the order of Gymnasium.

        Raises:
            AnswerError: One of them is not what Gymnasium says.
        """
        try:
            reward, terminated, truncated, self.last_info[row] = check_outcome(answer)
        except AnswerError as error:
            raise AnswerError(f"{self.told(row)}: {error}") from None
        return reward, terminated, truncated

    def begin_trials(self, rows: Rows, trials: Rows) -> None:
        """Do nothing: each episode begins with its task's number."""

    def begin_episodes(self, rows: Rows) -> None:
        """Begin them in the simulators."""
        self.begin_rows(rows)

    def advance(self, actions: NDArray[Any]) -> Transition:
        """Act in all simulators, and keep the actions for a replay."""
        rows = np.arange(self.num_envs)
        # The step is counted only afterwards, so the count is its index.
        self._actions[rows, self.elapsed_steps] = actions
        return self.step_rows(rows, actions)

    def observe_rows(self, rows: Rows | None, out: Observation) -> None:
        """Hand out what was last shown."""
        chosen = slice(None) if rows is None else rows
        for name, value in self.shown.items():
            out[name][chosen] = value[chosen]

    def record_rows(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Read the entries that were asked for from the last infos."""
        return {
            key: np.array([self._entry(row, key) for row in rows.tolist()])
            for key in self._record_keys
        }

    def _entry(self, row: int, key: str) -> float:
        """Return an entry of a row's last info as a number, NaN where it is absent."""
        value = self.last_info[row].get(key, np.nan)
        if key in self.last_info[row]:
            self.never_recorded.discard(key)
        array = np.asarray(value)
        if array.shape != () or array.dtype.kind not in "fiub":
            raise AnswerError(
                f"{self.told(row)}: info[{key!r}] must be one number, as the environment was asked "
                f"to record it, got {value!r}. Leave it out of record, or make it a number."
            )
        return float(array)

    def save_rows(self) -> State:
        """Return the actions of the running episodes, and what they led to."""
        return {"actions": self._actions.copy(), "seen": self._seen()}

    def _seen(self) -> NDArray[np.int64]:
        """Return a checksum of what each row sees."""
        checks = [0] * self.num_envs
        for value in self.shown.values():
            checks = [zlib.crc32(v.tobytes(), c) for v, c in zip(value, checks, strict=True)]
        return np.array(checks, dtype=np.int64)

    def load_rows(self, state: State) -> None:
        """Take the saved actions again."""
        self._actions[:] = state["actions"]
        self.begin_rows(np.arange(self.num_envs))
        for step in range(int(self.elapsed_steps.max())):
            # Rows are at different steps of their episodes, so fewer and fewer take part.
            rows = np.flatnonzero(self.elapsed_steps > step)
            self.step_rows(rows, self._actions[rows, step])
        changed = np.flatnonzero(self._seen() != state["seen"])
        if len(changed):
            raise AnswerError(
                f"{self.told(changed[0])}: the same actions must lead to what was seen before the "
                "checkpoint, got something else. Episodes must depend on (trial, episode index, "
                "actions) alone; run envs.check_trial_env."
            )
