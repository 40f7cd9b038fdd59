"""FourBoxes, a visual counterpart of Darkroom: one of four coloured boxes pays.

One room with a box in each corner. Which box pays is fixed in a trial and never shown; each step
that ends beside it pays 1. Episodes have a fixed length. After the Miniworld task of the
decision-pretrained transformer (Lee et al., 2023, arXiv 2306.14892), whose sizes are not
published: those here give about the same best return (42 in 50 steps). Splits share no
arrangement of the colours.

The room is a scene for the houses' renderer, of which only the colours are used.

Shapes: N rows, K some of the rows or positions, H and W picture height and width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.core.draws import keyed_generator
from envs.core.options import refuse_fixed
from envs.core.single import SingleTrialEnv
from envs.core.validation import check_count, unknown_name
from envs.core.vector import Observation, Rows, Transition, TrialVectorEnv
from envs.houses.rendering.renderer import BatchRenderer
from envs.houses.scene import (
    FURNITURE_SEMANTIC,
    House,
    Kind,
    Materials,
    Primitives,
    Room,
    Scene,
    Semantic,
)

COLORS: Final = ("red", "green", "blue", "yellow")

_RGB: Final = ((0.8, 0.1, 0.1), (0.1, 0.6, 0.15), (0.12, 0.2, 0.8), (0.9, 0.8, 0.1))
_WALL, _FLOOR, _CEILING = range(len(COLORS), len(COLORS) + 3)
_SURFACES: Final = ((0.7, 0.68, 0.64), (0.38, 0.33, 0.3), (0.9, 0.9, 0.9))

SIDE: Final = 5.0
"""Length of the room's walls in metres."""
BOX_HALF: Final = 0.4
BOX_HEIGHT: Final = 1.0
RADIUS: Final = 0.25
"""Of the agent."""
CORNERS: Final = np.array(
    [
        [BOX_HALF, BOX_HALF],
        [SIDE - BOX_HALF, BOX_HALF],
        [SIDE - BOX_HALF, SIDE - BOX_HALF],
        [BOX_HALF, SIDE - BOX_HALF],
    ]
)
CENTER: Final = np.array([SIDE / 2, SIDE / 2])


def arrangement_colors(arrangement: int) -> tuple[int, ...]:
    """Return the colour, as an index into `COLORS`, of the box in each corner."""
    return list(itertools.permutations(range(4)))[arrangement]


# 24 arrangements of four colours: all of them fit.
@lru_cache(maxsize=24)
def scene(arrangement: int) -> Scene:
    """Return the room with its boxes, for the renderer. Cached: rows share scenes."""
    height, thickness = 2.5, 0.1
    half, middle = thickness / 2, SIDE / 2
    solids = [
        ((middle, -half, height / 2), (middle + thickness, half, height / 2), _WALL),
        ((middle, SIDE + half, height / 2), (middle + thickness, half, height / 2), _WALL),
        ((-half, middle, height / 2), (half, middle, height / 2), _WALL),
        ((SIDE + half, middle, height / 2), (half, middle, height / 2), _WALL),
    ]
    for (x, y), color in zip(CORNERS.tolist(), arrangement_colors(arrangement), strict=True):
        solids.append(((x, y, BOX_HEIGHT / 2), (BOX_HALF, BOX_HALF, BOX_HEIGHT / 2), color))
    materials = Materials(
        rgb_M3=np.array(_RGB + _SURFACES, dtype=np.float32),
        tile_M=np.zeros(len(_RGB) + len(_SURFACES), dtype=np.int16),
        repeat_M=np.ones(len(_RGB) + len(_SURFACES), dtype=np.float32),
    )
    primitives = Primitives(
        center_P3=np.array([center for center, _, _ in solids], dtype=np.float32),
        half_P3=np.array([extent for _, extent, _ in solids], dtype=np.float32),
        yaw_P=np.zeros(len(solids), dtype=np.float32),
        kind_P=np.full(len(solids), Kind.BOX, dtype=np.uint8),
        material_PF=np.array([[material] * 6 for _, _, material in solids], dtype=np.int16),
        semantic_P=np.array(
            [Semantic.WALL if m == _WALL else FURNITURE_SEMANTIC for _, _, m in solids], np.int16
        ),
        instance_P=np.zeros(len(solids), dtype=np.int16),
    )
    house = House(
        seed=arrangement,
        size="four_boxes",
        extent=(SIDE, SIDE),
        wall_height=height,
        rooms=(Room("room", 0.0, 0.0, SIDE, SIDE, _FLOOR, _WALL, _CEILING),),
        doors=(),
        furniture=(),
        receptacles=(),
        primitives=primitives,
        materials=materials,
    )
    return Scene(house, 0, (), primitives, materials)


def is_free(position_K2: NDArray[np.float64], margin: float = RADIUS) -> NDArray[np.bool_]:
    """Return where an agent of this radius touches neither box nor wall, bool (K,)."""
    inside_K = ((position_K2 >= margin) & (position_K2 <= SIDE - margin)).all(axis=-1)
    away_K4 = np.abs(position_K2[..., None, :] - CORNERS) > BOX_HALF + margin
    return np.asarray(inside_K & away_K4.any(axis=-1).all(axis=-1))


def slide(position_K2: NDArray[np.float64], move_K2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where small moves lead: on, or along x or along y only, or nowhere."""
    there_K2 = position_K2 + move_K2
    for kept in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        blocked_K = ~is_free(there_K2)
        there_K2[blocked_K] = (position_K2 + move_K2 * kept)[blocked_K]
    return there_K2


FOUR_BOXES_VERSION: Final = 1
"""Part of the dataset's name; any change to the room, the splits or the dynamics raises it."""

SPLITS: Final = ("train", "val", "test", "train_all")

TURN_LEFT, TURN_RIGHT, FORWARD = range(3)

STEP: Final = 0.5
"""Metres of a step forward; along a box or wall in the way the agent slides."""
TURN: Final = math.radians(30.0)
REACH: Final = 1.2
"""The agent is beside a box when it is this near to its centre, in metres."""
START_HALF: Final = 0.5
"""Episodes start at a random heading in a square of this half side about the room's centre."""
_SUBSTEPS: Final = 5


def tasks(split: str) -> NDArray[np.int64]:
    """Return the tasks of a split: rows of (arrangement of the colours, corner that pays).

    The 24 arrangements are shuffled by `numpy.random.RandomState(0)`, whose stream is frozen. The
    last 5 are `test`, 3 are `val`, for choosing checkpoints, 16 are `train`; `train_all` is both
    of these. Each comes with all four corners.

    Raises:
        ValueError: Unknown split.
    """
    if split not in SPLITS:
        raise unknown_name("four_boxes.split", "the split", split, SPLITS)
    shuffled = np.random.RandomState(0).permutation(24).astype(np.int64)
    chosen = {
        "train": shuffled[:16],
        "val": shuffled[16:19],
        "test": shuffled[19:],
        "train_all": shuffled[:19],
    }[split]
    return np.array(list(itertools.product(chosen.tolist(), range(4))), dtype=np.int64)


class FourBoxesVectorEnv(TrialVectorEnv):
    """N rooms.

    Observation: `rgb`, uint8 (resolution, resolution, 3); `heading`, its cosine and sine; and
    `prev_reward`, 0 at an episode's start. Actions: turn left, turn right (30 degrees), forward
    (0.5 m). Trial t is task `t % len(tasks)`. Records add `success` (the box was reached), `goal`
    (its colour, an index into `COLORS`) and the straight distances `distance_start` and
    `distance_end` in metres.
    """

    goal_categories = COLORS
    fixed_goal = True
    kernel_parts: ClassVar = {"drawing": "envs.houses.kernels:draw"}

    saved_arrays: ClassVar = {
        "position": "position_N2",
        "heading": "heading_N",
        "distance_start": "_distance_start_N",
        "prev_reward": "_prev_reward_N",
        "reached": "_reached_N",
    }

    def __init__(
        self,
        num_envs: int = 1,
        *,
        split: str = "train",
        resolution: int = 32,
        horizon: int = 50,
        threads: int = 1,
        **kwargs: Any,
    ) -> None:
        """Set up N rooms.

        Args:
            num_envs: N.
            split: `train`, `val`, `test`, or `train_all` (train and val), see `tasks`.
            resolution: pixels along a side of the square picture.
            horizon: steps of an episode.
            threads: that draw together; results do not depend on it.
            kwargs: `seed`, `first_row`, `copy` of `TrialVectorEnv`.
        """
        refuse_fixed(FourBoxesVectorEnv, TrialVectorEnv, kwargs)
        self.tasks = tasks(split)
        self.split = split
        check_count("FourBoxesVectorEnv", "resolution", resolution, least=1)
        super().__init__(
            num_envs,
            spaces.Dict(
                {
                    "heading": spaces.Box(-1.0, 1.0, (2,), np.float32),
                    "prev_reward": spaces.Box(0.0, 1.0, (1,), np.float32),
                    "rgb": spaces.Box(0, 255, (resolution, resolution, 3), np.uint8),
                }
            ),
            single_action_space=spaces.Discrete(3),
            dataset_name=f"relic-four-boxes-v{FOUR_BOXES_VERSION}/{split}",
            num_trials=len(self.tasks),
            max_episode_steps=horizon,
            fixed_horizon=True,
            time_limit_default="terminal",
            **kwargs,
        )
        self.renderer = BatchRenderer(
            self.num_envs, width=resolution, height=resolution, sensors=("rgb",), threads=threads
        )
        self._corner_N = np.zeros(self.num_envs, dtype=np.int64)
        self._color_N = np.zeros(self.num_envs, dtype=np.int64)
        self.position_N2 = np.zeros((self.num_envs, 2))
        self.heading_N = np.zeros(self.num_envs)
        self._distance_start_N = np.zeros(self.num_envs)
        self._prev_reward_N = np.zeros(self.num_envs, dtype=np.float32)
        self._reached_N = np.zeros(self.num_envs, dtype=bool)

    def shared_trials(self, other: TrialVectorEnv, trials: Sequence[int]) -> list[int]:
        """Return the trials whose arrangement another room has, too."""
        if not isinstance(other, FourBoxesVectorEnv):
            return []
        known = set(other.tasks[:, 0].tolist())
        return [trial for trial in trials if int(self.tasks[trial % len(self.tasks), 0]) in known]

    def begin_trials(self, rows: Rows, trials: Rows) -> None:
        """Arrange the boxes and choose the one that pays."""
        for row, trial in zip(rows.tolist(), trials.tolist(), strict=True):
            arrangement, corner = self.tasks[trial % len(self.tasks)].tolist()
            self._corner_N[row] = corner
            self._color_N[row] = arrangement_colors(arrangement)[corner]
            self.renderer.set_scene(row, scene(arrangement))

    def begin_episodes(self, rows: Rows) -> None:
        """Place the agent near the centre, facing anywhere."""
        for row in rows.tolist():
            keys = (self.dataset_name, int(self.trial[row]), int(self.episode[row]))
            u, v, w = keyed_generator(*keys).random(3)
            self.position_N2[row] = CENTER + START_HALF * (2.0 * np.array([u, v]) - 1.0)
            self.heading_N[row] = 2.0 * math.pi * w
        self._distance_start_N[rows] = self._distance()[rows]
        self._prev_reward_N[rows] = 0.0
        self._reached_N[rows] = False

    def _distance(self) -> NDArray[np.float64]:
        """Return each agent's distance from the centre of the box that pays."""
        return np.linalg.norm(CORNERS[self._corner_N] - self.position_N2, axis=1)

    def advance(self, actions: NDArray[Any]) -> Transition:
        """Turn and walk; a row beside the box that pays earns 1."""
        self.heading_N += TURN * ((actions == TURN_LEFT).astype(float) - (actions == TURN_RIGHT))
        rows = np.flatnonzero(actions == FORWARD)
        heading_K = self.heading_N[rows]
        move_K2 = np.stack([np.cos(heading_K), np.sin(heading_K)], axis=1) * (STEP / _SUBSTEPS)
        for _ in range(_SUBSTEPS):
            self.position_N2[rows] = slide(self.position_N2[rows], move_K2)
        beside_N = self._distance() <= REACH
        self._reached_N |= beside_N
        self._prev_reward_N[:] = beside_N
        never_N = np.zeros(self.num_envs, dtype=bool)
        # Two arrays, as what is returned belongs to the caller.
        return beside_N.astype(np.float32), never_N, never_N.copy()

    def observe_rows(self, rows: Rows | None, out: Observation) -> None:
        """Show the picture, the heading and the last reward."""
        chosen = slice(None) if rows is None else rows
        heading_K = self.heading_N[chosen]
        out["heading"][chosen] = np.stack([np.cos(heading_K), np.sin(heading_K)], axis=-1)
        out["prev_reward"][chosen, 0] = self._prev_reward_N[chosen]
        x_K, y_K = self.position_N2[chosen].T
        # The renderer fills whole arrays. Some rows are drawn into one of its own and copied below.
        images = None if rows is not None else {"rgb": out["rgb"]}
        pitch_K = np.zeros_like(x_K)
        drawn = self.renderer.render(x_K, y_K, heading_K, pitch_K, out=images, rows=rows)
        if rows is not None:
            out["rgb"][rows] = drawn["rgb"]

    def record_rows(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Say whether the box was reached, its colour, and how far off it was."""
        return {
            "success": self._reached_N[rows],
            "goal": self._color_N[rows],
            "distance_start": self._distance_start_N[rows],
            "distance_end": self._distance()[rows],
        }

    def ask_expert(self) -> NDArray[np.int64]:
        """Turn to the box and walk; by way of the room's centre where another box is between."""
        goal_N2 = CORNERS[self._corner_N]
        aim_N2 = np.where(self._sees_way(goal_N2)[:, None], goal_N2, CENTER)
        to_go_N2 = aim_N2 - self.position_N2
        turn_N = np.arctan2(to_go_N2[:, 1], to_go_N2[:, 0]) - self.heading_N
        turn_N = (turn_N + math.pi) % (2.0 * math.pi) - math.pi
        action_N = np.where(turn_N > 0, TURN_LEFT, TURN_RIGHT)
        action_N = np.where(np.abs(turn_N) <= TURN / 2, FORWARD, action_N)
        # Beside the box every step pays that does not lead away, and a turn moves nobody.
        return np.where(self._distance() <= REACH, TURN_LEFT, action_N)

    def _sees_way(self, goal_N2: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return where the straight way to the goal's reach keeps clear of other boxes."""
        share_S = np.linspace(0.0, 1.0, 21)[:, None, None]
        way_SN2 = self.position_N2 + share_S * (goal_N2 - self.position_N2)
        # Within its reach the goal's own box is in the way, which does not matter.
        arrived_SN = np.linalg.norm(way_SN2 - goal_N2, axis=-1) <= REACH
        free_SN = is_free(way_SN2)
        return (free_SN | arrived_SN).all(axis=0)

    def close_extras(self, **kwargs: Any) -> None:
        """End the renderer's threads."""
        if hasattr(self, "renderer"):  # else the arguments were refused
            self.renderer.close()


class FourBoxesEnv(SingleTrialEnv):
    """One room as a plain Gymnasium environment."""

    def __init__(self, **kwargs: Any) -> None:
        """Set up a room; the arguments are those of `FourBoxesVectorEnv` but `num_envs`."""
        super().__init__(FourBoxesVectorEnv(1, **kwargs))
