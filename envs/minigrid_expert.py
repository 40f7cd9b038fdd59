"""Experts of MiniGrid's levels: they walk the shortest way to what is asked for.

One knows the whole level. The other knows what was in view, and walks to where something unknown
begins as long as what is asked for is not among it.

Shapes: W, H width and height of a level; V side of a view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from minigrid.core.constants import OBJECT_TO_IDX  # pyright: ignore[reportMissingImports]
from numba import njit
from numpy.typing import NDArray

LEFT, RIGHT, FORWARD = 0, 1, 2
"""MiniGrid's actions."""
AHEAD = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""A step in each of MiniGrid's directions: right, down, left, up."""
NEVER = -1
_UNSEEN = OBJECT_TO_IDX["unseen"]
_GOAL = OBJECT_TO_IDX["goal"]
_PASSABLE = (OBJECT_TO_IDX["empty"], OBJECT_TO_IDX["floor"], _GOAL)

Pose = tuple[int, int, int]
"""Column, row and direction."""


@dataclass(frozen=True)
class Wanted:
    """What an episode asks for."""

    kind: int
    """The number of the kind of thing."""
    color: int | None = None
    """The number of its colour; None: any."""

    def among(self, cells_WH2: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which cells hold it, (W, H)."""
        of_kind_WH = cells_WH2[..., 0] == self.kind
        return of_kind_WH if self.color is None else of_kind_WH & (cells_WH2[..., 1] == self.color)


class Seen:
    """What was in view of a level when somebody acted, and when that was.

    Args:
        width: W.
        height: H.
        view: V.
    """

    def __init__(self, width: int, height: int, view: int) -> None:
        self.cells_WH2 = np.zeros((width, height, 2), np.int64)
        """Kind and colour of what a cell held when it was last in view."""
        self.seen_at_WH = np.full((width, height), NEVER)
        """Number of the observation that showed it last."""
        self.now = NEVER
        """Number of the newest observation."""
        self.episode_from = 0
        """Number of the episode's first observation."""
        self.ago = NEVER
        """How many observations before it what is asked for was last in view."""
        across, back = np.arange(view) - view // 2, view - 1 - np.arange(view)
        # A view's second axis runs from far to near; the agent stands in the middle of its end.
        self._offset_VV2 = [
            across[:, None, None] * np.array([-dy, dx]) + back[None, :, None] * np.array([dx, dy])
            for dx, dy in AHEAD
        ]

    def begin_episode(self, wanted: Wanted, *, of_new_trial: bool) -> None:
        """Go on from the episode before; in a new trial, forget all."""
        if of_new_trial:
            self.seen_at_WH[:] = self.now = NEVER
        self.episode_from = self.now + 1
        last = int(np.where(wanted.among(self.cells_WH2), self.seen_at_WH, NEVER).max())
        self.ago = NEVER if last == NEVER else self.episode_from - last

    def note(self, image_VV3: NDArray[np.uint8], pose: Pose) -> None:
        """Note what an observation shows from a pose."""
        self.now += 1
        x, y, direction = pose
        below = self.cells_WH2[x, y].copy() if self.seen_at_WH[x, y] != NEVER else None
        at_VV2 = self._offset_VV2[direction] + np.array([x, y])
        inside_VV = ((at_VV2 >= 0) & (at_VV2 < self.seen_at_WH.shape)).all(-1)
        shown_VV = inside_VV & (image_VV3[..., 0] != _UNSEEN)
        column, row = at_VV2[shown_VV].T
        self.cells_WH2[column, row] = image_VV3[shown_VV, :2]
        self.seen_at_WH[column, row] = self.now
        if below is not None:
            # A view shows what the agent carries in place of what it stands on.
            self.cells_WH2[x, y] = below

    def known_WH(self, kind: str) -> NDArray[np.bool_]:
        """Return the cells that an expert of a kind knows, (W, H)."""
        return self.seen_at_WH >= (self.episode_from if kind == "episode" else 0)

    def state_dict(self) -> dict[str, NDArray[np.int64]]:
        """Return all that it knows."""
        numbers = np.array([self.now, self.episode_from, self.ago])
        return {"cells": self.cells_WH2.copy(), "seen_at": self.seen_at_WH.copy(), "when": numbers}

    def load_state_dict(self, state: Mapping[str, NDArray[np.int64]]) -> None:
        """Know what another one knew."""
        self.cells_WH2[:], self.seen_at_WH[:] = state["cells"], state["seen_at"]
        self.now, self.episode_from, self.ago = state["when"].tolist()


def way_to(
    wanted: Wanted, cells_WH2: NDArray[np.int64], known_WH: NDArray[np.bool_], pose: Pose
) -> int | None:
    """Return the first action of a shortest way to what is asked for, or else to what is unknown.

    Args:
        wanted: What is asked for. A goal is walked onto; anything else is to be faced.
        cells_WH2: Kind and colour of what cells hold.
        known_WH: Which of them are known. Only those that are known to be free are walked on.
        pose: Where the agent is.

    Returns:
        The action; None if there is no way to either.
    """
    free_WH = known_WH & np.isin(cells_WH2[..., 0], _PASSABLE)
    found_WH = known_WH & wanted.among(cells_WH2)
    for aim_WH, on in ((found_WH, wanted.kind == _GOAL), (~known_WH, False)):
        action = _first_action(free_WH, aim_WH, on, *pose)
        if action >= 0:
            return action
    return None


@njit(cache=True)
def _first_action(
    free_WH: NDArray[np.bool_], aim_WH: NDArray[np.bool_], on: bool, x: int, y: int, direction: int
) -> int:
    """Return the first action of a shortest way to another pose, or else -1.

    One that is on an aim, or else one that has an aim right ahead.
    """
    width, height = free_WH.shape
    # Breadth first. A pose is a number: (x * height + y) * 4 + direction.
    first = np.full(width * height * 4, -1, np.int8)
    waiting = np.empty(width * height * 4, np.int32)
    start = (x * height + y) * 4 + direction
    first[start], waiting[0] = LEFT, start
    begin, end = 0, 1
    while begin < end:
        here = waiting[begin]
        begin += 1
        d, cell = here % 4, here // 4
        dx, dy = AHEAD[d]
        for action in (FORWARD, LEFT, RIGHT):
            if action == FORWARD:
                column, row = cell // height + dx, cell % height + dy
                if not free_WH[column, row]:
                    continue
                then = (column * height + row) * 4 + d
            else:
                then = cell * 4 + (d + (1 if action == RIGHT else 3)) % 4
            if first[then] >= 0:
                continue
            first[then] = action if here == start else first[here]
            column, row, ahead = then // 4 // height, then // 4 % height, AHEAD[then % 4]
            if aim_WH[column, row] if on else aim_WH[column + ahead[0], row + ahead[1]]:
                return int(first[then])
            waiting[end] = then
            end += 1
    return -1
