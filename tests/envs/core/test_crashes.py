"""A row whose simulator gives a number that it cannot mean has crashed; the others go on."""

import logging
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array

from envs.core.answers import AnswerError, CrashLimitError, sane_limit
from envs.core.process_env import ProcessVectorEnv
from envs.core.single import SingleTrialEnv
from envs.core.trials import EpisodeTrials
from tests.envs.core.toy import ToyVectorEnv

SIMULATOR = Path(__file__).parent / "counting_simulator.py"
TRIALS = {"trial": np.array([0, 1, 2])}
WHEN = (1, 1, 2)
"""Trial, episode and step at which row 1 breaks down."""


class BreakingToy(ToyVectorEnv):
    """Vectorised; a fault is what it shows or pays at some times."""

    def __init__(self, num_envs, *, shown=None, paid=None, when=(WHEN,), **kwargs):
        super().__init__(num_envs, **kwargs)
        with np.errstate(over="ignore"):
            self.shown, self.paid = (None if v is None else np.float32(v) for v in (shown, paid))
        self.when = when

    def breaking(self):
        now = zip(self.trial, self.episode, self.elapsed_steps, strict=True)
        return np.array([(*map(int, at),) in self.when or at[:2] in self.when for at in now])

    def advance(self, actions):
        reward, terminated, truncated = super().advance(actions)
        if self.paid is not None:
            now = zip(self.trial, self.episode, self.elapsed_steps + 1, strict=True)
            reward[[(*map(int, at),) in self.when for at in now]] = self.paid
        return reward, terminated, truncated

    def observe_rows(self, rows, out):
        super().observe_rows(rows, out)
        if self.shown is not None:
            out["position"][self.breaking(), 0] = self.shown


class Breaking(gymnasium.Env):
    """One row of EpisodeTrials."""

    observation_space = spaces.Dict(
        {
            "free": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "held": spaces.Box(0.0, 1.0, (1,), np.float32),
        }
    )
    action_space = spaces.Discrete(4)

    def __init__(self, shown=None, paid=None, key="free", when=(WHEN,)):
        self.shown, self.paid, self.key, self.when = shown, paid, key, when

    def begin(self, trial, episode):
        self.at = (trial, episode, 0)
        return self.look(), {}

    def look(self):
        seen = {"free": np.array(self.at[1:], float), "held": [self.at[2] / 16]}
        if self.shown is not None and (self.at in self.when or self.at[:2] in self.when):
            seen[self.key] = np.full(len(seen[self.key]), self.shown)
        return seen

    def step(self, action):
        trial, episode, steps = self.at
        self.at = (trial, episode, steps + 1)
        paid = self.paid if self.paid is not None and self.at in self.when else float(action)
        return self.look(), paid, steps + 1 == 5 + episode % 3, False, {}


def begin(env, trial, episode):
    return env.begin(trial, episode)


def toy(**fault):
    return BreakingToy(3, **fault)


def one_by_one(**fault):
    return EpisodeTrials(
        lambda: Breaking(**{k: v for k, v in fault.items() if k != "max_crashes"}),
        3,
        dataset_name="breaking",
        start=begin,
        max_episode_steps=12,
        **{k: v for k, v in fault.items() if k == "max_crashes"},
    )


def in_processes(**fault):
    most = {k: fault.pop(k) for k in ("max_crashes",) if k in fault}
    fault = {"when": (WHEN,), **fault}
    return ProcessVectorEnv(
        SIMULATOR, 3, dataset_name="counting", max_episode_steps=12, options=fault, **most
    )


KINDS = {"vectorised": toy, "one by one": one_by_one, "in processes": in_processes}
FAULTS = {
    "nan seen": {"shown": float("nan")},
    "infinity seen": {"shown": float("-inf")},
    "more seen": {"shown": 1e300},
    "nan paid": {"paid": float("nan")},
    "much paid": {"paid": -1e30},
}


@pytest.fixture(params=KINDS)
def build(request):
    """Build environments of one kind, whose row 1 breaks down."""
    built = []

    def make(**fault):
        built.append(KINDS[request.param](**fault))
        return built[-1]

    yield make
    for env in built:
        env.close()


def play(env, steps=30, seed=0):
    """Return what the rows get."""
    seen = []
    for actions in np.random.default_rng(seed).integers(4, size=(steps, 3)):
        observation, *transition, infos = env.step(actions)
        record = infos.get("episode_record", {})
        ended = infos.get("_episode_record", np.zeros(3, bool))
        seen.append(
            [
                (
                    *(observation[name][row].tolist() for name in sorted(observation)),
                    *(part[row].item() for part in transition),
                    {k: v[row].item() for k, v in record.items()} if ended[row] else None,
                    infos["final_obs"][row] if ended[row] else None,
                )
                for row in range(3)
            ]
        )
    return seen


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_a_row_that_breaks_down_is_truncated_alone(build, fault, caplog):
    calm, env = build(), build(**fault)
    calm.reset(options=TRIALS)
    env.reset(options=TRIALS)
    expected = play(calm)
    with caplog.at_level(logging.WARNING):
        seen = play(env)
    for got, want in zip(seen, expected, strict=True):
        for row in (0, 2):
            assert repr(got[row]) == repr(want[row])
    flat = [value for got in seen for part in got[1][:-5] for value in np.ravel(part)]
    assert np.abs(flat).max() < 1e3
    crashed = [got[1] for got in seen if got[1][-2] and got[1][-2]["crashed"]]
    (crash,) = crashed
    terminated, truncated = crash[-4:-2]
    assert (terminated, truncated) == (False, True)
    record = crash[-2]
    assert (record["trial"], record["episode"], record["length"]) == WHEN
    assert abs(record["return"]) < 1e3
    assert abs(crash[-5]) < 1e3
    assert env.crashes.total_N.tolist() == [0, 1, 0]
    text = "the reward" if "paid" in fault else "observation['"
    (said,) = [r.message for r in caplog.records if "must be finite" in r.message]
    assert "row 1, trial 1, episode 1" in said
    assert text in said
    final = crash[-1]
    assert final is None or all(np.isfinite(value).all() for value in final.values())


@pytest.mark.parametrize("fault", [{"shown": float("nan")}, {"paid": 1e30}])
def test_state_continues_after_a_crash(build, fault):
    straight = build(**fault)
    straight.reset(options=TRIALS)
    play(straight, 20)
    assert straight.crashes.total_N.any()
    state = straight.state_dict()
    fresh = build(**fault)
    fresh.load_state_dict(state)
    assert fresh.crashes.in_a_row_N.tolist() == straight.crashes.in_a_row_N.tolist()
    assert repr(play(fresh)) == repr(play(straight))
    old = {key: value for key, value in state.items() if key != "crashes"}
    fresh.load_state_dict(old)  # of a version that did not count
    assert not fresh.crashes.in_a_row_N.any()


def test_an_episode_that_begins_broken_is_left_out(build):
    env = build(shown=float("nan"), when=((1, 0), (1, 1)))
    observation, _ = env.reset(options=TRIALS)
    assert all(np.isfinite(value).all() for value in observation.values())
    assert env.episode.tolist() == [0, 2, 0]
    assert env.crashes.total_N.tolist() == [0, 2, 0]
    env.step(np.zeros(3, int))
    assert not env.crashes.crashed_N.any()


def test_a_row_that_always_breaks_down_ends_the_run(build):
    always = tuple((1, episode, 1) for episode in range(30))
    env = build(paid=float("nan"), when=always, max_crashes=3)
    env.reset(options=TRIALS)
    with pytest.raises(
        CrashLimitError,
        match=r"row 1, trial 1, episode 3: the reward must be finite.*got nan\. This row has "
        "crashed 4 times in a row, more than max_crashes=3",
    ):
        play(env)


def test_a_row_that_never_shows_anything_sane_ends_the_run(build, monkeypatch):
    def used_memory(space, count, fn):
        return create_empty_array(space, count, fn=lambda *a, **k: np.full(*a, 111, **k))

    monkeypatch.setattr("envs.core.vector.create_empty_array", used_memory)
    never = build(shown=float("nan"), when=tuple((1, episode) for episode in range(30)))
    with pytest.raises(CrashLimitError, match=r"trial 1, episode \d+: observation\['"):
        never.reset(options=TRIALS)


def test_crashes_are_forgiven_after_a_good_episode(build):
    often = tuple((1, episode, 1) for episode in range(0, 30, 2))
    env = build(paid=float("inf"), when=often, max_crashes=1)
    env.reset(options=TRIALS)
    play(env, 60)
    assert env.crashes.total_N[1] > 2
    assert not env.crashes.total_N[[0, 2]].any()


def test_what_lies_outside_of_bounds_is_the_environments_mistake():
    env = one_by_one(shown=1.5, key="held")
    env.reset(options=TRIALS)
    with pytest.raises(AnswerError, match=r"observation\['held'\] must lie in"):
        play(env)
    broken = one_by_one(shown=float("nan"), key="held")
    broken.reset(options=TRIALS)
    play(broken)
    assert broken.crashes.total_N.tolist() == [0, 1, 0]


def test_finite_bounds_allow_large_numbers():
    assert sane_limit(spaces.Box(0.0, 1e20, (1,), np.float64)) == 1e20
    largest = float(np.finfo(np.float32).max)
    assert sane_limit(spaces.Box(-largest, largest, (1,), np.float32)) == 1e12
    assert sane_limit(spaces.Box(0, 255, (1,), np.uint8)) is None


def test_a_single_environment_says_that_it_crashed():
    env = SingleTrialEnv(BreakingToy(1, paid=float("nan"), when=((1, 0, 1),)))
    env.reset(options={"trial": 1})
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["episode_record"]["crashed"]
