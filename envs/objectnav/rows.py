"""The task's state of N rows: histories of trials, running episodes, rewards, records.

Each row has its trial's history and the running episode: the goal, the distance at its start, its
length, and whether it succeeded. A simulator moves the agents. From what it says, this file makes
rewards, observations that are no pictures, records and saved states.

Shapes: N rows, K some of the rows.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from envs.core.vector import Observation, Rows, State
from envs.objectnav import rules
from envs.objectnav.config import ObjectNavConfig, Outcome
from envs.objectnav.rules import EpisodePlan, Pose, TrialHistory

_SAVED: Final = {
    "category": "category_N",
    "distance_start": "_distance_start_N",
    "length": "_length_N",
    "stopped": "_stopped_N",
    "success": "_success_N",
    "prev_reward": "_prev_reward_N",
    "outcome": "_outcome_N",
}
"""Arrays of `TaskRows` by name in states; the origins come from the histories."""


def check_same_task(where: str, config: ObjectNavConfig, state: State) -> None:
    """Refuse a state that was saved under other rules.

    Args:
        where: the environment's name.
        config: its rules.
        state: of the environment's rows; says as `repr` what its own rules were.

    Raises:
        ValueError: They differ.
    """
    saved = state.get("task")
    if saved != task_text(config):
        raise ValueError(
            f"{where}.load_state_dict: task of the state must be {config!r}, got {saved}. Build "
            "the environment that the state was saved from."
        )


def task_text(config: ObjectNavConfig) -> str:
    """Return the rules as states name them."""
    # States that were saved before there was such a rule name none.
    return repr(config).replace(", closed_progress=False", "")


class TaskRows:
    """Histories and running episodes of N rows. Methods that name rows change only those."""

    def __init__(self, config: ObjectNavConfig, num_rows: int, num_categories: int) -> None:
        """Allocate rows that wait for trials."""
        self._config = config
        self._num_categories = num_categories
        self.history = [TrialHistory(num_categories) for _ in range(num_rows)]
        self.category_N = np.zeros(num_rows, np.int64)
        self._origin_N3 = np.zeros((num_rows, 3))
        self._distance_start_N = np.zeros(num_rows)
        self._length_N = np.zeros(num_rows, np.int64)
        self._stopped_N = np.zeros(num_rows, bool)
        self._success_N = np.zeros(num_rows, bool)
        self._prev_reward_N = np.zeros(num_rows, np.float32)
        self._outcome_N = np.zeros(num_rows, np.int64)

    def begin_trial(self, row: int) -> None:
        """Forget a row's history."""
        self.history[row] = TrialHistory(self._num_categories)
        self._outcome_N[row] = Outcome.NONE

    def close_episode(self, row: int, pose: Pose) -> None:
        """Tell the history where a row's episode ended, and how; nothing if it has had none."""
        history, length = self.history[row], int(self._length_N[row])
        if history.episodes == 0:
            return
        history.last_end = pose
        self._outcome_N[row] = self._outcome(row)
        if self._outcome_N[row] != Outcome.NONE:
            success = bool(self._success_N[row])
            history.end(int(self.category_N[row]), success=success, steps=length)

    def _outcome(self, row: int) -> Outcome:
        """Return how a row's episode ended; none if a reset cut it short."""
        if self._stopped_N[row]:
            return Outcome.FOUND if self._success_N[row] else Outcome.NOT_FOUND
        out_of_time = self._length_N[row] >= self._config.max_episode_steps
        return Outcome.OUT_OF_TIME if out_of_time else Outcome.NONE

    def begin_episode(self, row: int, plan: EpisodePlan) -> None:
        """Begin an episode in a row."""
        history = self.history[row]
        history.begin(plan, self._config)
        self.category_N[row] = plan.goal.category
        self._origin_N3[row] = history.origin[:3]
        self._distance_start_N[row] = plan.distance
        self._length_N[row] = 0
        self._stopped_N[row] = self._success_N[row] = False
        self._prev_reward_N[row] = 0.0

    def act(
        self,
        rows: Rows,
        *,
        stopped_K: NDArray[np.bool_],
        success_K: NDArray[np.bool_],
        before_K: NDArray[np.float64],
        after_K: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Take note of a step of some rows; return its rewards.

        Args:
            rows: which.
            stopped_K: whether the agent stopped.
            success_K: whether that found the goal.
            before_K: distance to the goal before the step.
            after_K: the same after it.
        """
        self._stopped_N[rows] = stopped_K
        self._success_N[rows] = success_K
        self._length_N[rows] += 1
        reward_K = rules.reward(self._config, before_K, after_K, success_K)
        if self._config.closed_progress:
            ended_K = stopped_K | (self._length_N[rows] >= self._config.max_episode_steps)
            start_K = self._distance_start_N[rows]
            reward_K -= np.where(
                ended_K & ~success_K, rules.progress(self._config, start_K, after_K), 0.0
            )
        reward = reward_K.astype(np.float32)
        self._prev_reward_N[rows] = reward
        return reward

    def observe(self, rows: Rows | None, pose_N4: NDArray[np.float64], out: Observation) -> None:
        """Write what no picture shows into `out[name][rows]` (None: all rows).

        Args:
            rows: which.
            pose_N4: x, y, heading and whatever else, of all rows.
            out: `gps`, `goal` and perhaps `compass`, `prev_reward` and `outcome`.
        """
        chosen = slice(None) if rows is None else rows
        x_K, y_K = pose_N4[chosen, :2].T
        origin_K3 = self._origin_N3[chosen]
        out["gps"][chosen] = rules.gps(x_K, y_K, tuple(origin_K3.T))
        out["goal"][chosen] = self.category_N[chosen]
        if "compass" in out:
            out["compass"][chosen, 0] = self.turned(rows, pose_N4)
        if "prev_reward" in out:
            out["prev_reward"][chosen, 0] = self._prev_reward_N[chosen]
        if "outcome" in out:
            # An episode's last observation is still of it: the next one's first tells.
            starts_K = self._length_N[chosen] == 0
            out["outcome"][chosen] = np.where(starts_K, self._outcome_N[chosen], Outcome.NONE)

    def turned(self, rows: Rows | None, pose_N4: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the headings of some rows (None: all) in the frames of their trials, (K,)."""
        chosen = slice(None) if rows is None else rows
        return rules.compass(pose_N4[chosen, 2], self._origin_N3[chosen, 2])[:, 0]

    def record(
        self, rows: Rows, distance_N: NDArray[np.float64], path_N: NDArray[np.float64]
    ) -> dict[str, NDArray[Any]]:
        """Return the scores of the episodes of some rows.

        Args:
            rows: which.
            distance_N: distance to the goal now, of all rows.
            path_N: metres walked in the episode, of all rows.
        """
        start_K, end_K = self._distance_start_N[rows], distance_N[rows]
        success_K, path_K = self._success_N[rows], path_N[rows]
        return {
            "success": success_K,
            "spl": rules.spl(success_K, start_K, path_K),
            "soft_spl": rules.soft_spl(end_K, start_K, path_K),
            "goal": self.category_N[rows],
            "distance_start": start_K,
            "distance_end": end_K,
        }

    def state(self) -> State:
        """Return copies of everything."""
        histories = {str(n): h.state_dict() for n, h in enumerate(self.history)}
        arrays = {key: getattr(self, name).copy() for key, name in _SAVED.items()}
        return {**arrays, "history": histories}

    def load_outcomes(self, outcome_N: Any) -> None:
        """Take over how the episodes before the running ones ended."""
        self._outcome_N[:] = outcome_N

    def load_state(self, state: State) -> None:
        """Take over what `state` returned."""
        for key, name in _SAVED.items():
            # States that were saved before there were outcomes have none.
            getattr(self, name)[:] = state.get(key, 0) if key == "outcome" else state[key]
        for row in range(len(self.history)):
            self.history[row] = TrialHistory.from_state(state["history"][str(row)])
            self._origin_N3[row] = self.history[row].origin[:3]
