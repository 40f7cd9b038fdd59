"""Miniworld and ViZDoom, stepped at random, for comparison with the houses.

Both are optional (`pip install -e '.[bench]'`); what is missing is said in one sentence and left
out. Only RGB is drawn: the houses draw depth and semantics too, so the comparison favours others.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

Rate = Callable[[Callable[[], int], float, int], dict[str, float]]
ROOMS = (4, 3)
ROOM_SIDE = 3.0
NUM_ENTITIES = 84
"""Seven pieces in each of twelve rooms."""
PIECES = ("office_desk", "office_chair", "barrel", "cone", "potion", "medkit", "keycard", "duckie")


def installed(module: str, what: str) -> bool:
    """Tell whether a module is here, and say so if it is not."""
    if importlib.util.find_spec(module) is None:
        print(f"{what} is not installed and left out: pip install -e '.[bench]' adds it.")
        return False
    return True


def furnished_class() -> type[Any]:
    """Return a Miniworld environment: twelve connected rooms with 84 pieces in them."""
    base = importlib.import_module("miniworld.miniworld").MiniWorldEnv
    entity = importlib.import_module("miniworld.entity")

    class FurnishedHouse(base):  # type: ignore[misc, valid-type]
        """A house of about 12 m x 9 m."""

        def _gen_world(self) -> None:
            grid = {}
            for i in range(ROOMS[0]):
                for j in range(ROOMS[1]):
                    x, z = i * ROOM_SIDE, j * ROOM_SIDE
                    grid[i, j] = self.add_rect_room(
                        min_x=x, max_x=x + ROOM_SIDE - 0.1, min_z=z, max_z=z + ROOM_SIDE - 0.1
                    )
            for (i, j), room in grid.items():
                middle = (i + 0.5) * ROOM_SIDE, (j + 0.5) * ROOM_SIDE
                if (i + 1, j) in grid:
                    span = {"min_z": middle[1] - 0.5, "max_z": middle[1] + 0.5}
                    self.connect_rooms(room, grid[i + 1, j], **span, max_y=2.0)
                if (i, j + 1) in grid:
                    span = {"min_x": middle[0] - 0.5, "max_x": middle[0] + 0.5}
                    self.connect_rooms(room, grid[i, j + 1], **span, max_y=2.0)
            rng = np.random.default_rng(0)
            for number in range(NUM_ENTITIES):
                i, j = number % ROOMS[0], number // ROOMS[0] % ROOMS[1]
                piece = entity.MeshEnt(
                    PIECES[number % len(PIECES)], height=float(rng.uniform(0.15, 0.6))
                )
                position = [
                    (i + rng.uniform(0.1, 0.85)) * ROOM_SIDE,
                    0.0,
                    (j + rng.uniform(0.1, 0.85)) * ROOM_SIDE,
                ]
                self.place_entity(piece, pos=np.array(position), dir=float(rng.uniform(0, 6)))
            self.place_agent(room=grid[0, 0])

    return FurnishedHouse


def miniworld_rates(rate: Rate, seconds: float, repeats: int) -> dict[str, Any]:
    """Measure a furnished house and Miniworld's own FourRooms."""
    if not installed("miniworld", "Miniworld"):
        return {}
    pyglet = importlib.import_module("pyglet")
    pyglet.options["headless"] = True  # must come before Miniworld opens its window
    four_rooms = importlib.import_module("miniworld.envs.fourrooms").FourRooms
    result = {}
    for name, build in (("furnished", furnished_class()), ("fourrooms", four_rooms)):
        for side in (64, 128):
            env = build(obs_width=side, obs_height=side)
            env.max_episode_steps = 10**9  # resets, which take it 0.5 s, are left out
            env.reset(seed=0)
            step = stepper(env, num_actions=3)
            result[f"miniworld_{name}_{side}"] = rate(step, seconds, repeats) | {"compare": side}
            env.close()
    return result


def stepper(env: Any, num_actions: int, count: int = 4) -> Callable[[], int]:
    """Return a function that takes random steps, with resets, and says how many."""
    rng = np.random.default_rng(0)

    def step() -> int:
        for _ in range(count):
            _, _, terminated, truncated, _ = env.step(int(rng.integers(num_actions)))
            if terminated or truncated:
                env.reset()
        return count

    return step


def doom_rates(rate: Rate, seconds: float, repeats: int) -> dict[str, Any]:
    """Measure ViZDoom's my_way_home at its smallest resolution, and with labels and depth."""
    if not installed("vizdoom", "ViZDoom"):
        return {}
    vizdoom = importlib.import_module("vizdoom")
    result = {}
    for name, extra in (("rgb", False), ("rgb_depth_labels", True)):
        game = vizdoom.DoomGame()
        game.load_config(f"{vizdoom.scenarios_path}/my_way_home.cfg")
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_window_visible(False)
        game.set_depth_buffer_enabled(extra)
        game.set_labels_buffer_enabled(extra)
        game.init()
        step = doom_stepper(game)
        # 160 x 120 has 1.17 times the pixels of 128 x 128.
        result[f"vizdoom_{name}_160x120"] = rate(step, seconds, repeats) | {"compare": 128}
        game.close()
    return result


def doom_stepper(game: Any, count: int = 16) -> Callable[[], int]:
    """Return a function that takes random steps and looks at each picture."""
    rng = np.random.default_rng(0)
    buttons = game.get_available_buttons_size()

    def step() -> int:
        for _ in range(count):
            if game.is_episode_finished():
                game.new_episode()
            state = game.get_state()
            state.screen_buffer.sum(dtype=np.int64)
            choice = int(rng.integers(buttons))
            game.make_action([float(b == choice) for b in range(buttons)])
        return count

    return step
