"""MiniGrid as trials: a layout that stays the same, with other starts and goals in every episode.

Two kinds of levels. Any level of MiniGrid's own that ends on a goal tile, such as
MiniGrid-FourRooms-v0: its layout and goal are the trial's, the start is the episode's. And `Balls`,
the gridworld form of finding objects in a house: four rooms with a ball of every colour, and each
episode asks for another one. An agent that remembers the rooms need not search them again.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding

from envs.core.single import SingleTrialEnv
from envs.core.trials import EpisodeTrials, episode_seed
from envs.core.validation import unknown_name
from envs.core.vector import State

try:
    from minigrid.core.constants import (  # pyright: ignore[reportMissingImports]
        COLOR_NAMES,
        COLOR_TO_IDX,
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
MOVES = 3
"""MiniGrid's first actions: turn left, turn right, go forward."""


class Balls(MiniGridEnv):
    """Four rooms with a ball of every colour; the episode ends before the one that is asked for."""

    def __init__(self, size: int, max_steps: int):
        if size < SMALLEST or size % 2 == 0:
            raise ValueError(
                f"env.options.size: must be odd and at least {SMALLEST}, got {size}. Smaller rooms "
                "have no place for all balls that leaves every passage free."
            )
        super().__init__(MissionSpace(lambda: "find the ball"), grid_size=size, max_steps=max_steps)
        shown = self.observation_space
        assert isinstance(shown, spaces.Dict)
        self.observation_space = spaces.Dict(
            {
                "image": shown["image"],
                "direction": shown["direction"],
                "position": spaces.MultiDiscrete([size, size]),
                "goal": spaces.Discrete(len(COLOR_NAMES)),
            }
        )
        self.action_space = spaces.Discrete(MOVES)
        self.goal = 0

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
        """Return the view, where the agent is, and the colour that is asked for."""
        return super().gen_obs() | {"position": np.array(self.agent_pos), "goal": self.goal}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Move; facing the ball that is asked for is success."""
        seen, _, _, truncated, info = super().step(action)
        ahead = self.grid.get(*self.front_pos)
        found = ahead is not None and ahead.type == "ball" and ahead.color == COLOR_NAMES[self.goal]
        reward = float(self._reward()) if found else 0.0
        return seen, reward, found, truncated, info | {"success": found}


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
        level.place_agent()
        if isinstance(level, Balls):
            level.goal = int(level.np_random.integers(len(COLOR_NAMES)))
        while self._faces_a_ball() or self._way("full") is None:
            level.place_agent()
        self.seen.begin_episode(self.wanted, of_new_trial=asked["episode"] == 0)
        return self._shown(level.gen_obs()), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Move."""
        seen, reward, terminated, truncated, info = self.env.step(action)
        success = info.get("success", bool(terminated and float(reward) > 0))
        told = {"success": success, "goal": self.wanted.color or 0, "seen_ago": self.seen.ago}
        return self._shown(seen), reward, terminated, truncated, told

    def expert_action(self, kind: str) -> int:
        """Return what an expert does that knows the level (`full`), or what was in view."""
        action = self._way(kind)
        return LEFT if action is None else action

    def _way(self, kind: str) -> int | None:
        if kind == "full":
            cells_WH2 = self.level.grid.encode()[..., :2].astype(np.int64)
            return way_to(self.wanted, cells_WH2, np.ones(cells_WH2.shape[:2], bool), self.pose)
        return way_to(self.wanted, self.seen.cells_WH2, self.seen.known_WH(kind), self.pose)

    def _shown(self, observation: dict[str, Any]) -> dict[str, Any]:
        assert isinstance(self.observation_space, spaces.Dict)
        self.seen.note(observation["image"], self.pose)
        return {key: observation[key] for key in self.observation_space.spaces}

    def _faces_a_ball(self) -> bool:
        ahead = self.level.grid.get(*self.level.front_pos)
        return ahead is not None and ahead.type == "ball"


class MiniGridTrials(EpisodeTrials):
    """Rows of a level, whose state has what was in view of them in earlier episodes too."""

    @property
    def _maps(self) -> list[Any]:
        return [env.get_wrapper_attr("seen") for env in self.envs]

    def save_rows(self) -> State:
        """Add what was in view."""
        maps = [seen.state_dict() for seen in self._maps]
        return {**super().save_rows(), **{k: np.stack([one[k] for one in maps]) for k in maps[0]}}

    def load_rows(self, state: State) -> None:
        """Take the saved actions again, and what was in view before and after them."""
        super().load_rows(state)
        for row, seen in enumerate(self._maps):
            seen.load_state_dict({key: state[key][row] for key in seen.state_dict()})


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
    split: str = "train",
    **options: Any,
) -> MiniGridTrials:
    """Build rows of a level.

    Args:
        num_envs: N.
        level: Balls, or an id of MiniGrid's whose episodes end on a goal tile.
        size: Width and height of Balls.
        max_episode_steps: Longest episode.
        split: Of the layouts: train, val or test.
        options: Of `EpisodeTrials`.

    Raises:
        ValueError: If there is no such level or split.
    """
    known = [BALLS, *sorted(i for i in gymnasium.registry if i.startswith(GOAL_LEVELS))]
    for value, names, what in ((level, known, "level"), (split, list(SPLITS), "split")):
        if value not in names:
            raise unknown_name(f"env.options.{what}", f"the {what}", value, names)

    def build() -> gymnasium.Env[Any, Any]:
        if level == BALLS:
            return SameLayout(Balls(size, max_episode_steps))
        made = gymnasium.make(level, max_steps=max_episode_steps, disable_env_checker=True)
        return SameLayout(made.unwrapped)

    first_trial, num_trials = SPLITS[split]
    which = f"{level}-{size}" if level == BALLS else level
    return MiniGridTrials(
        build,
        num_envs,
        dataset_name=f"minigrid-2/{which}/{split}",
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


def make_one(**options: Any) -> SingleTrialEnv:
    """Build a plain Gymnasium environment of one row; see `make`."""
    return SingleTrialEnv(make(1, **options))
