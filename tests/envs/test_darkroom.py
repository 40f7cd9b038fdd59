import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401  (registers the environments)
from envs.darkroom import MOVES, DarkroomEnv, DarkroomVectorEnv, goal_cells


def test_splits_share_no_goal_and_cover_the_grid():
    train, val, test = (set(goal_cells(s).tolist()) for s in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (70, 10, 20)
    assert train | val | test == set(range(100))
    assert set(goal_cells("train_all").tolist()) == train | val


def test_trials_are_shared_where_goals_are():
    def room(split, size=10):
        return DarkroomVectorEnv(1, split=split, size=size)

    trials = range(10)
    assert room("val").shared_trials(room("train_all"), trials) == list(trials)
    assert room("train_all").shared_trials(room("val"), range(80)) == list(range(70, 80))
    assert room("test").shared_trials(room("train_all"), trials) == []
    assert room("train").shared_trials(room("train", size=8), trials) == []


def test_test_goals_are_pinned():
    assert goal_cells("test").tolist() == [
        25, 37, 81, 46, 39, 65, 58, 12, 88, 70, 87, 36, 21, 83, 9, 96, 67, 64, 47, 44,
    ]  # fmt: skip


def test_expert_reaches_the_best_return_of_the_test_goals():
    # 90.9 is the published optimum of this split: horizon - distance + 1, averaged.
    env = DarkroomVectorEnv(20, split="test")
    env.reset(options={"trial": np.arange(20)})
    total = np.zeros(20)
    for _ in range(100):
        _, reward, _, truncated, infos = env.step(env.expert_actions())
        total += reward
    assert truncated.all()
    assert total.mean() == pytest.approx(90.9)
    assert np.array_equal(infos["episode_record"]["return"], total)
    assert infos["episode_record"]["success"].all()
    assert np.array_equal(infos["episode_record"]["goal"], goal_cells("test"))


def slow_episode(goal: int, actions: list[int]) -> list[tuple[float, float, float]]:
    """Play one episode with plain integers: (x, y, reward) after each step."""
    x = y = 0
    seen = []
    for action in actions:
        dx, dy = MOVES[action]
        x, y = min(max(x + int(dx), 0), 9), min(max(y + int(dy), 0), 9)
        seen.append((x / 4.5 - 1, y / 4.5 - 1, float(x * 10 + y == goal)))
    return seen


def test_batched_dynamics_equal_plain_ones():
    rng = np.random.default_rng(0)
    env = DarkroomVectorEnv(6, split="train_all", seed=3)
    first, _ = env.reset()
    goals = goal_cells("train_all")[env.trial]
    actions = rng.integers(0, 5, size=(100, 6))
    actions[:50, :3] = env.expert_actions()[:3]  # push some rows along
    assert np.all(first["position"] == -1.0)
    expected = [slow_episode(goals[i], actions[:, i].tolist()) for i in range(6)]
    for t in range(100):
        obs, reward, _, truncated, infos = env.step(actions[t])
        if t == 99:
            assert truncated.all()
            seen = infos["final_obs"]
            position = np.stack([o["position"] for o in seen])
            prev_reward = np.stack([o["prev_reward"] for o in seen])
            assert np.all(obs["position"] == -1.0)
            assert np.all(obs["prev_reward"] == 0.0)
        else:
            assert not truncated.any()
            position, prev_reward = obs["position"], obs["prev_reward"]
        want = np.array([row[t] for row in expected])
        np.testing.assert_allclose(position, want[:, :2], atol=1e-6)
        assert np.array_equal(prev_reward[:, 0], want[:, 2])
        assert np.array_equal(reward, want[:, 2])


def test_unnamed_trials_visit_every_goal_about_equally():
    env = DarkroomVectorEnv(64, seed=1)
    counts = np.zeros(70)
    for _ in range(70):
        env.reset(options={"new_trial": np.ones(64, dtype=bool)})
        counts += np.bincount(env.trial % 70, minlength=70)
    # 64 draws a goal in the mean, standard deviation 8
    assert counts.min() > 64 - 5 * 8
    assert counts.max() < 64 + 5 * 8


def test_other_sizes_and_horizons():
    env = DarkroomVectorEnv(2, size=5, horizon=7, split="test")
    obs, _ = env.reset()
    assert obs["position"].shape == (2, 2)
    for t in range(7):
        _, _, _, truncated, _ = env.step(np.array([1, 3]))
        assert truncated.all() == (t == 6)
    assert env.dataset_name == "relic-darkroom-v1/5x5/test"


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"split must be one of .*'tets'.*Did you mean 'test'"):
        DarkroomVectorEnv(2, split="tets")
    with pytest.raises(ValueError, match="size must be at least 4, got 2"):
        DarkroomVectorEnv(2, size=2)
    with pytest.raises(TypeError, match=r"size must be an integer, got 10\.0"):
        DarkroomVectorEnv(2, size=10.0)


def test_gymnasium_accepts_the_single_environment():
    check_env(DarkroomEnv(), skip_render_check=True)
    env = gymnasium.make("relic/Darkroom-v0", split="val", horizon=12)
    obs, info = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert info == {}
    for _ in range(12):
        obs, reward, terminated, truncated, info = env.step(env.unwrapped.expert_actions())
    assert truncated
    assert not terminated
    assert info["episode_record"]["return"] >= reward >= 0


def test_make_vec():
    env = gymnasium.make_vec(
        "relic/Darkroom-v0",
        num_envs=3,
        vectorization_mode="vector_entry_point",
        split="val",
        seed=2,
    )
    assert isinstance(env.unwrapped, DarkroomVectorEnv)
    obs, _ = env.reset()
    assert env.observation_space.contains(obs)
    assert env.unwrapped.goals.shape == (10,)


def test_states_hold_what_those_of_older_versions_held():
    env = DarkroomVectorEnv(2)
    env.reset(seed=0)
    assert env.state_dict()["env"].keys() == {"cell", "prev_reward", "found"}
