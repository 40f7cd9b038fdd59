"""MiniGrid as trials: what stays the same within one, and what does not."""

import numpy as np
import pytest

from envs import check_trial_env

pytest.importorskip("minigrid")
from minigrid.core.constants import COLOR_NAMES  # pyright: ignore[reportMissingImports]

from envs.minigrid_rooms import make

LEVELS = [
    {"level": "Balls", "size": 11, "max_episode_steps": 12},
    {"level": "MiniGrid-FourRooms-v0", "max_episode_steps": 12},
]


def layout(env, row=0):
    """Return walls and things, and where the agent stands."""
    level = env.envs[row].unwrapped
    return level.grid.encode().tobytes(), tuple(level.agent_pos), level.agent_dir


@pytest.mark.parametrize("options", LEVELS, ids=lambda o: o["level"])
def test_it_keeps_the_contract_of_trials(options):
    check_trial_env(make(3, **options), make=lambda **more: make(**options, **more))


@pytest.mark.parametrize("options", LEVELS, ids=lambda o: o["level"])
def test_a_layout_lasts_for_the_trial_and_starts_do_not(options):
    env = make(1, **options)
    seen = []
    for trial in (3, 4):
        env.reset(seed=0, options={"new_trial": np.array([True]), "trial": np.array([trial])})
        for _ in range(4):
            seen.append(layout(env))
            env.reset(options={"reset_mask": np.array([True])})
    grids, places, directions = zip(*seen, strict=True)
    assert len(set(grids[:4])) == len(set(grids[4:])) == 1
    assert grids[0] != grids[4]
    assert len(set(zip(places, directions, strict=True))) > 4


@pytest.mark.parametrize("asked", [True, False])
def test_the_episode_ends_before_the_ball_that_is_asked_for(asked):
    env = make(1, level="Balls", size=11, max_episode_steps=50)
    goals = set()
    for seed in range(12):
        env.reset(seed=seed)
        level = env.envs[0].unwrapped
        goals.add(level.goal)
        color = COLOR_NAMES[level.goal if asked else (level.goal + 1) % 6]
        ((x, y),) = (
            (x, y)
            for x in range(11)
            for y in range(11)
            if (cell := level.grid.get(x, y)) and (cell.type, cell.color) == ("ball", color)
        )
        # To its left, looking down: a turn to the left faces it.
        level.agent_pos, level.agent_dir = (x - 1, y), 1
        _, reward, terminated, _, infos = env.step(np.array([0]))
        assert terminated[0] == asked
        assert (reward[0] > 0) == asked
        if asked:
            assert infos["episode_record"]["success"][0]
    assert len(goals) > 3


def test_what_is_not_there_is_said():
    with pytest.raises(
        ValueError,
        match=r"env\.options\.level: the level must be one of .* got 'Ball'. Did you mean 'Balls'",
    ):
        make(1, level="Ball")
    with pytest.raises(ValueError, match=r"env\.options\.split: the split must be .*'train'"):
        make(1, split="tain")
    with pytest.raises(ValueError, match=r"env\.options\.size: must be odd and at least 11, got 9"):
        make(1, size=9)
