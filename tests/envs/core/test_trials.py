import copy
import re

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs import TrialEnvError, check_trial_env
from envs.core.trials import EpisodeTrials, by_method, by_option, by_seed, episode_seed
from envs.darkroom import DarkroomEnv, DarkroomVectorEnv

MOVES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))


class PlainDarkroom(gymnasium.Env):
    """Darkroom as a user would write it: one room, the goal handed to `reset`."""

    def __init__(self, goals):
        self.goals = goals
        self.action_space = spaces.Discrete(5)
        self.observation_space = spaces.Dict(
            {
                "position": spaces.Box(-1.0, 1.0, (2,), np.float32),
                "prev_reward": spaces.Box(0.0, 1.0, (1,), np.float32),
            }
        )

    def look(self, reward):
        position = np.array([self.x / 4.5 - 1, self.y / 4.5 - 1], np.float32)
        return {"position": position, "prev_reward": np.array([reward], np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = divmod(int(self.goals[options["goal"]]), 10)
        self.x = self.y = 0
        self.found = False
        return self.look(0.0), {}

    def step(self, action):
        self.x = min(max(self.x + MOVES[action][0], 0), 9)
        self.y = min(max(self.y + MOVES[action][1], 0), 9)
        reward = float((self.x, self.y) == self.goal)
        self.found |= reward > 0
        return self.look(reward), reward, False, False, {"success": self.found}


def wrapped_darkroom(num_envs=3, *, record=("success",), **kwargs):
    native = DarkroomVectorEnv(1)
    return EpisodeTrials(
        lambda: PlainDarkroom(native.goals),
        num_envs,
        dataset_name="plain-darkroom-v1",
        start=by_option("goal"),
        num_trials=len(native.goals),
        max_episode_steps=100,
        record=record,
        fixed_horizon=True,
        time_limit_default="terminal",
        **kwargs,
    )


def test_darkroom_through_the_wrapper_equals_the_native_one():
    ours, native = wrapped_darkroom(seed=3), DarkroomVectorEnv(3, seed=3)
    got, want = ours.reset(), native.reset()
    rng = np.random.default_rng(0)
    for step in range(310):
        assert np.array_equal(ours.trial, native.trial)
        for name in want[0]:
            assert np.array_equal(got[0][name], want[0][name])
        for a, b in zip(got[1:4], want[1:4], strict=False):
            assert np.array_equal(a, b)
        actions = np.where(rng.random(3) < 0.5, native.expert_actions(), rng.integers(5, size=3))
        if step == 150:
            options = {"new_trial": np.array([True, False, True])}
            ours.reset(options=options)
            native.reset(options=options)
        got, want = ours.step(actions), native.step(actions)
        if "episode_record" in want[-1]:
            for key, value in got[-1]["episode_record"].items():
                assert np.array_equal(value, want[-1]["episode_record"][key])
            for a, b in zip(got[-1]["final_obs"], want[-1]["final_obs"], strict=True):
                assert (a is None) == (b is None)
                assert a is None or all(np.array_equal(a[k], b[k]) for k in b)
    assert native.episode.max() >= 2


def test_wrapped_environments_keep_the_contract():
    check_trial_env(wrapped_darkroom(), make=wrapped_darkroom)


def cartpole(num_envs=2, **kwargs):
    return EpisodeTrials(
        lambda: gymnasium.make("CartPole-v1", max_episode_steps=40),
        num_envs,
        dataset_name="cartpole",
        **kwargs,
    )


def test_gymnasiums_own_environments_become_trials():
    env = cartpole()
    assert env.max_episode_steps == 40
    assert list(env.single_observation_space) == ["observation"]
    check_trial_env(env, make=cartpole)


def test_by_seed_makes_all_episodes_of_a_trial_alike():
    env = cartpole(start=by_seed)
    first, _ = env.reset(options={"trial": np.array([4, 9])})
    second, _ = env.reset()
    assert np.array_equal(first["observation"], second["observation"])
    assert not np.array_equal(first["observation"][0], first["observation"][1])
    plain = gymnasium.make("CartPole-v1")
    assert np.array_equal(first["observation"][1], plain.reset(seed=9)[0])


class Bandit(gymnasium.Env):
    """The task is set by a call; the noise by the seed."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)

    def set_task(self, trial):
        self.best = trial % 3

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.random(1, dtype=np.float32), {}

    def step(self, action):
        noise = self.np_random.random(1, dtype=np.float32)
        return noise, float(action == self.best), False, False, {}


def bandit(num_envs=3, **kwargs):
    options = {
        "dataset_name": "bandit-v1",
        "start": by_method(lambda env, trial: env.unwrapped.set_task(trial)),
        "expert": lambda env: env.unwrapped.best,
        "max_episode_steps": 6,
        **kwargs,
    }
    return EpisodeTrials(Bandit, num_envs, **options)


def test_by_method_fixes_the_task_and_nothing_else():
    check_trial_env(bandit(), make=bandit)
    env = bandit()
    first, _ = env.reset(options={"trial": np.arange(3)})
    for _ in range(6):
        _, reward, *_ = env.step(env.expert_actions())
        assert np.array_equal(reward, np.ones(3))
    assert env.expert_actions().tolist() == [0, 1, 2]
    second, _ = env.reset()
    assert not np.array_equal(first["observation"], second["observation"])
    assert episode_seed(1, 0) != episode_seed(1, 1) != episode_seed(0, 1)


def test_splits_are_ranges_of_trials():
    train = bandit(first_trial=0, num_trials=10)
    test = bandit(first_trial=10, num_trials=5)
    for env, low, high in ((train, 0, 10), (test, 10, 15)):
        for seed in range(10):
            env.reset(seed=seed)
            assert all(low <= env.task(row) < high for row in range(3))
    assert train.dataset_name == "bandit-v1/0+10"


def test_trials_are_shared_where_ranges_of_the_same_tasks_overlap():
    trained = bandit(first_trial=0, num_trials=10)
    measured = bandit(first_trial=5, num_trials=10)
    tasks = [measured.first_trial + t for t in range(10)]
    assert measured.shared_trials(trained, range(10)) == [t for t in range(10) if tasks[t] < 10]
    assert trained.shared_trials(measured, [0, 4, 5, 9, 15]) == [5, 9, 15]
    assert bandit(first_trial=10, num_trials=5).shared_trials(trained, range(5)) == []
    other = wrapped_darkroom()
    assert other.shared_trials(trained, range(5)) == []


def test_replay_restores_a_state_and_notices_if_it_cannot():
    class Unseeded(Bandit):
        noise = np.random.default_rng(0)

        def step(self, action):
            observation, *rest = super().step(action)
            return (observation + self.noise.random(1, np.float32)) % 1, *rest

    env, restored = bandit(), bandit()
    env.reset()
    for _ in range(4):
        env.step(np.array([0, 1, 2]))
    restored.load_state_dict(copy.deepcopy(env.state_dict()))
    assert np.array_equal(restored.observe()["observation"], env.observe()["observation"])

    broken = EpisodeTrials(
        Unseeded,
        2,
        dataset_name="unseeded",
        start=by_method(lambda env, trial: env.set_task(trial)),
        max_episode_steps=6,
    )
    broken.reset()
    broken.step(np.array([0, 0]))
    with pytest.raises(ValueError, match=r"row 0, .*the same actions must lead to what was seen"):
        broken.load_state_dict(broken.state_dict())
    with pytest.raises(TrialEnvError, match="two runs with the same seed"):
        check_trial_env(broken)


def test_record_entries_come_from_the_last_info():
    env = wrapped_darkroom(2)
    env.reset(options={"trial": np.array([0, 1])})
    for _ in range(100):
        infos = env.step(np.zeros(2, dtype=int))[-1]
    assert infos["episode_record"]["success"].tolist() == [0.0, 0.0]
    env = bandit(record=["absent"])
    env.reset()
    for _ in range(6):
        infos = env.step(np.zeros(3, dtype=int))[-1]
    assert np.isnan(infos["episode_record"]["absent"]).all()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="max_episode_steps must be given"):
        EpisodeTrials(Bandit, 1, dataset_name="x")
    env = Bandit()
    env.observation_space = spaces.Tuple([spaces.Discrete(2)])
    with pytest.raises(TypeError, match="FlattenObservation"):
        EpisodeTrials(lambda: env, 1, dataset_name="x", max_episode_steps=2)
    fresh = cartpole()
    fresh.reset()
    with pytest.raises(NotImplementedError, match="no expert"):
        fresh.expert_actions()
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        bandit(0)
    with pytest.raises(ValueError, match="max_episode_steps must be at least 1, got 0"):
        cartpole(max_episode_steps=0)
    with pytest.raises(ValueError, match="first_trial must be at least 0, got -1"):
        bandit(first_trial=-1)
    with pytest.raises(TypeError, match=r"record must be a list of names.*Use \['success'\]"):
        bandit(record="success")


class Missions(gymnasium.Env):
    """Shows a text beside what an agent can see, as MiniGrid does."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (7, 7, 3), np.uint8), "mission": spaces.Text(20)}
    )

    def reset(self, *, seed=None, options=None):
        return {"image": np.zeros((7, 7, 3), np.uint8), "mission": "go"}, {}


def test_the_advice_on_texts_works():
    def make(wrap=lambda env: env):
        return EpisodeTrials(lambda: wrap(Missions()), dataset_name="x", max_episode_steps=2)

    with pytest.raises(TypeError, match=r"'mission'.*got Text. Leave it out: (.*)\.$") as refused:
        make()
    (advice,) = re.findall(r"Leave it out: (.*)\.$", str(refused.value))
    env = make(lambda env: eval(advice, {"gymnasium": gymnasium, "env": env}))
    assert list(env.reset()[0]) == ["image"]
    bare = Missions()
    bare.observation_space = spaces.Text(20)
    with pytest.raises(TypeError, match=r"got Text. Turn it into numbers, by .*Transform"):
        EpisodeTrials(lambda: bare, dataset_name="x", max_episode_steps=2)


def test_close_closes_the_copies():
    class Closes(Bandit):
        closed = 0

        def close(self):
            Closes.closed += 1

    env = EpisodeTrials(Closes, 3, dataset_name="x", max_episode_steps=2)
    env.close()
    env.close()
    assert Closes.closed == 3


def test_single_darkroom_is_a_gymnasium_environment_that_can_be_wrapped():
    env = EpisodeTrials(
        DarkroomEnv,
        2,
        dataset_name="again",
        start=by_option("trial"),
        max_episode_steps=100,
        expert=lambda env: env.unwrapped.expert_actions(),
    )
    env.reset()
    for _ in range(100):
        infos = env.step(env.expert_actions())[-1]
    assert infos["episode_record"]["return"].min() > 80


def test_a_name_to_record_that_no_info_holds_is_found():
    with pytest.raises(TrialEnvError, match=r"record: 'found' was in .* no episode.*\['success'\]"):
        check_trial_env(wrapped_darkroom(record=["found", "success"]))


def test_what_an_environment_raises_says_in_which_row_and_trial():
    env = wrapped_darkroom(2)
    env.reset(options={"trial": np.array([4, 7])})
    env.envs[1].step = lambda action: 1 / 0
    with pytest.raises(ZeroDivisionError) as caught:
        env.step(np.array([1, 1]))
    assert caught.value.__notes__ == [
        f"EpisodeTrials {env.dataset_name}, row 1, trial 7, episode 0"
    ]
