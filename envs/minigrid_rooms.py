"""MiniGrid as trials: a layout that stays the same, with other starts and goals in every episode.

Two kinds of levels. Any level of MiniGrid's own that ends on a goal tile, such as
MiniGrid-FourRooms-v0: its layout and goal are the trial's, the start is the episode's. And `Balls`,
the gridworld form of finding objects in a house: four rooms with a ball of every colour, and each
episode asks for another one. An agent that remembers the rooms need not search them again.
"""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.utils import seeding

from envs.core.single import SingleTrialEnv
from envs.core.trials import EpisodeTrials, by_option
from envs.core.validation import unknown_name

try:
    from minigrid.core.constants import COLOR_NAMES  # pyright: ignore[reportMissingImports]
    from minigrid.core.grid import Grid  # pyright: ignore[reportMissingImports]
    from minigrid.core.mission import MissionSpace  # pyright: ignore[reportMissingImports]
    from minigrid.core.world_object import Ball  # pyright: ignore[reportMissingImports]
    from minigrid.minigrid_env import MiniGridEnv  # pyright: ignore[reportMissingImports]
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
        image = self.observation_space["image"]
        self.observation_space = spaces.Dict({"image": image, "goal": spaces.Discrete(6)})
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
            # Beside no wall and no other ball, so that a way leads around each.
            self.place_obj(Ball(color), reject_fn=self._is_narrow)
        self.place_agent()
        self.mission = ""

    @staticmethod
    def _is_narrow(env: MiniGridEnv, position: tuple[int, int]) -> bool:
        x, y = position
        around = [env.grid.get(*at) for at in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1))]
        return any(cell is not None for cell in around)

    def gen_obs(self) -> dict[str, Any]:
        """Return the view and the colour that is asked for."""
        return {"image": super().gen_obs()["image"], "goal": self.goal}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Move; facing the ball that is asked for is success."""
        seen, _, _, truncated, info = super().step(action)
        ahead = self.grid.get(*self.front_pos)
        found = ahead is not None and ahead.type == "ball" and ahead.color == COLOR_NAMES[self.goal]
        reward = float(self._reward()) if found else 0.0
        return seen, reward, found, truncated, info | {"success": found}


class SameLayout(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Draws the layout from `options["layout"]`, and start and goal from the seed."""

    def __init__(self, env: gymnasium.Env[Any, Any]):
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, spaces.Dict)
        # A mission is text, and the same in all episodes of the levels that are meant.
        self.observation_space = spaces.Dict({k: v for k, v in space.items() if k != "mission"})
        if not isinstance(env.unwrapped, Balls):
            self.action_space = spaces.Discrete(MOVES)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in a layout."""
        level: Any = self.unwrapped
        self.env.reset(seed=(options or {})["layout"])
        level.np_random, _ = seeding.np_random(seed)
        level.place_agent()
        if isinstance(level, Balls):
            level.goal = int(level.np_random.integers(len(COLOR_NAMES)))
            while self._is_found(level):
                level.place_agent()
        return self._shown(level.gen_obs()), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Move."""
        seen, reward, terminated, truncated, info = self.env.step(action)
        success = info.get("success", bool(terminated and float(reward) > 0))
        return self._shown(seen), reward, terminated, truncated, {"success": success}

    def _shown(self, observation: dict[str, Any]) -> dict[str, Any]:
        assert isinstance(self.observation_space, spaces.Dict)
        return {key: observation[key] for key in self.observation_space.spaces}

    @staticmethod
    def _is_found(level: Balls) -> bool:
        ahead = level.grid.get(*level.front_pos)
        return ahead is not None and ahead.type == "ball"


def make(
    num_envs: int = 1,
    *,
    level: str = BALLS,
    size: int = 11,
    max_episode_steps: int = 100,
    split: str = "train",
    **options: Any,
) -> EpisodeTrials:
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
    return EpisodeTrials(
        build,
        num_envs,
        dataset_name=f"minigrid-1/{which}/{split}",
        start=by_option("layout"),
        max_episode_steps=max_episode_steps,
        **{
            "first_trial": first_trial,
            "num_trials": num_trials,
            "record": ["success"],
            # Object, colour and state of each cell in view.
            "kinds": {"image": "classes"},
        }
        | options,
    )


def make_one(**options: Any) -> SingleTrialEnv:
    """Build a plain Gymnasium environment of one row; see `make`."""
    return SingleTrialEnv(make(1, **options))
