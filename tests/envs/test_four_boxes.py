import itertools
import math

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import check_trial_env
from envs.four_boxes import (
    COLORS,
    FORWARD,
    REACH,
    SIDE,
    STEP,
    TURN_LEFT,
    TURN_RIGHT,
    FourBoxesEnv,
    FourBoxesVectorEnv,
    arrangement_colors,
    is_free,
    scene,
    tasks,
)

CORNERS = [(0.4, 0.4), (4.6, 0.4), (4.6, 4.6), (0.4, 4.6)]
CHANNELS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}


def place(env, row, x, y, heading):
    env.position_N2[row] = x, y
    env.heading_N[row] = heading


def color_of(pixel):
    """Name the box that a pixel shows, None for walls, floor and ceiling."""
    pixel = pixel.astype(float)
    if pixel.max() - pixel.min() < 0.45 * pixel.max():
        return None
    strong = tuple(int(v) for v in pixel > 0.6 * pixel.max())
    return next((name for name, channels in CHANNELS.items() if channels == strong), None)


def test_splits_share_no_arrangement():
    arrangements = {s: set(tasks(s)[:, 0].tolist()) for s in ("train", "val", "test")}
    assert [len(a) for a in arrangements.values()] == [16, 3, 5]
    assert set().union(*arrangements.values()) == set(range(24))
    assert set(tasks("train_all")[:, 0]) == arrangements["train"] | arrangements["val"]
    for split, chosen in arrangements.items():
        assert set(map(tuple, tasks(split).tolist())) == set(itertools.product(chosen, range(4)))
    assert len({arrangement_colors(a) for a in range(24)}) == 24
    assert sorted(arrangements["test"]) == [0, 3, 12, 15, 21]  # pinned


def test_trials_are_shared_where_arrangements_are():
    val, test, both = (FourBoxesVectorEnv(1, split=s) for s in ("val", "test", "train_all"))
    assert val.shared_trials(both, range(12)) == list(range(12))
    assert test.shared_trials(both, range(20)) == []
    assert val.goal_categories == COLORS


def test_contract():
    check_trial_env(FourBoxesVectorEnv(3), make=FourBoxesVectorEnv)


def test_gymnasium_accepts_it():
    check_env(FourBoxesEnv(), skip_render_check=True)
    env = gymnasium.make_vec(
        "relic/FourBoxes-v0",
        num_envs=2,
        vectorization_mode="vector_entry_point",
        split="val",
        resolution=25,
    )
    obs, _ = env.reset(seed=1)
    assert obs["rgb"].shape == (2, 25, 25, 3)
    assert env.observation_space.contains(obs)
    single = gymnasium.make("relic/FourBoxes-v0", split="test")
    assert single.observation_space.contains(single.reset(seed=0)[0])


@pytest.mark.parametrize("arrangement", [0, 7, 13, 23])
def test_every_box_is_where_it_should_be_seen(arrangement):
    env = FourBoxesVectorEnv(12, split="train_all", resolution=64)
    env.reset()
    for row, (corner, aside) in enumerate(itertools.product(range(4), (0.0, 0.4, -0.4))):
        x, y = CORNERS[corner]
        env.renderer.set_scene(row, scene(arrangement))
        place(env, row, 2.5, 2.5, math.atan2(y - 2.5, x - 2.5) + aside)
    rgb = env.observe()["rgb"]
    # The box's middle is 0.7 m under the eye, at a depth that depends on how far it is aside.
    for row, (corner, aside) in enumerate(itertools.product(range(4), (0.0, 0.4, -0.4))):
        depth = math.hypot(2.1, 2.1) * math.cos(aside)
        right = math.hypot(2.1, 2.1) * math.sin(aside)  # turned left, the box is on the right
        column, line = 32 + 32 * right / depth, 32 + 32 * 0.7 / depth
        seen = color_of(rgb[row, int(line), int(column)])
        assert seen == COLORS[arrangement_colors(arrangement)[corner]]


def test_movement():
    env = FourBoxesVectorEnv(4)
    env.reset()
    for row, (x, y, heading) in enumerate(
        [(2.5, 2.5, 0.0), (2.5, 2.5, math.pi / 2), (4.5, 2.5, math.pi / 6), (2.5, 0.5, 0.3)]
    ):
        place(env, row, x, y, heading)
    env.step(np.array([FORWARD, FORWARD, FORWARD, TURN_LEFT]))
    # straight on; straight on; along the wall, reached in tenths of a step; turned on the spot
    x_at_wall = 4.5 + 2 * 0.1 * math.cos(math.pi / 6)
    want = [(2.5 + STEP, 2.5), (2.5, 2.5 + STEP), (x_at_wall, 2.75), (2.5, 0.5)]
    np.testing.assert_allclose(env.position_N2, want, atol=1e-9)
    assert env.heading_N[3] == pytest.approx(0.3 + math.pi / 6)
    heading = env.heading_N.copy()
    obs, *_ = env.step(np.full(4, TURN_RIGHT))
    np.testing.assert_allclose(env.heading_N, heading - math.pi / 6)
    cosine_sine = np.stack([np.cos(env.heading_N), np.sin(env.heading_N)], axis=1)
    np.testing.assert_allclose(obs["heading"], cosine_sine, atol=1e-6)


def test_free_space_against_a_slow_account():
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, SIDE + 0.5, size=(4000, 2))
    for (x, y), free in zip(points.tolist(), is_free(points), strict=True):
        walls = min(x, y, SIDE - x, SIDE - y) < 0.25
        boxes = any(max(abs(x - cx), abs(y - cy)) <= 0.65 for cx, cy in CORNERS)
        assert free == (not walls and not boxes)


def test_nobody_walks_into_anything():
    env = FourBoxesVectorEnv(32, seed=1)
    env.reset()
    rng = np.random.default_rng(0)
    for _ in range(100):
        env.step(np.where(rng.random(32) < 0.7, FORWARD, rng.integers(3, size=32)))
        assert is_free(env.position_N2).all()


def test_reward_is_paid_beside_the_right_box_only():
    env = FourBoxesVectorEnv(4, split="train")
    env.reset(options={"trial": np.arange(4)})  # one arrangement, the four corners
    assert tasks("train")[:4, 1].tolist() == [0, 1, 2, 3]
    for corner, (x, y) in enumerate(CORNERS):
        towards = 1.1 / math.hypot(2.5 - x, 2.5 - y)
        for row in range(4):
            place(env, row, x + towards * (2.5 - x), y + towards * (2.5 - y), 0.0)
        obs, reward, *_ = env.step(np.full(4, TURN_LEFT))
        assert reward.tolist() == [float(row == corner) for row in range(4)]
        assert obs["prev_reward"][:, 0].tolist() == reward.tolist()
        for row in range(4):
            place(env, row, x + 1.1 * towards * (2.5 - x), y + 1.1 * towards * (2.5 - y), 0.0)
        assert REACH < 1.1 * 1.1
        _, reward, *_ = env.step(np.full(4, TURN_LEFT))
        assert not reward.any()


def test_expert_reaches_the_papers_best_return():
    # The paper's curve ends at 42.1; knowing the box can be no worse.
    env = FourBoxesVectorEnv(80, split="train_all", seed=0)
    env.reset(options={"trial": np.arange(80)})
    for _ in range(50):
        *_, infos = env.step(env.expert_actions())
    record = infos["episode_record"]
    assert 41.0 < record["return"].mean() < 44.0
    assert record["return"].min() >= 34
    assert record["success"].all()
    assert (record["distance_end"] <= REACH).all()
    colors = [arrangement_colors(a)[c] for a, c in tasks("train_all").tolist()]
    assert record["goal"].tolist() == colors[:76] + colors[:4]


def test_expert_arrives_from_anywhere():
    rng = np.random.default_rng(3)
    env = FourBoxesVectorEnv(400, split="train", resolution=4)
    env.reset(options={"trial": np.arange(400)})
    for row in range(400):
        while True:
            x, y = rng.uniform(0, SIDE, size=2)
            if is_free(np.array([[x, y]]))[0]:
                break
        place(env, row, x, y, rng.uniform(0, 2 * math.pi))
    for _ in range(40):
        _, reward, *_ = env.step(env.expert_actions())
    assert reward.all()


def test_starts_differ_between_episodes_and_not_between_runs():
    env = FourBoxesVectorEnv(2, seed=0)
    starts = []
    for trial in (3, 3, 4):
        env.reset(options={"trial": np.array([trial, trial])})
        first = env.position_N2.copy()
        assert np.array_equal(first[0], first[1])
        env.reset()
        assert not np.array_equal(first, env.position_N2)
        starts.append((first[0].tolist(), env.position_N2[0].tolist()))
        assert np.abs(np.array(starts[-1]) - 2.5).max() <= 0.5
    assert starts[0] == starts[1] != starts[2]


def test_threads_do_not_matter():
    one, two = FourBoxesVectorEnv(5, seed=2), FourBoxesVectorEnv(5, seed=2, threads=2)
    got, want = two.reset()[0], one.reset()[0]
    for action in np.random.default_rng(0).integers(3, size=(20, 5)):
        assert all(np.array_equal(got[k], want[k]) for k in want)
        got, want = two.step(action)[0], one.step(action)[0]
    two.close()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"'tset'. Did you mean 'test'"):
        FourBoxesVectorEnv(2, split="tset")
    with pytest.raises(TypeError, match="resolution must be an integer, got '32'"):
        FourBoxesVectorEnv(2, resolution="32")
    with pytest.raises(ValueError, match="resolution"):
        FourBoxesVectorEnv(2, resolution=0)


def test_states_hold_what_those_of_older_versions_held():
    env = FourBoxesVectorEnv(2)
    env.reset(seed=0)
    held = {"position", "heading", "distance_start", "prev_reward", "reached"}
    assert env.state_dict()["env"].keys() == held
