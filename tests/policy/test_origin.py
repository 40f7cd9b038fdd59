"""A policy that was loaded builds the environment that it was trained in."""

import shutil

import pytest
import torch

from relic.policy import load
from relic.policy.policy import Policy
from relic.shipped import PRETRAINED


@pytest.mark.parametrize("name", ["darkroom", "houses_small"])
def test_a_shipped_policy_acts_in_its_own_environment(name):
    policy = load(PRETRAINED / name)
    env = policy.make_env(3, seed=5)
    try:
        observation, _ = env.reset()
        state = policy.initial_state(num_envs=3, capacity=8)
        for _ in range(4):
            step = policy.step(observation, state)
            observation, reward, *_ = env.step(policy.to_environment(step.action).numpy())
            assert reward.shape == (3,)
            assert torch.isfinite(step.value).all()
    finally:
        env.close()


def test_its_options_are_those_of_training_unless_they_are_changed():
    policy = load(PRETRAINED / "darkroom")
    trained, other = policy.make_env(2), policy.make_env(2, split="test")
    assert trained.dataset_name.endswith("train")
    assert other.dataset_name.endswith("test")
    assert trained.max_episode_steps == policy.max_episode_steps


def test_a_change_that_the_policy_cannot_act_in_is_refused():
    policy = load(PRETRAINED / "darkroom")
    with pytest.raises(ValueError, match=r"make_env: options: must keep .* 100 steps.*got 101"):
        policy.make_env(1, horizon=101)
    with pytest.raises(ValueError, match="Did you mean 'horizon'"):
        policy.make_env(1, horizn=50)


def test_without_its_run_there_is_no_environment(tmp_path):
    for file in ("policy.json", "policy.safetensors"):
        shutil.copy(PRETRAINED / "darkroom" / file, tmp_path)
    policy = load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.yaml of its run"):
        policy.make_env(1)
    built = Policy(
        policy.config,
        policy.observation_space,
        policy.action_space,
        max_episode_steps=policy.max_episode_steps,
    )
    with pytest.raises(ValueError, match="loaded from a run"):
        built.make_env(1)


def test_an_observation_that_an_option_shows_is_advised_by_it():
    policy = load(PRETRAINED / "houses_small")
    with pytest.raises(ValueError, match=r"show compass as .*, got nothing\. Set options\.compass"):
        policy.make_env(1, compass=False)
