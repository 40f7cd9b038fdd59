"""Walking in a house by hand, in any terminal with colours.

Two pixels share a character cell: the upper half block's ink is the upper pixel, its paper the
lower one. Keys come from an iterator and pictures go to a function, so that the same loop runs
without a terminal.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from envs.houses.env import HousesEnv
from envs.objectnav.config import Action
from envs.objectnav.goals import GOAL_CATEGORIES

KEYS: Final[dict[str, Action]] = {
    "w": Action.FORWARD,
    "a": Action.TURN_LEFT,
    "d": Action.TURN_RIGHT,
    "r": Action.LOOK_UP,
    "f": Action.LOOK_DOWN,
    " ": Action.STOP,
}
ARROWS: Final = {"A": "w", "C": "d", "D": "a"}
"""Keys that up, right and left stand for, by the end of what a terminal sends: `ESC [ A`."""
HELP: Final = "w ahead, a/d turn (or arrows), r/f look up/down, space stop, e expert, q quit"
OnEpisode = Callable[[list[int]], object]
_HOME_AND_CLEAR: Final = "\x1b[H\x1b[J"


def blocks(image: NDArray[np.uint8]) -> str:
    """Turn an image (H, W, 3) with an even number of rows into coloured half blocks."""
    lines: list[str] = []
    for upper, lower in zip(image[0::2], image[1::2], strict=True):
        cells = [
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]}m\x1b[48;2;{b[0]};{b[1]};{b[2]}m▀"
            for a, b in zip(upper.tolist(), lower.tolist(), strict=True)
        ]
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def walk(
    env: HousesEnv,
    trial: int,
    keys: Iterator[str],
    write: Callable[[str], object],
    on_episode: OnEpisode = lambda actions: None,
) -> list[bool]:
    """Walk until `q` or the keys' end.

    Args:
        env: a single environment with an `rgb` sensor.
        trial: the trial to walk in.
        keys: characters, one a key press.
        write: receives the text of each picture.
        on_episode: receives the actions of each finished episode.

    Returns:
        Whether each finished episode found its goal.
    """
    vector: Any = env.vector
    observation, _ = env.reset(options={"trial": trial})
    found: list[bool] = []
    message = "Find it, look at it from within 2 m, and press space."
    actions: list[int] = []
    while True:
        goal = GOAL_CATEGORIES[int(observation["goal"])].replace("_", " ")
        left = float(vector.simulator.distance_N[0])
        write(
            f"{_HOME_AND_CLEAR}{blocks(observation['rgb'])}\n"
            f"goal: {goal}   step {len(actions)}   {left:.1f} m to go   episode {len(found) + 1}\n"
            f"{message}\n{HELP}\n"
        )
        key = next(keys, "q")
        if key == "q":
            return found
        if key == "e":
            action = int(vector.expert_actions()[0])
        elif key in KEYS:
            action = int(KEYS[key])
        else:
            message = f"{key!r} is not a key of this program."
            continue
        observation, _, terminated, truncated, info = env.step(action)
        actions.append(action)
        message = f"Last move: {Action(action).name.lower().replace('_', ' ')}."
        if terminated or truncated:
            success = bool(info["episode_record"]["success"])
            found.append(success)
            outcome = "found" if success else "not found"
            message = f"The {goal} was {outcome} in {len(actions)} steps."
            on_episode(actions)
            observation, _ = env.reset()
            actions = []


def walk_in_terminal(
    settings: Mapping[str, Any], trial: int, on_episode: OnEpisode = lambda actions: None
) -> None:
    """Walk in this terminal.

    Args:
        settings: arguments for `HousesEnv`.
        trial: the trial to walk in.
        on_episode: receives the actions of each finished episode.
    """
    columns, lines = shutil.get_terminal_size((100, 40))
    width = max(16, min(columns - 2, 2 * (lines - 5), 120))
    width -= width % 2
    env = HousesEnv(**settings, resolution=width, antialias=2)
    try:
        walk(env, trial, with_arrows(_key_presses()), _write, on_episode)
    except KeyboardInterrupt:
        pass  # a way to quit like any other
    finally:
        env.close()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def with_arrows(characters: Iterator[str]) -> Iterator[str]:
    """Turn the three characters of an arrow key into the key that it stands for."""
    for character in characters:
        if character == "\x1b" and next(characters, "") == "[":
            arrow = next(characters, "")
            character = ARROWS.get(arrow, f"\x1b[{arrow}")
        yield character


def _key_presses() -> Iterator[str]:
    """Yield keys as they are pressed, or the characters of lines where that cannot be had."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield from line.rstrip("\n")
        return
    if sys.platform == "win32":
        windows: Any = importlib.import_module("msvcrt")
        while True:
            yield windows.getwch()
    import termios
    import tty

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    try:
        # Without a flush, keys that were pressed before this line count too.
        tty.setcbreak(handle, termios.TCSADRAIN)
        while True:
            yield sys.stdin.read(1)
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
