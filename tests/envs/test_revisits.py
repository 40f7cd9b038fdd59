import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import check_trial_env
from envs.revisits import RevisitsEnv, RevisitsVectorEnv, Visits


def play(env, num_steps, choose):
    """Yield each step's observation, whether it begins an episode, and what followed it."""
    observation, _ = env.reset(options={"trial": np.arange(env.num_envs)})
    starts = True
    for _ in range(num_steps):
        action = choose(env)
        after, reward, _, truncated, infos = env.step(action)
        assert truncated.all() or not truncated.any()
        yield observation, starts, reward, infos.get("episode_record")
        observation, starts = after, truncated.all()


def slow_row(steps, row, size):
    """Derive what a row's records must be from what it saw alone, step by step."""
    shown, number, expected = {}, {}, []
    last, ago, paid = -1, -1, 0.0
    for t, (observation, starts, reward, record) in enumerate(steps):
        name = observation["name"][row].tobytes()
        x, y, lit = observation["clue"][row]
        if starts:
            assert tuple(observation["position"][row]) == (-1, -1)
            assert bool(lit) == (name not in shown)
            ago, paid = (-1 if lit else t - shown[name][1]), 0.0
            last = number.setdefault(name, len(number))
        assert set(np.unique(observation["name"][row])) <= {-1, 1}
        if lit:
            shown[name] = ((x, y), t)
        else:
            assert (x, y) == (0, 0)
        paid += reward[row]
        if record is not None:
            goal = np.rint((np.array(shown[name][0]) + 1) * (size - 1) / 2).astype(int)
            expected.append((last, ago, paid > 0, int(goal.sum())))
            got = (record[k][row] for k in ("goal", "seen_ago", "success", "distance_start"))
            assert tuple(map(int, got)) == tuple(map(int, expected[-1]))
            assert record["return"][row] == paid
    return expected


def test_records_are_what_was_seen():
    rng = np.random.default_rng(0)
    env = RevisitsVectorEnv(3, size=4, horizon=7, longest=40)
    steps = list(play(env, 7 * 150, lambda env: rng.integers(0, 5, env.num_envs)))
    for row in range(3):
        expected = slow_row(steps, row, 4)
        rooms, ago, success, _ = map(list, zip(*expected, strict=True))
        assert max(map(rooms.count, rooms)) == 2
        assert 0 < sum(success) < len(success)
        assert {(a - 1) % 7 for a in ago if a > 0} == {0}
        assert (np.array(ago) > 0).mean() == pytest.approx(0.45, abs=0.1)


def test_rooms_are_entered_when_they_are_due():
    visits = Visits(np.random.default_rng(1), 25, longest=4096)
    num_episodes = 30_000
    visits.at(num_episodes - 1)
    room, shown = np.array(visits.room_of), np.array(visits.shown_in)
    assert np.bincount(room).max() == 2
    lag = np.arange(num_episodes) - shown[room]
    assert lag.max() <= 4096 + 5
    # Rooms that wait for the same episode make each other late, so the shortest lags are fewer.
    whole = shown < num_episodes - 5000
    octaves = np.histogram(lag[whole[room]], 2.0 ** np.arange(3, 12))[0]
    assert octaves / whole.sum() == pytest.approx(np.log(2) / np.log(4097), abs=0.01)
    # Rooms that are not entered again are those that were not due yet.
    once = np.flatnonzero(np.bincount(room) == 1)
    assert min(shown[once]) > num_episodes - 4096 - 5


def test_what_a_trial_is_does_not_depend_on_how_it_was_reached():
    whole = Visits(np.random.default_rng(2), 25, 64)
    whole.at(199)
    piecewise = Visits(np.random.default_rng(2), 25, 64)
    assert [piecewise.at(e) for e in (*range(0, 200, 3),)] == whole.room_of[::3]
    assert vars(piecewise)["name_of"] == whole.name_of[: len(piecewise.name_of)]


def test_the_oracle_finds_all_and_one_without_memory_what_is_on_its_way():
    size, horizon = 5, 8
    success = {}
    for kind in ("full", "memory", "episode"):
        env = RevisitsVectorEnv(16, split="val", longest=64)
        steps = play(env, horizon * 100, lambda env, kind=kind: env.expert_actions(kind))
        ended = [record for *_, record in steps if record is not None]
        dark = np.concatenate([r["seen_ago"] >= 0 for r in ended])
        found = np.concatenate([r["success"] for r in ended])
        success[kind] = found[~dark].mean(), found[dark].mean()
    assert success["full"] == success["memory"] == (1, 1)
    # Eight of twenty-four cells lie on the way.
    assert success["episode"] == (1, pytest.approx(horizon / (size**2 - 1), abs=0.05))


def test_splits_have_rooms_of_their_own():
    names = []
    for split in ("train", "val", "test"):
        env = RevisitsVectorEnv(20, split=split)
        observation, _ = env.reset(options={"trial": np.arange(20)})
        names += [name.tobytes() for name in observation["name"]]
    assert len(set(names)) == 60


def test_contract():
    check_trial_env(RevisitsVectorEnv(3), make=RevisitsVectorEnv)


def test_a_saved_row_goes_on():
    env, other = (RevisitsVectorEnv(4, longest=32) for _ in range(2))
    for _ in play(env, 8 * 20 + 3, lambda env: env.expert_actions("episode")):
        pass
    other.load_state_dict(env.state_dict())
    for _ in range(40):
        (a, *_), (b, *_) = (e.step(e.expert_actions("memory")) for e in (env, other))
        assert all(np.array_equal(a[k], b[k]) for k in a)


def test_gymnasium_accepts_the_single_environment():
    check_env(RevisitsEnv(), skip_render_check=True)
    env = gymnasium.make("relic/Revisits-v0", split="val", longest=8)
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"split must be one of .*'tets'.*Did you mean 'test'"):
        RevisitsVectorEnv(2, split="tets")
    with pytest.raises(ValueError, match="horizon must be at least 8, got 7"):
        RevisitsVectorEnv(2, horizon=7)
    with pytest.raises(ValueError, match="longest must be at least 1, got 0"):
        RevisitsVectorEnv(2, longest=0)
    with pytest.raises(ValueError, match="Did you mean 'longest'"):
        RevisitsVectorEnv(2, longes=3)
