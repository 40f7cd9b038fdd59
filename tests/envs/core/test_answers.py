"""What environments hand out is never bent in silence: not by the checker, not in training."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs import TrialEnvError, check_trial_env
from envs.core.answers import AnswerError
from envs.core.process_env import ProcessVectorEnv, to_space
from envs.core.trials import EpisodeTrials
from tests.envs.core.toy import ToyVectorEnv

UNIT = spaces.Box(0.0, 1.0, (2,), np.float32)


class Answers(gymnasium.Env):
    """Shows and says what it is told to, from its third step on."""

    action_space = spaces.Discrete(3)

    def __init__(self, space, good, bad, **said):
        self.observation_space, self.good, self.bad = space, good, bad
        self.said = {"reward": 0.5, "terminated": False, "truncated": False, "info": {}} | said

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.good, {}

    def step(self, action):
        self.steps += 1
        if self.steps < 3:
            return self.good, 0.5, False, False, {}
        return self.bad, *self.said.values()


def trials(env_maker, num_envs=2, **kwargs):
    return EpisodeTrials(env_maker, num_envs, dataset_name="answers", max_episode_steps=8, **kwargs)


def step(env, times):
    """Return what the last of some steps gave."""
    for _ in range(times):
        result = env.step(np.zeros(2, int))
    return result


def test_what_fits_is_taken_as_it_is():
    shown = [1, 0.25]  # a list, of two kinds of numbers
    env = trials(
        lambda: Answers(UNIT, np.zeros(2), shown, reward=np.float64(1), terminated=np.True_)
    )
    env.reset(seed=0)
    result = step(env, 3)
    assert result[-1]["final_obs"][0]["observation"].tolist() == shown
    assert result[1].tolist() == [1.0, 1.0]
    assert result[2].all()


BENT = {
    "shape": (spaces.Box(0, 1, (5,), np.float32), np.zeros(5), np.zeros(1), "shape (5,)"),
    "scalar": (spaces.Discrete(4), 1, np.array([1]), r"shape ()"),
    "wrapped": (spaces.Box(0, 255, (2,), np.uint8), [0, 0], [300, 0], "fit into uint8"),
    "fraction": (spaces.Box(0, 255, (2,), np.uint8), [0, 0], [30.7, 0.0], "hold uint8"),
    "text": (UNIT, [0, 0], ["0", "1"], "hold float32"),
    "ragged": (UNIT, [0, 0], [[0], [1, 2]], "array of shape (2,)"),
    "above": (UNIT, [0, 0], [0.0, 1.5], "got 1.5"),
    "uneven": (spaces.Box(np.array([0, 2.0]), np.array([1, 3.0])), [0, 2], [0, 1], "got 1"),
    "category": (spaces.Discrete(4), 1, 4, "Discrete(4), got 4"),
    "categories": (spaces.MultiDiscrete([3, 3]), [0, 0], [3, 0], "got 3"),
    "binary": (spaces.MultiBinary(2), [0, 1], [0, 2], "got 2"),
    "keys": (spaces.Dict({"a": UNIT}), {"a": [0, 0]}, {"b": [0, 0]}, "keys ['a']"),
    "more keys": (spaces.Dict({"a": UNIT}), {"a": [0, 0]}, {"a": [0, 0], "b": 1}, "keys ['a']"),
    "no dict": (spaces.Dict({"a": UNIT}), {"a": [0, 0]}, [0, 0], "must be a dict"),
}


@pytest.mark.parametrize(("space", "good", "bad", "message"), BENT.values(), ids=list(BENT))
def test_observations_are_not_bent(space, good, bad, message):
    env = trials(lambda: Answers(space, good, bad))
    with pytest.raises(TrialEnvError) as caught:
        check_trial_env(env)
    assert any(message in finding for finding in caught.value.findings), caught.value.findings
    env.reset(seed=0)  # in training, without the checker
    with pytest.raises(AnswerError) as raised:
        step(env, 3)
    assert message in str(raised.value)
    assert "EpisodeTrials answers/0+1048576, row 0, trial" in str(raised.value)
    key = "observation['" if "a" not in getattr(space, "spaces", {}) else "observation"
    assert key in str(raised.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"terminated": "no"}, "terminated must be True or False, got 'no'"),
        ({"truncated": None}, "truncated must be True or False, got None"),
        ({"reward": "0.5"}, "reward must be one number, got '0.5'"),
        ({"reward": np.ones(1)}, "reward must be one number"),
        ({"reward": float("nan")}, "reward must be finite and at most 1e+12 in size, got nan"),
        ({"reward": 1e39}, "reward must be finite and at most 1e+12 in size, got inf"),
        ({"info": None}, "info must be a dict, got NoneType"),
        ({"more": 1}, "step() must return (observation, reward"),
    ],
)
def test_outcomes_are_not_bent(said, message):
    env = trials(lambda: Answers(UNIT, [0, 0], [0, 0], **said))
    with pytest.raises(TrialEnvError) as caught:
        check_trial_env(env)
    assert any(message in finding for finding in caught.value.findings), caught.value.findings


def test_starts_and_records_and_experts_are_not_bent():
    env = trials(lambda: Answers(UNIT, [0, 0], [0, 0]), start=lambda env, *_: env.reset()[0])
    with pytest.raises(AnswerError, match=r"reset\(\) must return \(observation, info\)"):
        env.reset()
    env = trials(
        lambda: Answers(UNIT, [0, 0], [0, 0], terminated=True, info={"success": "yes"}),
        record=["success"],
        expert=lambda env: 1.7,
    )
    env.reset()
    with pytest.raises(TypeError, match="actions must be integers, got float64"):
        env.expert_actions()
    with pytest.raises(AnswerError, match=r"info\['success'\] must be one number.*got 'yes'"):
        step(env, 3)


class WritesFractions(ToyVectorEnv):
    def observe_rows(self, rows, out):
        super().observe_rows(rows, out)
        out["image"][...] = 30.7


class WritesTooMuch(ToyVectorEnv):
    def observe_rows(self, rows, out):
        super().observe_rows(rows, out)
        view = out["image"][:, 0]
        view[:] = 300 + 0 * view.astype(np.int64)


@pytest.mark.parametrize(
    ("env_class", "message"),
    [
        (WritesFractions, "observe_rows: observation['image'] must hold uint8"),
        (WritesTooMuch, "observe_rows: observation['image'] must fit into uint8"),
    ],
)
def test_what_vectorised_environments_write_is_watched(env_class, message):
    env = env_class(3)
    with pytest.raises(TrialEnvError) as caught:
        check_trial_env(env, make=env_class)
    assert any(message in finding for finding in caught.value.findings), caught.value.findings
    assert "observe_rows" not in vars(env)


class Categories(ToyVectorEnv):
    """Its last category leaves its space in the second row after a few steps."""

    def __init__(self, num_envs, space):
        super().__init__(num_envs)
        parts = spaces.Dict({**self.single_observation_space.spaces, "goal": space})
        super(ToyVectorEnv, self).__init__(
            num_envs,
            parts,
            single_action_space=self.single_action_space,
            dataset_name="categories-v1",
            num_trials=9,
            max_episode_steps=20,
        )

    def observe_rows(self, rows, out):
        everything = np.arange(self.num_envs)
        wrong = (self.elapsed_steps > 3) & (everything == 1)
        rows = everything if rows is None else rows
        out["image"][rows], out["position"][rows] = 0, 0.0
        out["goal"][rows] = 0
        out["goal"].reshape(self.num_envs, -1)[rows, -1] = 4 * wrong[rows]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4),
        spaces.MultiDiscrete([6, 4]),
        spaces.MultiBinary(2),
        spaces.Box(0, 3, (5, 5), np.uint8),  # class numbers of a picture
        spaces.Box(np.array([0, 0]), np.array([9, 3]), dtype=np.int64),
    ],
)
def test_training_names_the_key_of_a_category_outside_its_space(space):
    env = Categories(2, space)
    env.reset(seed=0)
    with pytest.raises(AnswerError, match=r"Categories: observation\['goal'\] .*in row 1"):
        step(env, 8)


class BadFlags(ToyVectorEnv):
    def advance(self, actions):
        reward, terminated, truncated = super().advance(actions)
        return reward, np.where(terminated, "yes", "no"), truncated


class OneReward(ToyVectorEnv):
    def advance(self, actions):
        reward, terminated, truncated = super().advance(actions)
        return reward[:1], terminated, truncated


class OneOfEach(ToyVectorEnv):
    def advance(self, actions):
        return tuple(part[:1] for part in super().advance(actions))


class ColumnOfEach(ToyVectorEnv):
    def advance(self, actions):
        return tuple(part[:, None] for part in super().advance(actions))


@pytest.mark.parametrize(
    ("env_class", "error", "message"),
    [
        (BadFlags, TypeError, "bool terminations"),
        (OneReward, ValueError, "one reward"),
        (OneOfEach, ValueError, "for each of 3 rows"),
        (ColumnOfEach, ValueError, "for each of 3 rows"),
    ],
)
def test_vectorised_transitions_are_not_bent(env_class, error, message):
    env = env_class(3)
    env.reset()
    with pytest.raises(error, match=message):
        env.step(np.zeros(3, int))


@pytest.mark.parametrize(
    ("actions", "error", "message"),
    [
        (np.full(3, 1.7), TypeError, "actions must be integers, got float64"),
        (np.full(3, 4), ValueError, r"actions must lie in Discrete\(4\), got 4 in row 0"),
        (np.zeros(1, int), ValueError, r"actions must have shape \(3,\)"),
    ],
)
def test_experts_of_vectorised_environments_are_not_bent(actions, error, message, monkeypatch):
    env = ToyVectorEnv(3)
    env.reset()
    monkeypatch.setattr(env, "ask_expert", lambda: actions)
    with pytest.raises(error, match=rf"ToyVectorEnv\.expert_actions: {message}"):
        env.expert_actions()


def test_rows_that_share_an_environment_are_refused():
    one = Answers(UNIT, [0, 0], [0, 0])
    with pytest.raises(ValueError, match="make_env must build another environment at each call"):
        trials(lambda: gymnasium.wrappers.OrderEnforcing(one))


def test_a_step_that_returns_nothing_is_told():
    env = trials(lambda: Answers(UNIT, [0, 0], [0, 0]), 1)
    env.reset()
    env.envs[0] = SimpleNamespace(step=lambda action: None, close=lambda: None)
    with pytest.raises(AnswerError, match=r"row 0, trial .*step\(\) must return \(observation"):
        env.step(np.zeros(1, int))


SIMULATOR = """
import numpy as np

class Simulator:
    observation_space = {
        "image": {"shape": [2, 2], "dtype": "uint8", "low": 0, "high": 200},
        "kind": {"n": 3},
    }
    action_space = {"n": 2}

    def __init__(self, bad):
        self.bad = bad

    def begin(self, trial, episode):
        return {"image": np.zeros((2, 2), np.uint8), "kind": 1}, {}

    def step(self, action):
        shown = {"image": np.zeros((2, 2), np.uint8), "kind": 1}
        flag = self.bad.get("terminated", False)
        for name in shown:
            if name in self.bad:
                shown[name] = np.array(self.bad[name])
        if "drop" in self.bad:
            del shown["kind"]
        return shown, 0.0, flag, False, {}

def make(bad):
    return Simulator(bad)
"""


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"image": [1, 2]}, r"observation\['image'\] must have shape \(2, 2\)"),
        ({"image": [[300, 0], [0, 0]]}, r"observation\['image'\] must fit into uint8"),
        ({"image": [[250, 0], [0, 0]]}, r"observation\['image'\] must lie in Box.*got 250"),
        ({"kind": 1.5}, r"observation\['kind'\] must hold int64"),
        ({"kind": 3}, r"observation\['kind'\] must lie in Discrete\(3\), got 3"),
        ({"drop": 1}, r"keys \['image', 'kind'\], got \['image'\]"),
        ({"terminated": "no"}, "terminated must be True or False, got 'no'"),
    ],
)
def test_simulators_in_processes_are_not_bent(bad, message, tmp_path):
    (tmp_path / "simulator.py").write_text(SIMULATOR)
    env = ProcessVectorEnv(
        tmp_path / "simulator.py",
        2,
        dataset_name="process-v1",
        max_episode_steps=5,
        options={"bad": bad},
    )
    try:
        env.reset(seed=0)
        with pytest.raises(AnswerError, match=message) as raised:
            env.step(np.zeros(2, int))
        assert "ProcessVectorEnv process-v1/0+1048576, row 0, trial" in str(raised.value)
    finally:
        env.close()


def test_bounds_of_simulators_are_not_bent():
    with pytest.raises(ValueError, match="high of a space of the simulator must fit into uint8"):
        to_space({"shape": [2], "dtype": "uint8", "low": 0, "high": 300})
