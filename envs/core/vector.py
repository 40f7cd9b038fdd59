"""The infos of a step in which episodes ended, laid out as by Gymnasium in its SAME_STEP mode.

Shape suffixes: N rows, K rows whose episode ended.

The trial contract on top of `gymnasium.vector.VectorEnv`.

Each of N rows lives in a trial: a task, named by one integer, that stays fixed while episodes
follow each other inside it. `TrialVectorEnv` does all that is alike in every such environment:
which trial comes next, what `reset` may be asked, SAME_STEP autoreset, time limits, records. What a
concrete environment fills in, where each row is and how that is saved, is in
`envs.core.row_states`. No task lives here, and `envs.core.single` shows one row as a
`gymnasium.Env`.

Shape suffixes: N rows, K some of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.core.draws import draw_trials
from envs.core.row_states import Observation, Rows, RowStates, State
from envs.core.validation import (
    ResetRequest,
    check_actions,
    check_count,
    check_reset_options,
    check_seed,
)


def final_infos(
    rows: NDArray[np.int64], final_obs: NDArray[Any], record: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    """Return the infos of a step in which the episodes of `rows` ended.

    They are as `SyncVectorEnv` builds them from single environments, plus the record at the top,
    where `RecordEpisodeStatistics` and others put theirs.

    Args:
        rows: (K,).
        final_obs: objects, (N,): the last observation where an episode ended, else None.
        record: entries of the episode records, (K,) each.
    """
    num_envs = len(final_obs)
    ended_N = np.zeros(num_envs, dtype=bool)
    ended_N[rows] = True
    whole: dict[str, NDArray[Any]] = {}
    nested: dict[str, NDArray[Any]] = {}
    for name, value in record.items():
        whole[name] = np.zeros(num_envs, dtype=value.dtype)
        whole[name][rows] = value
        nested[name], nested[f"_{name}"] = whole[name].copy(), ended_N.copy()
    return {
        "final_obs": final_obs,
        "_final_obs": ended_N,
        "final_info": {"episode_record": nested, "_episode_record": ended_N.copy()},
        "_final_info": ended_N.copy(),
        "episode_record": whole,
        "_episode_record": ended_N.copy(),
    }


__all__ = ["Observation", "Rows", "State", "TrialVectorEnv"]


class TrialVectorEnv(RowStates, VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """N rows, each in its own trial, stepped together in one process.

    `reset` begins new trials or episodes as its options say (see `reset`); `step` begins the next
    episode of the same trial by itself when one ends (SAME_STEP autoreset, `final_obs` and
    `final_info` as Gymnasium defines them). What row i sees depends on the seed, its global
    number `first_row + i` and its actions only, never on N or on other rows.

    `infos` is empty on steps in which no episode ends. Else it holds, with `final_obs` and
    `final_info`, `episode_record`: a dict of (N,) arrays, meaningful where `_episode_record`.
    Every record has `trial`, `episode` (index in the trial), `length` and `return`.
    """

    goal_categories: ClassVar[tuple[str, ...]] = ()
    """What the records' `goal` counts, by name; empty where goals have no categories."""

    def __init__(
        self,
        num_envs: int,
        single_observation_space: spaces.Dict,
        *,
        single_action_space: gymnasium.Space[Any],
        dataset_name: str,
        num_trials: int,
        max_episode_steps: int,
        fixed_horizon: bool = False,
        time_limit_default: str = "bootstrap",
        seed: int = 0,
        first_row: int = 0,
        copy: bool = True,
    ) -> None:
        """Set up rows that wait for the first `reset`.

        Args:
            num_envs: N.
            single_observation_space: what one row sees; its arrays are batched along axis 0.
            single_action_space: Discrete, MultiDiscrete or Box.
            dataset_name: what trial numbers mean: versioned, part of every saved state.
            num_trials: unnamed trials are drawn evenly from [0, num_trials).
            max_episode_steps: an episode that lasts this long is truncated.
            fixed_horizon: every episode lasts exactly that long.
            time_limit_default: `terminal` or `bootstrap`: how a learner should see time limits.
            seed: names the sequence of trials until `reset(seed=...)`.
            first_row: global number of row 0.
            copy: hand out fresh observation arrays; else two buffers take turns, and an
                observation is overwritten by the second call after it.
        """
        where = type(self).__name__
        check_count(where, "num_envs", num_envs, least=1)
        check_count(where, "first_row", first_row, least=0)
        check_count(where, "max_episode_steps", max_episode_steps, least=1)
        check_count(where, "num_trials", num_trials, least=1)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.num_envs = int(num_envs)
        self.single_observation_space = single_observation_space
        self.single_action_space = single_action_space
        self.observation_space = batch_space(single_observation_space, self.num_envs)
        assert isinstance(self.observation_space, spaces.Dict)
        self._single_spaces = dict(single_observation_space.items())
        self._spaces = dict(self.observation_space.items())
        self.action_space = batch_space(single_action_space, self.num_envs)
        self.dataset_name = dataset_name
        self.num_trials = int(num_trials)
        self.max_episode_steps = int(max_episode_steps)
        self.fixed_horizon = fixed_horizon
        self.time_limit_default = time_limit_default
        self.first_row = int(first_row)
        self._seed = check_seed(where, seed)
        self._start_counters()
        self._buffers: list[Observation] = [] if copy else [self._empty(), self._empty()]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin trials or episodes.

        The first reset, and any with a seed, begins new trials in all rows. A bare one begins a
        new episode in each row's trial.

        Args:
            seed: restarts the sequence of trials, in all rows, under this seed.
            options: `reset_mask` (bool, (N,)): a new episode in these rows only. `new_trial`
                (bool, (N,)): a new trial in these rows. Rows in neither stay as they are, and
                their current observation is returned again. `trial` (int64, (N,)): numbers of
                the trials that begin, read where `new_trial`, or in all rows without masks.
                Without it the next number of (seed, row, count) is drawn; naming draws nothing.

        Returns:
            Observations of all rows, and empty infos.
        """
        self._check_open("reset")
        where = f"{type(self).__name__}.reset"
        everything = seed is not None or not self._started
        checked = None if seed is None else check_seed(where, seed)
        request = check_reset_options(where, options, num_envs=self.num_envs, everything=everything)
        super().reset(seed=checked)
        if checked is not None:
            self._seed = checked
            self._drawn[:] = 0
        self._apply(request)
        self._started = True
        return self.observe(), {}

    def step(
        self, actions: Any
    ) -> tuple[
        Observation, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Act in all rows; rows whose episode ends are already in the next one afterwards.

        Args:
            actions: (N,) for discrete actions, (N, A) for vectors.

        Returns:
            Observations, rewards (float32), terminations, truncations (bool), infos. The
            observation of a row whose episode ended is the first of its next episode; the last
            one of the old episode is `infos["final_obs"][row]`.
        """
        reward_N, terminated_N, truncated_N = self.transition(actions)
        observation = self.observe()
        ended_N = terminated_N | truncated_N
        if not ended_N.any():
            return observation, reward_N, terminated_N, truncated_N, {}
        rows = np.flatnonzero(ended_N)
        infos = self._final_infos(rows, observation)
        self._begin(rows, self._episode[rows] + 1)
        self.observe_rows(rows, observation)
        return observation, reward_N, terminated_N, truncated_N, infos

    def transition(
        self, actions: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Act without autoreset: the part of `step` that single environments share.

        Returns:
            Rewards, terminations, truncations. A row is never both.
        """
        where = f"{type(self).__name__}.step"
        self._check_running("step")
        actions = check_actions(where, actions, self.single_action_space, self.num_envs)
        reward_N, terminated_N, truncated_N = self.advance(actions)
        self._elapsed += 1
        self._return += reward_N
        truncated_N = (truncated_N | (self._elapsed >= self.max_episode_steps)) & ~terminated_N
        return reward_N, terminated_N, truncated_N

    def observe(self) -> Observation:
        """Return the current observation of all rows, as the last `reset` or `step` did.

        After `load_state_dict` this is what the restored rows see.
        """
        if self._buffers:
            self._buffers.reverse()
        observation = self._buffers[0] if self._buffers else self._empty()
        self.observe_rows(None, observation)
        return observation

    def episode_records(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return what is recorded of the current episodes of these rows, one entry a row each.

        Integers are int64, other numbers float64, truth values bool.
        """
        record = {
            "trial": self._trial[rows],
            "episode": self._episode[rows],
            "length": self._elapsed[rows],
            "return": self._return[rows],
            **self.record_rows(rows),
        }
        kinds = {"i": np.int64, "u": np.int64, "f": np.float64}
        return {k: v.astype(kinds.get(v.dtype.kind, v.dtype)) for k, v in record.items()}

    def shared_trials(self, other: TrialVectorEnv, trials: Sequence[int]) -> list[int]:
        """Return which of these trials have a task that trials of another environment have, too.

        Here: all, if both have the same dataset. An environment whose datasets overlap says more.
        """
        return list(trials) if self.dataset_name == other.dataset_name else []

    def expert_actions(self) -> NDArray[Any]:
        """Return the action that an expert, who knows each row's task, would take now.

        Raises:
            NotImplementedError: This environment has no expert.
        """
        self._check_running("expert_actions")
        return self.ask_expert()

    def _apply(self, request: ResetRequest) -> None:
        """Move the rows of a checked reset request."""
        rows = np.flatnonzero(request.new_trial_N)
        if len(rows):
            if request.trial_N is not None:
                trials = request.trial_N[rows]
            else:
                trials = draw_trials(
                    self._seed,
                    rows + self.first_row,
                    count_N=self._drawn[rows],
                    num_trials=self.num_trials,
                )
                self._drawn[rows] += 1
            self._trial[rows] = trials
            self.begin_trials(rows, trials)
            self._begin(rows, np.zeros_like(rows))
        rows = np.flatnonzero(request.new_episode_N)
        if len(rows):
            self._begin(rows, self._episode[rows] + 1)

    def _begin(self, rows: Rows, episodes: Rows) -> None:
        """Begin these episodes in these rows."""
        self._episode[rows] = episodes
        self._elapsed[rows] = 0
        self._return[rows] = 0.0
        self.begin_episodes(rows)

    def _final_infos(self, rows: Rows, observation: Observation) -> dict[str, Any]:
        """Return the infos of a step in which the episodes of `rows` ended."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        for row in rows:
            final_obs[row] = self.unbatch(observation, row)
        return final_infos(rows, final_obs, self.episode_records(rows))

    def unbatch(self, observation: Observation, row: int) -> Observation:
        """Return a copy of what one row sees, as an element of the single observation space."""
        row_of = {name: value[row, ...].copy() for name, value in observation.items()}
        for name, space in self._single_spaces.items():
            if isinstance(space, spaces.Discrete):
                row_of[name] = row_of[name][()]
        return row_of

    def _empty(self) -> Observation:
        """Return unset observation arrays for all rows."""
        return {
            name: np.empty(space.shape or (), dtype=space.dtype)
            for name, space in self._spaces.items()
        }
