"""The checker on episodes that end at once: bandits, and tasks that random actions end early."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs import TrialEnvError, check_trial_env
from envs.core.trials import EpisodeTrials, by_method
from tests.envs.core.toy import ToyVectorEnv


class Bandit(gymnasium.Env):
    """One pull an episode; nothing to see but the last reward."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    limit = 1

    def set_task(self, trial):
        self.best = trial % 3

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.pulls = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.pulls += 1
        reward = float(action == self.best)
        return np.array([reward], np.float32), reward, self.pulls >= self.limit, False, {}


def bandit(num_envs=3, *, limit=1, **kwargs):
    class Limited(Bandit):
        pass

    Limited.limit = limit
    return EpisodeTrials(
        Limited,
        num_envs,
        dataset_name="bandit-v1",
        start=by_method(lambda env, trial: env.unwrapped.set_task(trial)),
        expert=lambda env: env.unwrapped.best,
        max_episode_steps=5,
        **kwargs,
    )


class OneStep(ToyVectorEnv):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, max_episode_steps=1, **kwargs)


class OftenAtOnce(ToyVectorEnv):
    """Most actions end the episode."""

    def advance(self, actions):
        reward, _, truncated = super().advance(actions)
        return reward, actions != 0, truncated


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_bandits_pass(limit):
    def make(**kwargs):
        return bandit(limit=limit, **kwargs)

    check_trial_env(make(num_envs=3), make=make)


@pytest.mark.parametrize("env_class", [OneStep, OftenAtOnce])
def test_arrays_of_short_episodes_pass(env_class):
    check_trial_env(env_class(3), make=env_class)


class StartDependsOnPast(OneStep):
    def begin_episodes(self, rows):
        past = self.value[rows].copy()
        super().begin_episodes(rows)
        self.value[rows] += np.where(self.episode[rows] > 0, past % 7, 0)


class RowNumberMatters(OneStep):
    def begin_episodes(self, rows):
        super().begin_episodes(rows)
        self.value[rows] += rows


class IgnoresMask(OneStep):
    def reset(self, *, seed=None, options=None):
        options = dict(options or {})
        if options.pop("reset_mask", None) is not None:
            return super().reset(options={"reset_mask": np.ones(self.num_envs, bool)})
        return super().reset(seed=seed, options=options)


class ForgetsEpisode(OneStep):
    def load_rows(self, state):
        super().load_rows(state)
        self._episode[:] = 0


@pytest.mark.parametrize(
    ("env_class", "message"),
    [
        (StartDependsOnPast, "autoreset: the observation after an episode's end is not the first"),
        (RowNumberMatters, "rows with the same trial and actions are not equal"),
        (IgnoresMask, "options['reset_mask'] changed"),
        (ForgetsEpisode, "does not give back the state"),
    ],
)
def test_broken_short_episodes_are_named(env_class, message):
    with pytest.raises(TrialEnvError) as caught:
        check_trial_env(env_class(3), make=env_class)
    assert any(message in finding for finding in caught.value.findings), caught.value.findings
