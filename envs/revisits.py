"""Revisits: many dark rooms in one trial, each shown once and entered again later, some much later.

Every episode is spent in a room, which has a name. When a room is entered for the first time, its
goal is shown; when it is entered for the second time, in the dark, it is not. So what was seen
under a room's name has to be kept until then. The episodes in between are drawn log-uniformly:
as many rooms come back after 8 to 16 episodes as after 1,024 to 2,048. How far back an agent
remembers is its success by `seen_ago`.

Moves, rewards and the start in the corner are Darkroom's. Which rooms there are and when they are
entered depends on the trial's number alone.

Shapes: N rows, K some of the rows, B digits of a name.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, Final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.core.draws import keyed_generator
from envs.core.options import refuse_fixed
from envs.core.single import SingleTrialEnv
from envs.core.validation import check_count, unknown_name
from envs.core.vector import Observation, Rows, State, TrialVectorEnv
from envs.darkroom import MOVES, GridVectorEnv

REVISITS_VERSION: Final = 1
"""Part of the dataset's name; any change to rooms, splits or dynamics raises it."""
SPLITS: Final = ("train", "val", "test")
NUM_TRIALS: Final = 2**20
"""Trials of each split; the splits have no trial in common."""
NAME_DIGITS: Final = 32
"""Digits of a room's name, each 1 or -1."""
NEVER: Final = -1
"""Of `seen_ago`: the goal is shown now for the first time."""


class Visits:
    """Which room each episode of a trial is spent in.

    A room that is due is entered again; where none is, a new room is shown, and it is drawn after
    how many episodes that one is due. Rooms that are due in the same episode follow each other.
    """

    def __init__(self, generator: np.random.Generator, num_cells: int, longest: int):
        self._generator, self._num_cells, self._longest = generator, num_cells, longest
        self._due: list[tuple[int, int]] = []
        self.room_of: list[int] = []
        """Of each episode."""
        self.shown_in: list[int] = []
        """Of each room, the episode in which it is shown."""
        self.goal_of: list[int] = []
        """Of each room, the cell, which is not the corner."""
        self.name_of: list[int] = []
        """Of each room, its digits as bits."""

    def at(self, episode: int) -> int:
        """Return the room of an episode."""
        while len(self.room_of) <= episode:
            self.room_of.append(self._next(len(self.room_of)))
        return self.room_of[episode]

    def _next(self, episode: int) -> int:
        if self._due and self._due[0][0] <= episode:
            return heappop(self._due)[1]
        room = len(self.shown_in)
        self.shown_in.append(episode)
        self.goal_of.append(int(self._generator.integers(1, self._num_cells)))
        self.name_of.append(int(self._generator.integers(2**NAME_DIGITS)))
        # Its logarithm is uniform: from k to 2k - 1 as often for every k.
        lag = int((self._longest + 1) ** self._generator.random())
        heappush(self._due, (episode + lag, room))
        return room


class RevisitsVectorEnv(GridVectorEnv):
    """N rows of rooms in one array program.

    Beyond `position` and `prev_reward`, the observation has the room's `name`, and `clue`: x and y
    of the goal as the position is scaled, and 1, where the room is shown; zeros in the dark.
    Records add to Darkroom's `success` and distances `goal`, the room's number in the trial, and
    `seen_ago`: steps from the last one at which the goal was shown to the episode's first, or -1
    where it is shown now.
    """

    fixed_goal = False

    def __init__(
        self,
        num_envs: int = 1,
        *,
        split: str = "train",
        size: int = 5,
        horizon: int = 8,
        longest: int = 8192,
        **kwargs: Any,
    ) -> None:
        """Set up N rows.

        Args:
            num_envs: N.
            split: `train`, `val` or `test`.
            size: cells along a side of each room.
            horizon: steps of an episode, enough to walk to the farthest cell.
            longest: episodes after which a room is entered again at the latest, up to those that
                wait for the same episode.
            kwargs: `seed`, `first_row`, `copy` of `TrialVectorEnv`.

        Raises:
            ValueError: If an option is none of those that it can be.
        """
        refuse_fixed(RevisitsVectorEnv, TrialVectorEnv, kwargs)
        if split not in SPLITS:
            raise unknown_name("revisits.split", "the split", split, SPLITS)
        check_count("revisits", "size", size, least=2)
        check_count("revisits", "horizon", horizon, least=2 * (size - 1))
        check_count("revisits", "longest", longest, least=1)
        self.split, self.longest = split, longest
        name = f"relic-revisits-v{REVISITS_VERSION}/{size}x{size}/{longest}/{split}"
        shown = {
            "name": spaces.Box(-1.0, 1.0, (NAME_DIGITS,), np.float32),
            "clue": spaces.Box(-1.0, 1.0, (3,), np.float32),
        }
        super().__init__(num_envs, size, horizon, shown, name, NUM_TRIALS, **kwargs)
        self._visits: list[Visits | None] = [None] * self.num_envs
        self._room_N, self._name_N, self._ago_N = np.zeros((3, self.num_envs), np.int64)

    def begin_trials(self, rows: Rows, trials: Rows) -> None:
        """Forget the rooms, whose names and goals follow from the trial's number."""
        for row, trial in zip(rows.tolist(), (trials % NUM_TRIALS).tolist(), strict=True):
            generator = keyed_generator(self.dataset_name, trial)
            self._visits[row] = Visits(generator, self.size**2, self.longest)

    def begin_episodes(self, rows: Rows) -> None:
        """Enter the rooms that follow."""
        super().begin_episodes(rows)
        self._enter(rows)

    def load_rows(self, state: State) -> None:
        """Take over a saved state; rooms follow from trial and episode."""
        super().load_rows(state)
        self._enter(np.arange(self.num_envs))

    def _enter(self, rows: Rows) -> None:
        goal_K = np.zeros(len(rows), np.int64)
        for k, (row, episode) in enumerate(zip(rows.tolist(), self.episode[rows], strict=True)):
            visits = self._visits[row]
            assert visits is not None
            room = visits.at(int(episode))
            since = int(episode) - visits.shown_in[room]
            goal_K[k] = visits.goal_of[room]
            self._room_N[row], self._name_N[row] = room, visits.name_of[room]
            self._ago_N[row] = (since - 1) * self.max_episode_steps + 1 if since else NEVER
        self.set_goals(rows, goal_K)

    def observe_rows(self, rows: Rows | None, out: Observation) -> None:
        """Show cell and reward, the room's name and, the first time, its goal."""
        super().observe_rows(rows, out)
        chosen = slice(None) if rows is None else rows
        digit_KB = self._name_N[chosen, None] >> np.arange(NAME_DIGITS) & 1
        out["name"][chosen] = 2.0 * digit_KB - 1.0
        lit_K1 = self._ago_N[chosen, None] == NEVER
        goal_K2 = self.scaled(self._goal_N2[chosen])
        out["clue"][chosen] = np.where(lit_K1, np.concatenate([goal_K2, lit_K1], axis=1), 0.0)

    def record_rows(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Add which room it was, and how long ago its goal was shown."""
        return {
            **super().record_rows(rows),
            "goal": self._room_N[rows],
            "seen_ago": self._ago_N[rows],
        }

    def ask_memory_expert(self, kind: str) -> NDArray[np.int64]:
        """Walk to a goal that was shown. One that is not known is searched for, row by row.

        No search finds it more often: each of its steps ends on a cell that is new.
        """
        known_N = (self._ago_N == NEVER) | self._found_N | (kind == "memory")
        return np.where(known_N, self.ask_expert(), self._sweep())

    def _sweep(self) -> NDArray[np.int64]:
        """Walk through all cells: along x, one up, back along x, one up, and so on."""
        x_N, y_N = self._cell_N2.T
        forth_N = y_N % 2 == 0
        at_end_N = np.where(forth_N, x_N == self.size - 1, x_N == 0)
        return np.where(at_end_N, UP, np.where(forth_N, FORTH, BACK))


FORTH, BACK, UP = (MOVES.tolist().index(move) for move in ([1, 0], [-1, 0], [0, 1]))


class RevisitsEnv(SingleTrialEnv):
    """One row of rooms as a plain Gymnasium environment."""

    def __init__(self, **kwargs: Any) -> None:
        """Set up a row; the arguments are those of `RevisitsVectorEnv` but `num_envs`."""
        super().__init__(RevisitsVectorEnv(1, **kwargs))
