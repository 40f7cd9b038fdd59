"""Trials in simulators that run in processes of their own, under any Python.

One worker process holds one simulator and one row (`envs.core.process_worker` says what a simulator
file looks like). A worker that crashes, raises or gives no answer in time is killed and started
again; the episode that it was in has crashed: it ends truncated, and all other rows go on as if
nothing had happened. State is saved by replay (`envs.core.replay`).

Shapes: N rows, K some of the rows.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from envs.core.answers import AnswerError, nothing_in
from envs.core.process_pool import Lost, Refused, SimulatorSpec, WorkerError, WorkerPool
from envs.core.process_worker import misfit
from envs.core.replay import ReplayVectorEnv
from envs.core.vector import Rows, Transition

_log: Final = logging.getLogger(__name__)


class ProcessVectorEnv(ReplayVectorEnv):
    """N simulators in N processes.

    Attributes:
        pool: the workers.
        lost_N: rows that have none until their next episode begins.
    """

    def __init__(
        self,
        simulator: str | Path,
        num_envs: int = 1,
        *,
        dataset_name: str,
        max_episode_steps: int,
        python: str = sys.executable,
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        start_timeout: float = 300.0,
        max_crashes: int = 5,
        **kwargs: Any,
    ) -> None:
        """Start the workers, all at the same time.

        Args:
            simulator: path of the simulator's file.
            num_envs: N.
            dataset_name: names the tasks and their version.
            max_episode_steps: time limit of an episode.
            python: interpreter that runs the workers; it needs NumPy.
            options: keyword arguments of the simulator's `make`; what JSON can say.
            environment: variables added to the workers' environment.
            timeout: seconds that a call may take before its worker counts as hung.
            start_timeout: seconds that starting a simulator may take.
            max_crashes: as of `TrialVectorEnv`; fewer by default, as each lost worker costs time.
            kwargs: `first_trial`, `num_trials` and `record` of `ReplayVectorEnv`;
                `fixed_horizon`, `time_limit_default`, `privileged`, `kinds`, `seed`, `first_row`,
                `copy` of `TrialVectorEnv`.

        Raises:
            FileNotFoundError: There is no simulator file.
            WorkerError: A simulator does not start.
        """
        spec = SimulatorSpec(
            Path(simulator), python, options or {}, environment or {}, timeout, start_timeout
        )
        # First, as the simulators tell which spaces the rows have.
        self.pool = WorkerPool(num_envs, spec)
        try:
            drawn = _observation_space(self.pool.description)
            super().__init__(
                num_envs,
                self.row_space(drawn),
                single_action_space=to_space(self.pool.description["action"]),
                dataset_name=dataset_name,
                max_episode_steps=max_episode_steps,
                max_crashes=max_crashes,
                **kwargs,
            )
            shapes = {k: (s.shape or (), s.dtype) for k, s in drawn.items()}
            self._shared = self.pool.share(shapes)
        except BaseException:
            self.pool.close()
            raise
        self.lost_N = np.zeros(self.num_envs, dtype=bool)

    def row_space(self, drawn: spaces.Dict) -> spaces.Dict:
        """Return what one row sees, given what its simulator shows. Here they are the same."""
        return drawn

    def call(self, method: str, *arguments: Any, rows: Sequence[int] | None = None) -> list[Any]:
        """Call a method of the simulators, all at the same time.

        Args:
            method: one that the simulator has beyond `begin` and `step`.
            arguments: the same for all.
            rows: whose simulators; all by default.

        Returns:
            What each returned; None for a worker that was lost, in this call or before.
        """
        rows = list(range(self.num_envs)) if rows is None else list(rows)
        answers = self.call_rows(np.array(rows), method, [arguments] * len(rows), show=False)
        return [None if isinstance(answer, Lost) else answer for answer in answers]

    def call_rows(
        self, rows: Rows, method: str, arguments: Sequence[Sequence[Any]], *, show: bool
    ) -> list[Any]:
        """Call simulators, take note of workers that are lost, and of what the others show."""
        answers: list[Any] = [Lost("was lost before")] * len(rows)
        alive = np.flatnonzero(~self.lost_N[rows]).tolist()
        called = [int(rows[k]) for k in alive]
        got = self.pool.call(called, method, [arguments[k] for k in alive], show=show)
        for k, row, answer in zip(alive, called, got, strict=True):
            answers[k] = answer
            if isinstance(answer, Refused):
                raise AnswerError(f"{self.told(row)}: {answer.reason}. Correct the simulator.")
            if isinstance(answer, Lost):
                self._lose(row, method, answer)
            elif show:
                self.show(row, {name: array[row] for name, array in self._shared.items()})
        return answers

    def _lose(self, row: int, method: str, lost: Lost) -> None:
        """Take note of a lost worker; stop if that happens all the time."""
        self.lost_N[row] = True
        self.crashes.count(row)
        told = self.told(row)
        _log.warning("simulator of %s lost in %s: it %s", told, method, lost.reason)
        if self.crashes.in_a_row_N[row] > self.crashes.most:
            raise WorkerError(
                f"ProcessVectorEnv: a worker must not be lost more than max_crashes="
                f"{self.crashes.most} times in a row, but the simulator of {told} {lost.brief}. "
                "Correct the simulator, or raise max_crashes."
            )

    def begin_rows(self, rows: Rows) -> None:
        """Begin episodes; a worker that is lost on the way is started again, and tries again."""
        waiting = rows
        # Ends, as `_lose` raises once a row has been lost too often.
        while len(waiting):
            self.restart_lost(waiting)
            arguments = [(self.task(row), int(self.episode[row])) for row in waiting]
            answers = self.call_rows(waiting, "begin", arguments, show=True)
            waiting = waiting[[isinstance(answer, Lost) for answer in answers]]

    def restart_lost(self, rows: Rows) -> Rows:
        """Start the workers that are lost, of those of some rows, again; return their rows."""
        lost = rows[self.lost_N[rows]]
        if len(lost):
            self.pool.restart([int(row) for row in lost])
            self.lost_N[lost] = False
            self.crashes.crashed_N[lost] = False
        return lost

    def step_rows(self, rows: Rows, actions: NDArray[Any]) -> Transition:
        """Act; an episode whose worker is lost is truncated."""
        reward_K = np.zeros(len(rows), dtype=np.float32)
        terminated_K, truncated_K = (np.zeros(len(rows), dtype=bool) for _ in range(2))
        answers = self.call_rows(
            rows, "step", [(action,) for action in actions.tolist()], show=True
        )
        for k, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            if isinstance(answer, Lost):
                # An older info must not get into the record of the lost episode.
                truncated_K[k], self.last_info[row] = True, {}
            else:
                reward_K[k], terminated_K[k], truncated_K[k] = self.take(row, answer)
        return reward_K, terminated_K, truncated_K

    def ask_expert(self) -> ArrayLike:
        """Ask the simulators; a row without a worker does nothing."""
        if "expert_action" not in self.pool.description["methods"]:
            return super().ask_expert()
        nothing = nothing_in(self.single_action_space)
        answers = self.call("expert_action")
        return [nothing if answer is None else answer for answer in answers]

    def close_extras(self, **kwargs: Any) -> None:
        """End the workers."""
        if hasattr(self, "pool"):  # else they did not start
            self.pool.close()


def _observation_space(description: Mapping[str, Any]) -> spaces.Dict:
    """Return the observation space of a simulator."""
    return spaces.Dict({k: to_space(v) for k, v in description["observation"].items()})


def to_space(description: Mapping[str, Any]) -> gymnasium.Space[Any]:
    """Return the Gymnasium space that a simulator file describes.

    Args:
        description: `{"n": 6}` for one choice, `{"n": [3, 3]}` for several, or `shape`, `dtype`,
            `low` and `high` of a Box.

    Raises:
        ValueError: It is neither, or a bound does not fit into the dtype.
    """
    if set(description) == {"n"}:
        count = np.asarray(description["n"])
        if count.dtype.kind not in "iu" or count.ndim > 1 or not count.size or count.min() < 1:
            raise ValueError(
                "ProcessVectorEnv: n of a space of the simulator must be a whole number of at "
                f"least 1, or a list of such, got {description['n']!r}. Correct "
                "observation_space or action_space in its file."
            )
        return spaces.MultiDiscrete(count) if count.ndim else spaces.Discrete(int(count))
    if set(description) == {"shape", "dtype", "low", "high"}:
        low, high = (np.asarray(description[name]) for name in ("low", "high"))
        shape = tuple(description["shape"])
        dtype = np.dtype(description["dtype"])
        for name, bound in (("low", low), ("high", high)):
            fault = misfit(bound, bound.shape, dtype)
            if fault:
                raise ValueError(
                    f"ProcessVectorEnv: {name} of a space of the simulator {fault}. Correct "
                    "observation_space or action_space in its file."
                )
        return spaces.Box(
            np.broadcast_to(low, shape).astype(dtype),
            np.broadcast_to(high, shape).astype(dtype),
            shape,
            dtype.type,
        )
    raise ValueError(
        "ProcessVectorEnv: a space of the simulator must have the keys n, or shape, dtype, low and "
        f"high, got {sorted(description)}. Correct observation_space or action_space in its file."
    )
