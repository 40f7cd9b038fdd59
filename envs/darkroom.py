"""Darkroom: find a hidden cell, again and again; a trial is one hiding place.

The agent starts every episode at cell (0, 0) of a square grid and is never told where the goal
is; it sees its own cell and the last reward. Each step that ends on the goal pays 1. Episodes
have a fixed length. Goals are split 80 / 20 by a frozen shuffle, so that a policy is tested on
hiding places that it never met (Laskin et al., 2022; the split of the paper's experiment).

Shapes: N rows, G goals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.core.options import refuse_fixed
from envs.core.single import SingleTrialEnv
from envs.core.validation import check_count, unknown_name
from envs.core.vector import Observation, Rows, Transition, TrialVectorEnv

DARKROOM_VERSION: Final = 1
"""Part of the dataset's name; any change to goals, splits or dynamics raises it."""

MOVES: Final = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.int64)
"""Step in x and y by action: stay, +x, -x, +y, -y."""

SPLITS: Final = ("train", "val", "test", "train_all")


def goal_cells(split: str, size: int = 10) -> NDArray[np.int64]:
    """Return the goals of a split as cells x * size + y, in trial order.

    All cells are shuffled by `numpy.random.RandomState(0)`, whose stream is frozen by NumPy's
    compatibility policy. The last fifth is `test`. Of the rest, `val` is the last eighth, for
    choosing checkpoints, `train` what remains, and `train_all` both. At size 10: 70, 10, 20 and
    80 goals.

    Raises:
        ValueError: Unknown split, or a size that leaves a split empty.
        TypeError: The size is not an integer.
    """
    if split not in SPLITS:
        raise unknown_name("darkroom.split", "the split", split, SPLITS)
    check_count("darkroom.goal_cells", "size", size, least=4)
    cell_G = np.random.RandomState(0).permutation(size * size).astype(np.int64)
    num_all = size * size * 4 // 5
    num_train = num_all - num_all // 8
    return {
        "train": cell_G[:num_train],
        "val": cell_G[num_train:num_all],
        "test": cell_G[num_all:],
        "train_all": cell_G[:num_all],
    }[split]


class GridVectorEnv(TrialVectorEnv):
    """N square rooms, each with a goal that a subclass sets when trials or episodes begin.

    Observation: `position`, x and y scaled to [-1, 1], and `prev_reward`, 0 at an episode's
    start. Actions: stay, +x, -x, +y, -y; walls block. A step that ends on the goal pays 1.
    """

    saved_arrays: ClassVar = {
        "cell": "_cell_N2",
        "prev_reward": "_prev_reward_N",
        "found": "_found_N",
    }

    def __init__(
        self,
        num_envs: int,
        size: int,
        horizon: int,
        shown: Mapping[str, gymnasium.Space[Any]],
        dataset_name: str,
        num_trials: int,
        **kwargs: Any,
    ) -> None:
        """Set up N rooms.

        Args:
            num_envs: N.
            size: cells along a side.
            horizon: steps of an episode.
            shown: what is observed beyond position and reward.
            dataset_name: what trial numbers mean.
            num_trials: how many there are.
            kwargs: `seed`, `first_row`, `copy` of `TrialVectorEnv`.
        """
        self.size = size
        super().__init__(
            num_envs,
            spaces.Dict(
                {
                    "position": spaces.Box(-1.0, 1.0, (2,), np.float32),
                    "prev_reward": spaces.Box(0.0, 1.0, (1,), np.float32),
                    **shown,
                }
            ),
            single_action_space=spaces.Discrete(len(MOVES)),
            dataset_name=dataset_name,
            num_trials=num_trials,
            max_episode_steps=horizon,
            fixed_horizon=True,
            time_limit_default="terminal",
            **kwargs,
        )
        self._cell_N2 = np.zeros((self.num_envs, 2), dtype=np.int64)
        self._goal_N2 = np.zeros((self.num_envs, 2), dtype=np.int64)
        self._prev_reward_N = np.zeros(self.num_envs, dtype=np.float32)
        self._found_N = np.zeros(self.num_envs, dtype=bool)

    def set_goals(self, rows: Rows, cells: Rows) -> None:
        """Put goals at cells, x * size + y."""
        self._goal_N2[rows] = np.stack([cells // self.size, cells % self.size], axis=-1)

    def begin_episodes(self, rows: Rows) -> None:
        """Go back to the corner."""
        self._cell_N2[rows] = 0
        self._prev_reward_N[rows] = 0.0
        self._found_N[rows] = False

    def advance(self, actions: NDArray[Any]) -> Transition:
        """Move; a row that is on its goal earns 1."""
        self._cell_N2 += MOVES[actions]
        np.clip(self._cell_N2, 0, self.size - 1, out=self._cell_N2)
        on_goal_N = (self._cell_N2 == self._goal_N2).all(axis=1)
        self._found_N |= on_goal_N
        self._prev_reward_N[:] = on_goal_N
        never_N = np.zeros(self.num_envs, dtype=bool)
        # Two arrays, as what is returned belongs to the caller.
        return on_goal_N.astype(np.float32), never_N, never_N.copy()

    def observe_rows(self, rows: Rows | None, out: Observation) -> None:
        """Show the cell, scaled to [-1, 1], and the last reward."""
        chosen = slice(None) if rows is None else rows
        out["position"][chosen] = self.scaled(self._cell_N2[chosen])
        out["prev_reward"][chosen, 0] = self._prev_reward_N[chosen]

    def scaled(self, cells: NDArray[np.int64]) -> NDArray[Any]:
        """Return x and y of cells as they are shown, in [-1, 1]."""
        return cells * (2.0 / (self.size - 1)) - 1.0

    def record_rows(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Say whether the goal was found, and how far off it was."""
        goal, cell = self._goal_N2[rows], self._cell_N2[rows]
        return {
            "success": self._found_N[rows],
            "goal": goal[:, 0] * self.size + goal[:, 1],
            "distance_start": goal.sum(axis=1),
            "distance_end": np.abs(goal - cell).sum(axis=1),
        }

    def ask_expert(self) -> NDArray[np.int64]:
        """Walk along x, then along y, then stay: no path is shorter."""
        to_go_N2 = self._goal_N2 - self._cell_N2
        along_x_N = np.where(to_go_N2[:, 0] > 0, 1, 2)
        along_y_N = np.where(to_go_N2[:, 1] > 0, 3, 4)
        moving_y_N = np.where(to_go_N2[:, 1] != 0, along_y_N, 0)
        return np.where(to_go_N2[:, 0] != 0, along_x_N, moving_y_N)


class DarkroomVectorEnv(GridVectorEnv):
    """N Darkrooms in one array program.

    Trial t hides goal `t % len(goals)`. Records add `success` (the goal was stepped on), `goal`
    (its cell, x * size + y) and the Manhattan distances `distance_start` and `distance_end`.
    """

    fixed_goal = True

    def __init__(
        self,
        num_envs: int = 1,
        *,
        split: str = "train",
        size: int = 10,
        horizon: int = 100,
        **kwargs: Any,
    ) -> None:
        """Set up N rooms.

        Args:
            num_envs: N.
            split: `train`, `val`, `test`, or `train_all` (train and val), see `goal_cells`.
            size: cells along a side.
            horizon: steps of an episode.
            kwargs: `seed`, `first_row`, `copy` of `TrialVectorEnv`.
        """
        refuse_fixed(DarkroomVectorEnv, TrialVectorEnv, kwargs)
        self.goals = goal_cells(split, size)
        self.split = split
        name = f"relic-darkroom-v{DARKROOM_VERSION}/{size}x{size}/{split}"
        super().__init__(num_envs, size, horizon, {}, name, len(self.goals), **kwargs)

    def shared_trials(self, other: TrialVectorEnv, trials: Sequence[int]) -> list[int]:
        """Return the trials whose hiding place another room of this size has, too."""
        if not isinstance(other, DarkroomVectorEnv) or other.size != self.size:
            return []
        known = set(other.goals.tolist())
        return [trial for trial in trials if int(self.goals[trial % len(self.goals)]) in known]

    def begin_trials(self, rows: Rows, trials: Rows) -> None:
        """Hide the goal where the number of the trial says."""
        self.set_goals(rows, self.goals[trials % len(self.goals)])


class DarkroomEnv(SingleTrialEnv):
    """One Darkroom as a plain Gymnasium environment."""

    def __init__(self, **kwargs: Any) -> None:
        """Set up a room; the arguments are those of `DarkroomVectorEnv` but `num_envs`."""
        super().__init__(DarkroomVectorEnv(1, **kwargs))
