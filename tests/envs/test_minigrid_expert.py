"""What experts of MiniGrid's levels know, and whether their ways are the shortest."""

import itertools

import numpy as np
import pytest

pytest.importorskip("minigrid")
from minigrid.core.constants import IDX_TO_COLOR  # pyright: ignore[reportMissingImports]

from envs.minigrid_expert import AHEAD, FORWARD, LEFT, RIGHT, Wanted, way_to
from envs.minigrid_rooms import make

BALLS = {"level": "Balls", "size": 13, "max_episode_steps": 40}
LEVELS = [
    BALLS,
    {"level": "MiniGrid-SimpleCrossingS9N2-v0", "max_episode_steps": 60},
    {"level": "MiniGrid-FourRooms-v0", "max_episode_steps": 100},
]


def played(options, steps, seed=0):
    """Yield a row's environment after each of some random steps, and what they recorded."""
    env = make(1, **options)
    env.reset(seed=seed)
    draws = np.random.default_rng(seed)
    yield env, {}
    for _ in range(steps):
        *_, infos = env.step(draws.integers(0, 3, 1))
        yield env, infos


def test_the_map_is_what_minigrid_says_was_in_view():
    seen: dict[tuple[int, int], tuple[int, int]] = {}
    for env, _ in played(BALLS, 150):
        one = env.envs[0]
        level, image = one.level, one.level.gen_obs()["image"]
        for x, y in itertools.product(range(13), range(13)):
            at = level.relative_coords(x, y)
            if at is not None and image[at][0]:
                thing = level.grid.get(x, y)
                seen[x, y] = (1, 0) if thing is None else thing.encode()[:2]
        known = {at: tuple(one.seen.cells_WH2[at]) for at in seen}
        assert known == seen
        assert {*zip(*one.seen.known_WH("memory").nonzero(), strict=True)} == seen.keys()


def test_seen_ago_counts_the_steps_since_the_ball_was_shown():
    clock, shown, asked = 0, {}, []
    goal = None
    for env, infos in played(BALLS, 700):
        one = env.envs[0]
        if infos:  # Nobody acts on the last observation of an episode.
            asked.append((goal, infos["episode_record"]["seen_ago"][0]))
        if goal is None or infos:
            color = one.wanted.color
            goal = clock - shown[color] if color in shown else -1
        image = one.level.gen_obs()["image"]
        shown |= {color: clock for kind, color, _ in image.reshape(-1, 3) if kind == 6}
        clock += 1
    assert len(asked) > 15
    expected, told = zip(*asked, strict=True)
    assert expected == told
    assert -1 in told
    assert max(told) > 40


def distances(free_WH, aims):
    """Return the steps from each pose to the nearest aim, by relaxing until nothing changes."""
    steps = {aim: 0 for aim in aims}
    poses = [(x, y, d) for x, y in zip(*free_WH.nonzero(), strict=True) for d in range(4)]
    changed = True
    while changed:
        changed = False
        for x, y, d in poses:
            ahead = (x + AHEAD[d][0], y + AHEAD[d][1])
            after = [(x, y, (d + 1) % 4), (x, y, (d - 1) % 4)]
            after += [(*ahead, d)] if free_WH[ahead] else []
            best = 1 + min((steps[pose] for pose in after if pose in steps), default=10**6)
            if best < steps.get((x, y, d), 10**6):
                steps[x, y, d] = best
                changed = True
    return steps


def test_ways_are_the_shortest():
    draws = np.random.default_rng(0)
    tried = 0
    for _ in range(30):
        cells_WH2 = np.full((8, 7, 2), 2)
        cells_WH2[1:-1, 1:-1, 0] = np.where(draws.random((6, 5)) < 0.3, 2, 1)
        cells_WH2[3, 3] = (6, 1)
        free_WH = cells_WH2[..., 0] == 1
        aims = [
            (x, y, d)
            for x, y in zip(*free_WH.nonzero(), strict=True)
            for d in range(4)
            if (x + AHEAD[d][0], y + AHEAD[d][1]) == (3, 3)
        ]
        steps = distances(free_WH, aims)
        for x, y in zip(*free_WH.nonzero(), strict=True):
            for d in range(4):
                action = way_to(Wanted(6, 1), cells_WH2, np.ones((8, 7), bool), (x, y, d))
                if (x, y, d) in aims:
                    continue
                assert (action is None) == ((x, y, d) not in steps)
                if action is None:
                    continue
                turned = (d + {LEFT: -1, RIGHT: 1, FORWARD: 0}[action]) % 4
                dx, dy = AHEAD[d] if action == FORWARD else (0, 0)
                assert steps[x + dx, y + dy, turned] == steps[x, y, d] - 1
                tried += 1
    assert tried > 500


def test_the_memory_expert_uses_nothing_that_was_not_in_view():
    for env, _ in played(BALLS, 120, seed=3):
        one = env.envs[0]
        for kind in ("memory", "episode"):
            known_WH = one.seen.known_WH(kind)
            dreamt = one.seen.cells_WH2.copy()
            dreamt[~known_WH] = (6, one.wanted.color)
            assert way_to(one.wanted, dreamt, known_WH, one.pose) == one.expert_action(kind)


@pytest.mark.parametrize("options", LEVELS, ids=lambda o: o["level"])
def test_experts_find_all_from_every_start(options):
    env = make(8, **options)
    for kind in ("full", "memory", "episode"):
        env.reset(seed=1)
        found = []
        for _ in range(150):
            *_, infos = env.step(env.expert_actions(kind))
            if infos:
                found += infos["episode_record"]["success"][infos["_episode_record"]].tolist()
        assert len(found) > 20
        assert kind == "episode" or all(found)


def test_knowledge_goes_on_after_a_saved_state():
    one, other = make(2, **BALLS), make(2, **BALLS)
    one.reset(seed=5)
    for _ in range(90):
        one.step(one.expert_actions("memory"))
    other.load_state_dict(one.state_dict())
    for _ in range(60):
        actions = one.expert_actions("memory")
        assert (actions == other.expert_actions("memory")).all()
        one.step(actions)
        other.step(actions)


def test_all_balls_have_their_colors():
    """A layout has each colour once, and the episode asks for one of them."""
    env = make(1, **BALLS)
    env.reset(seed=0)
    grid = env.envs[0].level.grid.encode()
    colors = sorted(IDX_TO_COLOR[c] for kind, c, _ in grid.reshape(-1, 3) if kind == 6)
    assert colors == sorted(set(colors))
    assert len(colors) == 6
