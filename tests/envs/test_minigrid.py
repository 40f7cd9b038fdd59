"""MiniGrid as trials: what stays the same within one, and what does not."""

import itertools

import numpy as np
import pytest

from envs import check_trial_env
from envs.objectnav.rules import into_frame

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


def balls(level):
    """Return of each colour where its ball lies, and whether it is in view."""
    image = level.gen_obs()["image"]
    for x, y in itertools.product(range(level.width), range(level.height)):
        thing = level.grid.get(x, y)
        if thing is not None and thing.type == "ball":
            at = level.relative_coords(x, y)
            place = np.array([x - level.width // 2, y - level.height // 2])
            yield COLOR_NAMES.index(thing.color), place, at is not None and image[at][0] == 6


def test_what_is_told_of_balls_is_where_they_lie():
    env = make(1, level="Balls", size=13, max_episode_steps=25, goal_recall=True)
    seen, _ = env.reset(seed=0)
    draws = np.random.default_rng(0)
    known, named, recalled, at_starts = set(), [], 0, 0
    for _ in range(400):
        level = env.envs[0].unwrapped
        there = {color: (place, shown) for color, place, shown in balls(level)}
        assert seen["gps"][0].tolist() == [level.agent_pos[0] - 6, level.agent_pos[1] - 6]
        in_view = seen["detections"].reshape(6, 4)
        assert in_view[:, 0].tolist() == [there[color][1] for color in range(6)]
        for color in np.flatnonzero(in_view[:, 0]):
            offset = into_frame(in_view[color, 2:], seen["compass"][0, 0])
            np.testing.assert_allclose(seen["gps"][0] + offset, there[color][0], atol=1e-5)
        goal = int(seen["goal"][0])
        where, shown = there[goal]
        assert seen["goal_detection"][0, 0] == shown
        np.testing.assert_allclose(seen["goal_detection"][0, 3:], where * shown, atol=1e-5)
        known |= {color for color, (_, is_shown) in there.items() if is_shown}
        expected = [1, *where] if goal in known else [0, 0, 0]
        np.testing.assert_allclose(seen["goal_recall"][0], expected, atol=1e-5)
        recalled += goal in known and not shown
        named.append(int(seen["named"][0]))
        if named[-1] < 6:
            np.testing.assert_allclose(seen["named_place"][0], there[named[-1]][0], atol=1e-5)
        seen, _, terminated, truncated, _ = env.step(draws.integers(0, 3, 1))
        if terminated[0] or truncated[0]:
            at_starts += 1
    assert set(named) == set(range(7))
    assert recalled > 50
    assert at_starts > 10


def test_the_balls_in_view_take_turns():
    env = make(1, level="Balls", size=13, max_episode_steps=500)
    env.reset(seed=3)
    level = env.envs[0].unwrapped
    turns = {}
    for _ in range(300):
        seen, *_ = env.step(np.array([0]))  # Turning on the spot shows the same balls again.
        in_view = [c for c, _, shown in balls(level) if shown]
        if in_view:
            assert turns.get(int(seen["named"][0]), -1) == min(turns.get(c, -1) for c in in_view)
            turns[int(seen["named"][0])] = len(turns) + env.elapsed_steps[0]
    assert len(turns) > 1


def test_what_was_told_is_part_of_the_state():
    options = {"level": "Balls", "size": 13, "max_episode_steps": 25, "goal_recall": True}
    env, other = make(2, **options), make(2, **options)
    env.reset(seed=5)
    other.reset(seed=6)
    draws = np.random.default_rng(5)
    for _ in range(60):
        env.step(draws.integers(0, 3, 2))
    other.load_state_dict(env.state_dict())
    for _ in range(60):
        actions = draws.integers(0, 3, 2)
        (seen, *_), (again, *_) = env.step(actions), other.step(actions)
        for key, values in seen.items():
            np.testing.assert_array_equal(again[key], values, err_msg=key)


def test_what_is_not_there_is_said():
    with pytest.raises(ValueError, match=r"goal_recall: must be False for .* than Balls, got True"):
        make(1, level="MiniGrid-FourRooms-v0", goal_recall=True)
    with pytest.raises(
        ValueError,
        match=r"env\.options\.level: the level must be one of .* got 'Ball'. Did you mean 'Balls'",
    ):
        make(1, level="Ball")
    with pytest.raises(ValueError, match=r"env\.options\.split: the split must be .*'train'"):
        make(1, split="tain")
    with pytest.raises(ValueError, match=r"env\.options\.size: must be odd and at least 11, got 9"):
        make(1, size=9)
