import copy

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.core.draws import draw_trials, keyed_generator
from envs.core.validation import ClosedError, EpisodeEndedError, StepBeforeResetError
from envs.darkroom import DarkroomEnv, DarkroomVectorEnv
from tests.envs.core.toy import ToyEnv, ToyVectorEnv

PINNED_TRIALS = [433, 432, 915, 420]  # by the same formula on Python integers
PAIRS = [(ToyVectorEnv, ToyEnv), (DarkroomVectorEnv, DarkroomEnv)]


def assert_equal(got, want, path="result"):
    """Compare nested results; dtypes of infos must agree too."""
    if isinstance(want, dict):
        assert set(got) == set(want), path
        for key in want:
            assert_equal(got[key], want[key], f"{path}[{key!r}]")
    elif isinstance(want, tuple) or (isinstance(want, np.ndarray) and want.dtype == object):
        assert type(got) is type(want), path
        for a, b in zip(got, want, strict=True):
            assert_equal(a, b, path)
    elif want is None:
        assert got is None, path
    else:
        assert np.asarray(got).dtype == np.asarray(want).dtype, path
        np.testing.assert_array_equal(got, want, err_msg=path)


@pytest.mark.parametrize(("vector_class", "single_class"), PAIRS)
def test_equals_gymnasiums_own_vector_env_in_same_step_mode(vector_class, single_class):
    ours = vector_class(4, seed=5)
    theirs = SyncVectorEnv(
        [lambda i=i: single_class(seed=5, first_row=i) for i in range(4)],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert_equal(ours.reset(), theirs.reset())
    rng = np.random.default_rng(0)
    num_ended = 0
    for _ in range(230):
        actions = rng.integers(4, size=4)
        got, want = list(ours.step(actions)), list(theirs.step(actions))
        infos = got.pop()
        num_ended += int(infos.pop("_episode_record", np.zeros(4)).sum())
        top = infos.pop("episode_record", {})
        want_infos = want.pop()
        assert_equal(infos, want_infos)
        for key, value in top.items():  # ours is also at the top, without Gymnasium's masks
            assert_equal(value, want_infos["final_info"]["episode_record"][key])
        assert want[1].dtype == np.float64  # Gymnasium's choice; ours is float32
        want[1] = want[1].astype(np.float32)
        for a, b in zip(got, want, strict=True):
            assert_equal(a, b)
    assert num_ended >= 8


def test_rows_keep_their_trials_across_episodes_and_resets():
    env = ToyVectorEnv(3, seed=1)
    env.reset()
    trials = env.trial
    assert len(set(trials.tolist())) == 3
    for _ in range(60):
        env.step(np.array([0, 1, 2]))
    assert env.episode.min() >= 1
    assert np.array_equal(env.trial, trials)
    episodes = env.episode
    env.reset()
    assert np.array_equal(env.trial, trials)
    assert np.array_equal(env.episode, episodes + 1)
    assert np.array_equal(env.elapsed_steps, np.zeros(3))


def test_first_reset_and_seed_begin_new_trials_everywhere():
    env = ToyVectorEnv(3, seed=4)
    env.reset()
    first = env.trial
    env.reset(options={"new_trial": np.ones(3, dtype=bool)})
    assert not np.array_equal(env.trial, first)
    env.reset(seed=4)
    assert np.array_equal(env.trial, first)
    env.reset(seed=5)
    assert not np.array_equal(env.trial, first)
    assert np.array_equal(env.episode, np.zeros(3))


def test_masks_move_only_their_rows():
    env = ToyVectorEnv(4, seed=0)
    env.reset(options={"trial": np.array([5, 6, 7, 8])})
    before = env.step(np.array([0, 0, 0, 0]))[0]
    options = {
        "reset_mask": np.array([True, True, False, False]),
        "new_trial": np.array([False, True, True, False]),
        "trial": np.array([90, 91, 92, 93]),
    }
    given = copy.deepcopy(options)
    after, infos = env.reset(options=options)
    assert infos == {}
    assert options.keys() == given.keys()
    assert env.trial.tolist() == [5, 91, 92, 8]
    assert env.episode.tolist() == [1, 0, 0, 0]
    assert env.elapsed_steps.tolist() == [0, 0, 0, 1]
    for name in after:
        assert np.array_equal(after[name][3], before[name][3])
    env.reset(options={"reset_mask": np.zeros(4, dtype=bool)})
    assert env.episode.tolist() == [1, 0, 0, 0]


def test_naming_a_trial_draws_no_number():
    one, other = ToyVectorEnv(2, seed=0), ToyVectorEnv(2, seed=0)
    one.reset()
    other.reset(options={"trial": np.array([3, 4])})
    assert other.trial.tolist() == [3, 4]
    other.reset(options={"new_trial": np.ones(2, dtype=bool)})
    assert np.array_equal(other.trial, one.trial)


def test_rows_are_numbered_globally():
    whole, part = ToyVectorEnv(6, seed=9), ToyVectorEnv(2, seed=9, first_row=4)
    for env in (whole, part):
        env.reset()
        env.reset(options={"new_trial": np.ones(env.num_envs, dtype=bool)})
    assert np.array_equal(whole.trial[4:], part.trial)


def test_records_at_episode_ends_only():
    env = ToyVectorEnv(3, seed=2)
    env.reset()
    length, total, index = np.zeros(3, int), np.zeros(3), np.zeros(3, int)
    num_ended = 0
    for action in np.random.default_rng(1).integers(4, size=(80, 3)):
        _, reward, terminated, truncated, infos = env.step(action)
        length += 1
        total += reward
        ended = terminated | truncated
        assert not (terminated & truncated).any()
        assert ("episode_record" in infos) == ended.any()
        if ended.any():
            record = infos["episode_record"]
            assert np.array_equal(infos["_episode_record"], ended)
            assert np.array_equal(record["length"], np.where(ended, length, 0))
            assert np.array_equal(record["episode"], np.where(ended, index, 0))
            np.testing.assert_allclose(record["return"], np.where(ended, total, 0), rtol=1e-6)
            assert np.array_equal(record["trial"][ended], env.trial[ended])
            assert record["success"].dtype == np.bool_
            assert record["start"].dtype == np.int64
        index += ended
        num_ended += int(ended.sum())
        length[ended], total[ended] = 0, 0.0
    assert num_ended > 5


def test_time_limit_truncates():
    env = ToyVectorEnv(2, max_episode_steps=3)
    env.reset(options={"trial": np.array([0, 0])})
    other_action = (env.expert_actions() + 1) % 4
    for step in range(3):
        *_, terminated, truncated, _ = env.step(other_action)
        assert not terminated.any()
        assert truncated.all() == (step == 2)


@settings(max_examples=20, deadline=None)
@given(
    cut=st.integers(0, 30), seed=st.integers(0, 99), continuous=st.booleans(), drawn=st.booleans()
)
def test_restored_environment_continues_bit_for_bit(cut, seed, continuous, drawn):
    env = ToyVectorEnv(3, seed=seed, continuous=continuous)
    env.reset()
    env.action_space.seed(seed)
    for _ in range(cut):
        env.step(env.action_space.sample())
    if drawn:
        env.reset(options={"new_trial": np.array([True, False, True])})
    state = env.state_dict()
    restored = ToyVectorEnv(3, seed=0, continuous=continuous)
    restored.load_state_dict(copy.deepcopy(state))
    assert_equal(restored.observe(), env.observe())
    for _ in range(25):
        actions = env.action_space.sample()
        for got, want in zip(restored.step(actions), env.step(actions), strict=True):
            assert_equal(got, want)
    everywhere = {"new_trial": np.ones(3, dtype=bool)}
    assert_equal(restored.reset(options=everywhere), env.reset(options=everywhere))
    assert np.array_equal(restored.trial, env.trial)


def test_state_of_another_environment_is_refused():
    env = ToyVectorEnv(2)
    env.reset()
    state = env.state_dict()
    with pytest.raises(ValueError, match=r"num_envs of the state must be 3, got 2"):
        ToyVectorEnv(3).load_state_dict(state)
    with pytest.raises(ValueError, match=r"dataset of the state must be 'toy-v2', got 'toy-v1'"):
        ToyVectorEnv(2, dataset_name="toy-v2").load_state_dict(state)
    with pytest.raises(ValueError, match="class of the state"):
        DarkroomVectorEnv(2).load_state_dict(state)
    with pytest.raises(ValueError, match="state_version"):
        ToyVectorEnv(2).load_state_dict({**state, "state_version": 0})


@pytest.mark.parametrize("missing", ["seed", "trial", "drawn", "env"])
def test_state_that_is_not_whole_is_refused_and_changes_nothing(missing):
    env = ToyVectorEnv(2)
    env.reset()
    state = env.state_dict()
    env.step(np.array([0, 1]))
    before = env.state_dict()
    with pytest.raises(ValueError, match=rf"state must hold .* but {missing} is missing"):
        env.load_state_dict({k: v for k, v in state.items() if k != missing})
    with pytest.raises(TypeError, match="state must be a dict"):
        env.load_state_dict([state])
    rows = {k: v for k, v in state["env"].items() if k != "value"}
    with pytest.raises(ValueError, match="state must hold value, start, but value is missing"):
        env.load_state_dict({**state, "env": rows})
    assert_equal(env.state_dict(), before)


def test_arrays_are_fresh_or_take_turns():
    fresh, turns = ToyVectorEnv(2), ToyVectorEnv(2, copy=False)
    for env in (fresh, turns):
        env.reset()
    got = [fresh.step(np.array([1, 2]))[0] for _ in range(3)]
    assert not any(np.shares_memory(got[0]["image"], o["image"]) for o in got[1:])
    got = [turns.step(np.array([1, 2]))[0] for _ in range(3)]
    assert not np.shares_memory(got[0]["image"], got[1]["image"])
    assert np.shares_memory(got[0]["image"], got[2]["image"])
    trial = fresh.trial
    trial[:] = 0
    assert fresh.trial.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"new_trail": np.ones(3, bool)}, r"'new_trail'. Did you mean 'new_trial'"),
        ({"new_trial": np.ones(2, bool)}, r"new_trial.*shape \(3,\).*got \(2,\)"),
        ({"reset_mask": np.ones(3, int)}, r"reset_mask.*bool, got int64"),
        ({"reset_mask": [True, True, True]}, r"reset_mask.*numpy array of bool, got list"),
        ({"trial": np.ones(3)}, r"trial.*integers, got float64"),
        ({"trial": np.array([1, 2])}, r"trial.*shape \(3,\).*got \(2,\)"),
        ({"trial": np.array([1, -2, 3])}, r"at least 0, got -2 in row 1"),
        (
            {"trial": np.arange(3), "reset_mask": np.ones(3, bool)},
            r"must come with options\['new_trial'\]",
        ),
    ],
)
def test_bad_reset_options_are_named(options, message):
    env = ToyVectorEnv(3)
    env.reset()
    trial = env.trial
    with pytest.raises((ValueError, TypeError), match=message):
        env.reset(options=options)
    assert np.array_equal(env.trial, trial)


def test_trial_numbers_are_checked_only_where_they_are_used():
    env = ToyVectorEnv(2)
    env.reset()
    env.reset(options={"new_trial": np.array([True, False]), "trial": np.array([4, -1])})
    assert env.trial[0] == 4


def test_first_reset_refuses_partial_masks():
    env = ToyVectorEnv(2)
    with pytest.raises(ValueError, match="must cover all rows"):
        env.reset(options={"new_trial": np.array([True, False])})
    env.reset(options={"new_trial": np.array([True, True]), "trial": np.array([1, 2])})
    assert env.trial.tolist() == [1, 2]
    with pytest.raises(ValueError, match="must cover all rows"):
        env.reset(seed=1, options={"reset_mask": np.array([True, False])})
    for seed in ([1, 2], 1.5, True):
        with pytest.raises(TypeError, match="one integer"):
            env.reset(seed=seed)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        env.reset(seed=-1)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([0, 4]), r"ToyVectorEnv.step: actions must lie in Discrete\(4\), got 4 in row 1"),
        (np.array([-1, 0]), r"got -1 in row 0"),
        (np.array([0, 1, 2]), r"shape \(2,\).*got \(3,\)"),
        (np.array([0.0, 1.0]), r"integers, got float64"),
        (np.array([[0], [1]]), r"shape \(2,\)"),
        ([[0], [1, 2]], "must be an array with one action a row"),
        (None, "integers, got object"),
    ],
)
def test_bad_actions_are_named(actions, message):
    env = ToyVectorEnv(2)
    env.reset()
    with pytest.raises((ValueError, TypeError), match=message):
        env.step(actions)


def test_vectors_outside_the_action_space_are_refused():
    env = ToyVectorEnv(2, continuous=True)
    env.reset()
    env.step(np.array([[0.5, -1.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="in row 1"):
        env.step(np.array([[0.5, -1.0], [1.0, np.nan]]))
    with pytest.raises(ValueError, match="in row 0"):
        env.step(np.array([[1.5, -1.0], [1.0, 0.0]]))


def test_calls_out_of_order_are_named():
    env = ToyVectorEnv(2)
    for call in (lambda: env.step(np.zeros(2, int)), env.state_dict, env.expert_actions):
        with pytest.raises(StepBeforeResetError, match=r"Call reset\(\)"):
            call()
    env.reset()
    env.close()
    with pytest.raises(ClosedError, match="open"):
        env.step(np.zeros(2, int))
    for call in (env.reset, env.state_dict, env.expert_actions):
        with pytest.raises(ClosedError, match="open"):
            call()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"num_envs": 2.0}, "num_envs must be an integer, got 2.0"),
        ({"first_row": -1}, "first_row must be at least 0"),
        ({"max_episode_steps": 0}, "max_episode_steps must be at least 1"),
        ({"seed": "x"}, "seed must be one integer"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ToyVectorEnv(**{"num_envs": 2, **kwargs})


def test_single_environment():
    check_env(ToyEnv(), skip_render_check=True)
    env = ToyEnv(seed=3)
    assert env.reset()[1] == {}
    trial = env.trial
    env.reset()
    assert env.trial == trial
    env.reset(options={"trial": 12})
    assert env.trial == 12
    state = env.state_dict()
    seen = []
    for _ in range(20):
        obs, reward, terminated, truncated, info = env.step(1)
        assert env.observation_space.contains(obs)
        assert type(reward) is float
        assert type(terminated) is bool
        seen.append((obs, reward, info))
        if terminated or truncated:
            break
        assert info == {}
    record = info["episode_record"]
    assert record["trial"] == 12
    assert record["length"] == len(seen)
    assert all(type(value) in (int, float, bool) for value in record.values())
    with pytest.raises(EpisodeEndedError, match=r"Call reset\(\)"):
        env.step(1)
    env.load_state_dict(state)
    for obs, reward, info in seen:
        again = env.step(1)
        assert_equal(again[0], obs)
        assert (again[1], again[4]) == (reward, info)
    env.reset(options={"new_trial": True})
    assert env.trial != 12
    env.reset(options={"new_trial": False, "trial": 12})
    assert env.trial != 12
    with pytest.raises(TypeError, match="must be True or False, got 'yes'"):
        env.reset(options={"new_trial": "yes"})
    with pytest.raises(ValueError, match="state must hold ended, vector, but ended is missing"):
        env.load_state_dict(env.vector.state_dict())
    with pytest.raises(ValueError, match="one row"):
        type(env).__bases__[0](ToyVectorEnv(2))


def test_draws_are_pinned_and_even():
    drawn = draw_trials(0, np.arange(4), count_N=np.array([0, 0, 1, 2]), num_trials=1000)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == PINNED_TRIALS
    rows, counts = np.divmod(np.arange(20_000), 200)
    drawn = draw_trials(1, rows, count_N=counts, num_trials=10)
    share = np.bincount(drawn, minlength=10) / len(drawn)
    assert np.abs(share - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / len(drawn))
    huge = draw_trials(1, rows, count_N=counts, num_trials=2**62)
    assert len(set(huge.tolist())) == len(huge)
    assert huge.min() >= 0


def test_keyed_generators_depend_on_keys_only():
    one = keyed_generator("houses", 3, 4).random(8)
    assert np.array_equal(one, keyed_generator("houses", 3, 4).random(8))
    for keys in (
        ("houses", 4, 3),
        ("house", 3, 4),
        ("houses", 3),
        ("houses", 3, 4, 0),
        ("houses", 3 + 2**34, 4),
    ):
        assert not np.array_equal(one, keyed_generator(*keys).random(8))
