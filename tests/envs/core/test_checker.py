import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from envs import TrialEnvError, check_trial_env
from envs.darkroom import DarkroomEnv, DarkroomVectorEnv
from tests.envs.core.toy import ToyVectorEnv


def findings(env_class, num_envs=3, *, make="class", **kwargs):
    """Return what the checker says of an environment class."""
    build = None if make is None else lambda **more: env_class(**{**kwargs, **more})
    with pytest.raises(TrialEnvError) as caught:
        check_trial_env(env_class(num_envs=num_envs, **kwargs), make=build)
    assert str(caught.value).count("\n") == len(caught.value.findings)
    return caught.value.findings


@pytest.mark.parametrize(
    "make",
    [
        ToyVectorEnv,
        DarkroomVectorEnv,
        lambda **kwargs: ToyVectorEnv(continuous=True, **kwargs),
        lambda **kwargs: RecordEpisodeStatistics(ToyVectorEnv(**kwargs)),
    ],
)
def test_good_environments_pass(make):
    check_trial_env(make(num_envs=3), make=make)
    check_trial_env(make(num_envs=2))


def test_registered_environments_are_rebuilt_from_their_spec():
    class Depends(DarkroomVectorEnv):
        """The observation depends on the number of rows."""

        def observe_rows(self, rows, out):
            super().observe_rows(rows, out)
            out["prev_reward"][:] = self.num_envs / 10

    gymnasium.register(id="test/Depends-v0", vector_entry_point=Depends)
    try:
        env = gymnasium.make_vec("test/Depends-v0", num_envs=3, horizon=10)
        with pytest.raises(TrialEnvError, match="number of rows"):
            check_trial_env(env)
    finally:
        del gymnasium.registry["test/Depends-v0"]


def test_single_environments_are_sent_elsewhere():
    with pytest.raises(TypeError, match=r"gymnasium\.utils\.env_checker\.check_env"):
        check_trial_env(DarkroomEnv())


class NoName(ToyVectorEnv):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        del self.dataset_name
        self.time_limit_default = "maybe"
        self.metadata = {}


def test_attributes():
    found = findings(NoName)
    assert found == ["attributes: the environment has no dataset_name"]


def test_environments_without_trials_are_told_what_they_lack():
    with pytest.raises(TrialEnvError) as caught:
        check_trial_env(gymnasium.make_vec("CartPole-v1", num_envs=2))
    assert "attributes: the environment has no trial" in caught.value.findings
    assert "attributes: single_observation_space is a Box, not a Dict" in caught.value.findings


def test_one_row_is_not_enough():
    assert "num_envs is 1" in findings(ToyVectorEnv, 1)[0]


class WrongAttributes(ToyVectorEnv):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.time_limit_default = "maybe"
        self.metadata = {}
        self.dataset_name = ""
        self.action_space = self.single_action_space
        self.observation_space = self.single_observation_space


def test_wrong_attributes_are_all_named():
    text = "\n".join(findings(WrongAttributes))
    for name in ("time_limit_default", "autoreset_mode", "dataset_name is empty"):
        assert name in text
    assert "action_space is not the batch" in text
    assert "observation_space is not the batch" in text


class WrongDtype(ToyVectorEnv):
    def observe(self):
        observation = super().observe()
        return {**observation, "position": observation["position"].astype(np.float64)}

    def observe_rows(self, rows, out):
        if out["position"].dtype == np.float32:
            super().observe_rows(rows, out)


class OutsideSpace(ToyVectorEnv):
    def observe_rows(self, rows, out):
        super().observe_rows(rows, out)
        out["position"] += 1000.0


class MissingKey(ToyVectorEnv):
    def observe(self):
        observation = super().observe()
        del observation["goal"]
        return observation

    def observe_rows(self, rows, out):
        if "goal" in out:
            super().observe_rows(rows, out)


class WrongRewards(ToyVectorEnv):
    def step(self, actions):
        observation, reward, *rest = super().step(actions)
        return observation, reward.astype(np.float64), *rest


class InfiniteReward(ToyVectorEnv):
    def advance(self, actions):
        reward, *ends = super().advance(actions)
        return reward + np.float32(np.inf), *ends


class Endless(ToyVectorEnv):
    def transition(self, actions):
        *seen, terminated, truncated = super().transition(actions)
        return *seen, terminated & False, truncated & False


class EndsEarly(ToyVectorEnv):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, fixed_horizon=True, **kwargs)


class MovesOn(ToyVectorEnv):
    def step(self, actions):
        result = super().step(actions)
        self._trial += result[2]
        return result


class NoFinalObs(ToyVectorEnv):
    def step(self, actions):
        *rest, infos = super().step(actions)
        infos.pop("final_obs", None)
        return *rest, infos


class InfosAlways(ToyVectorEnv):
    def step(self, actions):
        *rest, infos = super().step(actions)
        infos.setdefault("episode_record", {})
        return *rest, infos


class WrongMask(ToyVectorEnv):
    def step(self, actions):
        *rest, infos = super().step(actions)
        if infos:
            infos["_episode_record"] = ~infos["_episode_record"]
        return *rest, infos


class FinalObsBatched(ToyVectorEnv):
    def step(self, actions):
        observation, *rest, infos = super().step(actions)
        if infos:
            infos["final_obs"] = observation["position"]
        return observation, *rest, infos


class WrongLength(ToyVectorEnv):
    def record_rows(self, rows):
        return {**super().record_rows(rows), "length": self.elapsed_steps[rows] + 1}


class LacksReturn(ToyVectorEnv):
    def episode_records(self, rows):
        record = super().episode_records(rows)
        del record["return"]
        return record


@pytest.mark.parametrize(
    ("env_class", "message"),
    [
        (WrongDtype, "observation['position'] has dtype float64, its space float32"),
        (OutsideSpace, "observation['position'] lies outside its space"),
        (MissingKey, "keys are not those of the observation space"),
        (WrongRewards, "rewards are not a numpy array of float32"),
        (InfiniteReward, "the reward must be finite"),
        (Endless, "went on past max_episode_steps=20"),
        (EndsEarly, "fixed_horizon is true, but an episode ended before"),
        (MovesOn, "moved a row to another trial, which only reset may do"),
        (NoFinalObs, "infos lacks 'final_obs'"),
        (InfosAlways, "infos holds 'episode_record' though no episode ended"),
        (WrongMask, "infos['_episode_record'] is not true exactly where an episode ended"),
        (FinalObsBatched, "infos['final_obs'] is not an array of objects"),
        (WrongLength, "record: 'length' is"),
        (LacksReturn, "record: it lacks 'return'"),
    ],
)
def test_broken_formats_are_named(env_class, message):
    assert any(message in finding for finding in findings(env_class))


class SameBuffers(ToyVectorEnv):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, copy=False, **kwargs)


class HandsOutState(ToyVectorEnv):
    """The image is kept and drawn only in part again, so writing into it stays."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.shown = super().empty_observation()

    def empty_observation(self):
        return getattr(self, "shown", None) or super().empty_observation()

    def observe_rows(self, rows, out):
        self.value += 0 if "shown" not in vars(self) else self.shown["position"].sum() == 0
        super().observe_rows(rows, out)


class GlobalRandomness(ToyVectorEnv):
    randomness = np.random.default_rng(0)

    def begin_episodes(self, rows):
        super().begin_episodes(rows)
        self.value[rows] = self.randomness.integers(10, size=len(rows))


class TrialsByCallOrder(ToyVectorEnv):
    """Trials are dealt from one generator to whichever row asks."""

    def reset(self, *, seed=None, options=None):
        if seed is not None or not hasattr(self, "deal"):
            self.deal = np.random.default_rng(seed)
        options = dict(options or {})
        everything = seed is not None or not self._started
        if options.get("trial") is None and (everything or "new_trial" in options):
            mask = options.get("new_trial", np.ones(self.num_envs, bool))
            options["new_trial"] = mask
            options["trial"] = np.zeros(self.num_envs, np.int64)
            options["trial"][mask] = self.deal.integers(1000, size=int(mask.sum()))
        return super().reset(seed=seed, options=options)


class IgnoresSeed(ToyVectorEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None if seed is None else 0, options=options)


class BareResetMoves(ToyVectorEnv):
    def reset(self, *, seed=None, options=None):
        if seed is None and not options:
            options = {"new_trial": np.ones(self.num_envs, bool)}
        return super().reset(seed=seed, options=options)


class IgnoresNames(ToyVectorEnv):
    def reset(self, *, seed=None, options=None):
        options = {k: v for k, v in (options or {}).items() if k != "trial"}
        return super().reset(seed=seed, options=options)


class IgnoresMask(ToyVectorEnv):
    def reset(self, *, seed=None, options=None):
        options = dict(options or {})
        if options.pop("reset_mask", None) is not None:
            return super().reset(options={"reset_mask": np.ones(self.num_envs, bool)})
        return super().reset(seed=seed, options=options)


class EatsOptions(ToyVectorEnv):
    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed, options=options)
        (options or {}).clear()
        return result


class StartDependsOnPast(ToyVectorEnv):
    def begin_episodes(self, rows):
        past = self.value[rows].copy()
        super().begin_episodes(rows)
        self.value[rows] += np.where(self.episode[rows] > 0, past % 7, 0)


class NewTrialShakesAll(ToyVectorEnv):
    def begin_trials(self, rows, trials):
        super().begin_trials(rows, trials)
        if len(rows) < self.num_envs:
            self.value += 1


class ShowsLastObservation(ToyVectorEnv):
    """The observation after an end is the last one of the old episode."""

    def step(self, actions):
        observation, reward, terminated, truncated, infos = super().step(actions)
        for row in np.flatnonzero(terminated | truncated):
            for name, value in infos["final_obs"][row].items():
                observation[name][row] = value
        return observation, reward, terminated, truncated, infos


class FinalObsIsView(ToyVectorEnv):
    def unbatch(self, observation, row):
        self.kept = {k: v.copy() for k, v in observation.items()}
        return {k: (v[row] if k == "goal" else v[row, ...]) for k, v in observation.items()}


class RowNumberMatters(ToyVectorEnv):
    def begin_episodes(self, rows):
        super().begin_episodes(rows)
        self.value[rows] += rows


class Neighbours(ToyVectorEnv):
    def advance(self, actions):
        result = super().advance(actions)
        self.value += actions.sum() % 2
        return result


class CountMatters(ToyVectorEnv):
    def begin_episodes(self, rows):
        super().begin_episodes(rows)
        self.value[rows] += self.num_envs


class TrialsByCount(ToyVectorEnv):
    def reset(self, *, seed=None, options=None):
        seed = None if seed is None else seed + 100 * self.num_envs
        return super().reset(seed=seed, options=options)


class ForgetsValue(ToyVectorEnv):
    def load_rows(self, state):
        self.start[:] = state["start"]


class ForgetsQuietly(ToyVectorEnv):
    """Something that matters is not part of the state."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.hidden = 0

    def reset(self, *, seed=None, options=None):
        self.hidden = 0
        return super().reset(seed=seed, options=options)

    def advance(self, actions):
        self.hidden += 1
        result = super().advance(actions)
        self.value += self.hidden % 2
        return result


class StateIsView(ToyVectorEnv):
    def save_rows(self):
        return {"value": self.value, "start": self.start}


class StateHasObjects(ToyVectorEnv):
    def save_rows(self):
        return {**super().save_rows(), "clock": 0.5, "list": [1], "rows": np.array([None])}


class StateIsWhole(ToyVectorEnv):
    """Not its arrays of rows only: other processes cannot take a part of it."""

    def save_rows(self):
        return {**super().save_rows(), "wind": np.arange(self.num_envs + 1)}


class StateByPosition(ToyVectorEnv):
    """It says of each row which one it is here, which it is not elsewhere."""

    def save_rows(self):
        return {**super().save_rows(), "place": np.arange(self.num_envs)}

    def load_rows(self, state):
        super().load_rows(state)
        self.value += state["place"] - np.arange(self.num_envs)


class TakesAnyState(ToyVectorEnv):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "dataset": self.dataset_name})


class ExpertActs(ToyVectorEnv):
    def ask_expert(self):
        self.value += 1
        return super().ask_expert()


class ExpertOutside(ToyVectorEnv):
    def ask_expert(self):
        return super().ask_expert() + 10


class ExpertWavers(ToyVectorEnv):
    calls = 0

    def ask_expert(self):
        self.calls += 1
        return (super().ask_expert() + self.calls) % 4


class Lenient(ToyVectorEnv):
    def step(self, actions):
        actions = np.resize(np.asarray(actions), self.num_envs) % 4
        return super().step(actions)

    def reset(self, *, seed=None, options=None):
        known = ("reset_mask", "new_trial", "trial")
        options = {k: np.resize(v, self.num_envs) for k, v in (options or {}).items() if k in known}
        for name in ("reset_mask", "new_trial"):
            if name in options:
                options[name] = options[name].astype(bool)
        if "trial" in options:
            options["trial"] = np.maximum(options["trial"], 0)
        return super().reset(seed=seed, options=options)


class BreaksOnError(ToyVectorEnv):
    def step(self, actions):
        self.value += 1 if np.any(actions == 4) else 0
        return super().step(actions)


class StepsUnreset(ToyVectorEnv):
    def step(self, actions):
        if not self._started:
            self.reset()
        return super().step(actions)


class Crashes(ToyVectorEnv):
    def state_dict(self):
        raise KeyError("nothing here")


@pytest.mark.parametrize(
    ("env_class", "message"),
    [
        (SameBuffers, "changed in the caller's hands"),
        (HandsOutState, "copies: "),
        (GlobalRandomness, "two runs with the same seed and actions are not equal"),
        (TrialsByCallOrder, "depends on how often other rows began a new one"),
        (IgnoresSeed, "twelve seeds drew one and the same trial"),
        (BareResetMoves, "a bare reset moved rows to another trial"),
        (IgnoresNames, "did not move all rows to the named trials"),
        (IgnoresMask, "options['reset_mask'] changed"),
        (EatsOptions, "changed the options dict"),
        (StartDependsOnPast, "second episode depends on what was done in the first"),
        (NewTrialShakesAll, "options['new_trial'] changed"),
        (ShowsLastObservation, "is not the first one of the next episode"),
        (FinalObsIsView, "final_obs shares memory"),
        (RowNumberMatters, "rows with the same trial and actions are not equal"),
        (Neighbours, "row 0 depends on what other rows do"),
        (CountMatters, "what a row sees depends on the number of rows"),
        (TrialsByCount, "trials that a row draws depend on the number of rows"),
        (ForgetsValue, "does not give back the state"),
        (ForgetsQuietly, "does not continue as the saved one did"),
        (StateIsView, "the saved state changed while the environment went on"),
        (StateHasObjects, "state_dict()['env']['clock'] is a float"),
        (StateHasObjects, "state_dict()['env']['rows'] is an array of objects"),
        (StateIsWhole, "env.wind: must have one entry for each of"),
        (StateByPosition, "a part of its rows does not continue"),
        (TakesAnyState, "a state of another dataset was loaded"),
        (ExpertActs, "asking the expert changed"),
        (ExpertOutside, "actions must lie in Discrete(4), got 1"),
        (ExpertWavers, "do not agree"),
        (Lenient, "an action outside the action space was accepted"),
        (Lenient, "actions for too few rows was accepted"),
        (Lenient, "an unknown reset option was accepted"),
        (Lenient, "a mask with too many entries was accepted"),
        (Lenient, "a mask of integers was accepted"),
        (Lenient, "a negative trial was accepted"),
        (BreaksOnError, "a refused call changed"),
        (StepsUnreset, "did not raise StepBeforeResetError"),
        (Crashes, "state: KeyError was raised: 'nothing here'"),
    ],
)
def test_broken_behaviour_is_named(env_class, message):
    found = findings(env_class)
    assert any(message in finding for finding in found), found
