"""MiniGrid as trials: a layout that stays the same, with other starts and goals in every episode.

Two kinds of levels. Any level of MiniGrid's own that ends on a goal tile, such as
MiniGrid-FourRooms-v0: its layout and goal are the trial's, the start is the episode's. And `Balls`,
the gridworld form of finding objects in a house: four rooms with a ball of every colour, and each
episode asks for another one. An agent that remembers the rooms need not search them again. Of balls
in view it is told what the houses' sensor `detections` tells of objects, with a cell as the metre.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray

from envs.core.single import SingleTrialEnv
from envs.core.trials import EpisodeTrials, episode_seed
from envs.core.validation import check_flag, unknown_name
from envs.core.vector import State
from envs.objectnav.config import MAX_DEPTH, told_spaces
from envs.objectnav.detections import InView

try:
    from minigrid.core.constants import (  # pyright: ignore[reportMissingImports]
        COLOR_NAMES,
        COLOR_TO_IDX,
        IDX_TO_COLOR,
        OBJECT_TO_IDX,
    )
    from minigrid.core.grid import Grid  # pyright: ignore[reportMissingImports]
    from minigrid.core.mission import MissionSpace  # pyright: ignore[reportMissingImports]
    from minigrid.core.world_object import Ball  # pyright: ignore[reportMissingImports]
    from minigrid.minigrid_env import MiniGridEnv  # pyright: ignore[reportMissingImports]

    from envs.minigrid_expert import LEFT, Pose, Seen, Wanted, way_to
except ImportError as error:
    raise ImportError(
        "relic/MiniGrid-v0: minigrid must be installed. Run: pip install 'minigrid>=3'"
    ) from error

BALLS = "Balls"
GOAL_LEVELS = tuple(
    f"MiniGrid-{name}"
    for name in ("DistShift", "Empty", "FourRooms", "LavaCrossing", "LavaGap", "SimpleCrossing")
)
"""How the ids of levels begin that end on a goal tile and need no more than moving."""
SPLITS = {"train": (0, 2**24), "val": (2**24, 2**20), "test": (2**24 + 2**20, 2**20)}
"""First trial and number of trials; their numbers seed the layouts."""
SMALLEST = 11
"""Width of the smallest `Balls`: each of its rooms has a place for two."""
_FIRST = np.zeros(1, np.int64)
"""The only row of a level."""
MOVES = 3
"""MiniGrid's first actions: turn left, turn right, go forward."""


class Balls(MiniGridEnv):
    """Four rooms with a ball of every colour; the episode ends before the one that is asked for."""

    def __init__(self, size: int, max_steps: int, *, goal_recall: bool = False):
        if size < SMALLEST or size % 2 == 0:
            raise ValueError(
                f"env.options.size: must be odd and at least {SMALLEST}, got {size}. Smaller rooms "
                "have no place for all balls that leaves every passage free."
            )
        check_flag("env.options.goal_recall", goal_recall)
        super().__init__(MissionSpace(lambda: "find the ball"), grid_size=size, max_steps=max_steps)
        shown = self.observation_space
        assert isinstance(shown, spaces.Dict)
        recalled = spaces.Box(-MAX_DEPTH, MAX_DEPTH, (3,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "image": shown["image"],
                "gps": spaces.Box(-MAX_DEPTH, MAX_DEPTH, (2,), np.float32),
                "compass": spaces.Box(-np.pi, np.pi, (1,), np.float32),
                "goal": spaces.Discrete(len(COLOR_NAMES)),
                **told_spaces(len(COLOR_NAMES), pixels=1),
                **({"goal_recall": recalled} if goal_recall else {}),
            }
        )
        self.action_space = spaces.Discrete(MOVES)
        self.goal = 0
        self.told = InView(1, len(COLOR_NAMES))
        self.told_before = self.told.state()
        """As it was when the episode began."""

    def _gen_grid(self, width: int, height: int) -> None:
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        middle = width // 2
        self.grid.vert_wall(middle, 0)
        self.grid.horz_wall(0, middle)
        for first in (1, middle + 1):
            self.grid.set(middle, self._rand_int(first, first + middle - 1), None)
            self.grid.set(self._rand_int(first, first + middle - 1), middle, None)
        for color in COLOR_NAMES:
            # Beside no wall, passage or other ball, so that a way leads around each.
            self.place_obj(Ball(color), reject_fn=self._is_narrow)
        self.place_agent()
        self.mission = ""

    @staticmethod
    def _is_narrow(env: MiniGridEnv, position: tuple[int, int]) -> bool:
        x, y = position
        around = ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1))
        return any(env.width // 2 in at or env.grid.get(*at) is not None for at in around)

    def gen_obs(self) -> dict[str, Any]:
        """Return the view, where the agent is, what is asked for, and what balls are in view.

        Places are those of cells, right and down from the grid's middle. An agent that looks to the
        right has a heading of 0.
        """
        image = super().gen_obs()["image"]
        assert isinstance(self.observation_space, spaces.Dict)
        turned = np.array([(2 - self.agent_dir) % 4 - 2], np.float32) * np.float32(np.pi / 2)
        out = {
            key: np.zeros((1, *(space.shape or ())), space.dtype)
            for key, space in self.observation_space.spaces.items()
        }
        out["gps"][0] = np.array(self.agent_pos) - (self.width // 2, self.height // 2)
        out["compass"][0], out["goal"][0] = turned, self.goal
        self.told.tell(_FIRST, _balls_in(image)[None], turned, out)
        return {key: values[0] for key, values in out.items()} | {"image": image}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Move; facing the ball that is asked for is success."""
        self.told.act(_FIRST)
        seen, _, _, truncated, info = super().step(action)
        ahead = self.grid.get(*self.front_pos)
        found = ahead is not None and ahead.type == "ball" and ahead.color == COLOR_NAMES[self.goal]
        reward = float(self._reward()) if found else 0.0
        return seen, reward, found, truncated, info | {"success": found}


def _balls_in(image_VV3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return of each colour whether a ball is in view, 1 if so, and cells ahead and right."""
    seen_C4 = np.zeros((len(COLOR_NAMES), 4), np.float32)
    view = len(image_VV3)
    # The second axis runs from far to near; the agent stands in the middle of its end.
    for across, down in np.argwhere(image_VV3[..., 0] == OBJECT_TO_IDX["ball"]):
        color = COLOR_NAMES.index(IDX_TO_COLOR[image_VV3[across, down, 1]])
        seen_C4[color] = 1.0, 1.0, view - 1 - down, across - view // 2
    return seen_C4


class SameLayout(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Draws the layout from `options["layout"]`, and start and goal from the seed.

    It knows what was in view since `options["episode"]` was 0, for experts and for records:
    `seen_ago` is the number of steps from the last one that showed what is asked for to the
    episode's first, -1 if none did.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]):
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, spaces.Dict)
        # A mission is text, and the same in all episodes of the levels that are meant.
        self.observation_space = spaces.Dict({k: v for k, v in space.items() if k != "mission"})
        level = self.level
        if not isinstance(level, Balls):
            self.action_space = spaces.Discrete(MOVES)
        self.seen = Seen(level.width, level.height, level.agent_view_size)

    @property
    def level(self) -> Any:
        """MiniGrid's own environment."""
        return self.unwrapped

    @property
    def wanted(self) -> Wanted:
        """What the episode asks for."""
        if isinstance(self.level, Balls):
            return Wanted(OBJECT_TO_IDX["ball"], COLOR_TO_IDX[COLOR_NAMES[self.level.goal]])
        return Wanted(OBJECT_TO_IDX["goal"])

    @property
    def pose(self) -> Pose:
        """Where the agent is."""
        x, y = self.level.agent_pos
        return int(x), int(y), int(self.level.agent_dir)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in a layout."""
        asked, level = options or {}, self.level
        self.env.reset(seed=asked["layout"])
        level.np_random, _ = seeding.np_random(seed)
        is_first = asked["episode"] == 0
        if isinstance(level, Balls):
            if is_first:
                level.told.begin_trial(0)
            level.told_before = level.told.state()
        level.place_agent()
        if isinstance(level, Balls):
            level.goal = int(level.np_random.integers(len(COLOR_NAMES)))
        while self._faces_a_ball() or self._way("full") is None:
            level.place_agent()
        self.seen.begin_episode(self.wanted, of_new_trial=is_first)
        first = level.gen_obs()
        self.seen.note(first["image"], self.pose)
        return self._shown(first), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Move."""
        seen, reward, terminated, truncated, info = self.env.step(action)
        success = info.get("success", bool(terminated and float(reward) > 0))
        told = {"success": success, "goal": self.wanted.color or 0, "seen_ago": self.seen.ago}
        if not (terminated or truncated):  # nobody acts on an episode's last view
            self.seen.note(seen["image"], self.pose)
        return self._shown(seen), reward, terminated, truncated, told

    def expert_action(self, kind: str) -> int:
        """Return what an expert does that knows the level (`full`), or what was in view."""
        action = self._way(kind)
        return LEFT if action is None else action

    def shown_state(self) -> State:
        """Return what was in view, and what was told of it before the episode."""
        told = self.level.told_before if isinstance(self.level, Balls) else {}
        return {**self.seen.state_dict(), **told}

    def _way(self, kind: str) -> int | None:
        if kind == "full":
            cells_WH2 = self.level.grid.encode()[..., :2].astype(np.int64)
            return way_to(self.wanted, cells_WH2, np.ones(cells_WH2.shape[:2], bool), self.pose)
        return way_to(self.wanted, self.seen.cells_WH2, self.seen.known_WH(kind), self.pose)

    def _shown(self, observation: dict[str, Any]) -> dict[str, Any]:
        assert isinstance(self.observation_space, spaces.Dict)
        return {key: observation[key] for key in self.observation_space.spaces}

    def _faces_a_ball(self) -> bool:
        ahead = self.level.grid.get(*self.level.front_pos)
        return ahead is not None and ahead.type == "ball"


class MiniGridTrials(EpisodeTrials):
    """Rows of a level, whose state has what was in view of them in earlier episodes too."""

    def save_rows(self) -> State:
        """Add what was in view, and what was told of it before the episodes."""
        rows = [env.get_wrapper_attr("shown_state")() for env in self.envs]
        return {**super().save_rows(), **{key: np.stack([r[key] for r in rows]) for key in rows[0]}}

    def load_rows(self, state: State) -> None:
        """Take the saved actions again, and what was in view before and after them."""
        rows = [{key: state[key][n] for key in state} for n in range(self.num_envs)]
        for env, row in zip(self.envs, rows, strict=True):
            if isinstance(env.unwrapped, Balls):
                env.unwrapped.told.load_state(row)
        super().load_rows(state)
        for env, row in zip(self.envs, rows, strict=True):
            env.get_wrapper_attr("seen").load_state_dict(row)


def _begin(env: gymnasium.Env[Any, Any], trial: int, episode: int) -> tuple[Any, dict[str, Any]]:
    return env.reset(
        seed=episode_seed(trial, episode), options={"layout": trial, "episode": episode}
    )


def make(
    num_envs: int = 1,
    *,
    level: str = BALLS,
    size: int = 11,
    max_episode_steps: int = 100,
    goal_recall: bool = False,
    split: str = "train",
    **options: Any,
) -> MiniGridTrials:
    """Build rows of a level.

    Args:
        num_envs: N.
        level: Balls, or an id of MiniGrid's whose episodes end on a goal tile.
        size: Width and height of Balls.
        max_episode_steps: Longest episode.
        goal_recall: Of Balls: observe whether what is asked for was in view in this trial, and
            where last. It is for learning, and never an input.
        split: Of the layouts: train, val or test.
        options: Of `EpisodeTrials`.

    Raises:
        ValueError: If there is no such level or split, or nothing to recall in it.
    """
    known = [BALLS, *sorted(i for i in gymnasium.registry if i.startswith(GOAL_LEVELS))]
    for value, names, what in ((level, known, "level"), (split, list(SPLITS), "split")):
        if value not in names:
            raise unknown_name(f"env.options.{what}", f"the {what}", value, names)

    if goal_recall and level != BALLS:
        raise ValueError(
            f"env.options.goal_recall: must be False for levels other than {BALLS}, got True with "
            f"{level}. They ask for one goal only."
        )

    def build() -> gymnasium.Env[Any, Any]:
        if level == BALLS:
            return SameLayout(Balls(size, max_episode_steps, goal_recall=goal_recall))
        made = gymnasium.make(level, max_steps=max_episode_steps, disable_env_checker=True)
        return SameLayout(made.unwrapped)

    first_trial, num_trials = SPLITS[split]
    which = f"{level}-{size}" if level == BALLS else level
    env = MiniGridTrials(
        build,
        num_envs,
        dataset_name=f"minigrid-3/{which}/{split}",
        start=_begin,
        expert=lambda env: env.get_wrapper_attr("expert_action")("full"),
        memory_expert=lambda env, kind: env.get_wrapper_attr("expert_action")(kind),
        max_episode_steps=max_episode_steps,
        **{
            "first_trial": first_trial,
            "num_trials": num_trials,
            "record": ["success", "goal", "seen_ago"],
            # Object, colour and state of each cell in view.
            "kinds": {"image": "classes"},
        }
        | options,
    )
    if level == BALLS:
        env.fixed_goal = False
    return env


def make_one(**options: Any) -> SingleTrialEnv:
    """Build a plain Gymnasium environment of one row; see `make`."""
    return SingleTrialEnv(make(1, **options))
