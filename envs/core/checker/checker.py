"""`check_trial_env`: the list of checks, their order, and the report of findings.

The forms of what an environment hands out are checked here and first, since all other checks
(`behaviour`) read them. Each check yields one sentence per finding, and nothing if all is well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.core.answers import AnswerError
from envs.core.checker import behaviour
from envs.core.checker.traces import Subject
from envs.core.checker.writes import watched_writes
from envs.core.vector import TrialVectorEnv

CHECKS: Final[tuple[Callable[[Subject], Iterator[str]], ...]] = (
    behaviour.check_resets,
    behaviour.check_autoreset,
    behaviour.check_seeds,
    behaviour.check_copies,
    behaviour.check_rows,
    behaviour.check_number_of_rows,
    behaviour.check_state,
    behaviour.check_cut,
    behaviour.check_expert,
    behaviour.check_records,
    behaviour.check_errors,
    behaviour.check_fresh,
)


class TrialEnvError(AssertionError):
    """An environment breaks the trial contract. `findings` holds one sentence per breach."""

    def __init__(self, env: Any, findings: list[str]) -> None:
        self.findings = findings
        super().__init__(f"{env} breaks the trial contract:\n  " + "\n  ".join(findings))


def check_trial_env(env: Any, *, make: Callable[..., Any] | None = None, seed: int = 0) -> None:
    """Check that a vector environment keeps the trial contract.

    Takes about a dozen times `max_episode_steps` steps. The environment is left in some trial.

    Args:
        env: A `TrialVectorEnv` or anything that behaves like one, with at least two rows, bare or
            in Gymnasium's vector wrappers.
        make: Builds another such environment from the keywords `num_envs` and `first_row`.
            Without it the environment is rebuilt from its Gymnasium spec; if it has none, what
            needs a second environment is not checked.
        seed: Seed of the random actions.

    Raises:
        TrialEnvError: If it does not; the message names each breach in one sentence.
        TypeError: If it is no vector environment.
    """
    if not isinstance(env, VectorEnv):
        raise TypeError(
            f"check_trial_env: env must be a gymnasium.vector.VectorEnv, got {type(env).__name__}. "
            "Single environments are checked by gymnasium.utils.env_checker.check_env."
        )
    findings = _collect("attributes", check_attributes(env))
    if findings:
        raise TrialEnvError(env, findings)
    subject = Subject(env, make or _remake(env), seed)
    with watched_writes(env.unwrapped) as bent:
        findings = _collect("formats", check_formats(subject))
        # Behaviour is compared only where forms are right, on which the comparisons rely.
        if not findings and not bent:
            subject.settle()
            for check in CHECKS:
                findings += _collect(check.__name__.removeprefix("check_"), check(subject))
    findings = [*dict.fromkeys(bent), *findings]
    if findings:
        raise TrialEnvError(env, findings)


def _collect(name: str, findings: Iterator[str]) -> list[str]:
    """Run a check to its end; an error that it did not expect is a finding too."""
    collected: list[str] = []
    try:
        # One by one, so that what was found before an error is kept.
        for finding in findings:
            collected.append(finding)
    except AnswerError as error:
        collected.append(f"{name}: {error}")
    except Exception as error:
        collected.append(f"{name}: {type(error).__name__} was raised: {error}")
    return collected


def _remake(env: Any) -> Callable[..., Any] | None:
    """Return a function that builds the environment again from its spec, if it has one."""
    spec = env.unwrapped.spec
    if spec is None:
        return None
    known = dict(spec.kwargs)
    known.pop("vectorization_mode", None)
    known.pop("num_envs", None)

    def make(num_envs: int, first_row: int = 0) -> Any:
        return gymnasium.make_vec(
            spec.id,
            num_envs=num_envs,
            vectorization_mode="vector_entry_point",
            **{**known, "first_row": first_row},
        )

    return make


def check_attributes(env: Any) -> Iterator[str]:
    """Attributes that learners and evaluators read."""
    core = env.unwrapped
    wanted: dict[str, tuple[type, ...]] = {
        "num_envs": (int,),
        "max_episode_steps": (int,),
        "dataset_name": (str,),
        "fixed_horizon": (bool,),
        "time_limit_default": (str,),
        "trial": (np.ndarray,),
        "single_observation_space": (spaces.Dict,),
        "single_action_space": (
            spaces.Discrete,
            spaces.MultiDiscrete,
            spaces.MultiBinary,
            spaces.Box,
        ),
    }
    missing = [name for name in wanted if not hasattr(core, name)]
    for name in missing:
        yield f"attributes: the environment has no {name}"
    for name, kinds in wanted.items():
        if name not in missing and not isinstance(getattr(core, name), kinds):
            known = " or ".join(kind.__name__ for kind in kinds)
            yield f"attributes: {name} is a {type(getattr(core, name)).__name__}, not a {known}"
    if missing:
        return
    if env.num_envs < 2:
        yield "attributes: num_envs is 1, and rows can only be compared if there are two or more"
    if core.max_episode_steps < 1:
        yield f"attributes: max_episode_steps is {core.max_episode_steps}, less than 1"
    if not core.dataset_name:
        yield "attributes: dataset_name is empty, so results could not be told apart"
    if core.time_limit_default not in ("terminal", "bootstrap"):
        yield "attributes: time_limit_default is neither 'terminal' nor 'bootstrap'"
    if env.observation_space != batch_space(env.single_observation_space, env.num_envs):
        yield "attributes: observation_space is not the batch of single_observation_space"
    if env.action_space != batch_space(env.single_action_space, env.num_envs):
        yield "attributes: action_space is not the batch of single_action_space"
    if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
        yield "attributes: metadata['autoreset_mode'] is not AutoresetMode.SAME_STEP"


def check_formats(subject: Subject) -> Iterator[str]:
    """Shapes, dtypes, masks and records along a walk in which every row ends an episode."""
    env = subject.env
    result = env.reset(seed=subject.seed, options={"trial": subject.trials})
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
        yield "reset: it does not return an (observation, infos) pair"
        return
    yield from _observation_findings(subject, result[0], "reset")
    yield from _crashes(subject)
    if not np.array_equal(subject.core.trial, subject.trials):
        yield "reset: options['trial'] without masks did not move all rows to the named trials"
        return
    books = _Books(subject)
    for actions in subject.tape:
        result = env.step(actions)
        findings = [*_step_findings(subject, result), *_crashes(subject), *books.enter(result)]
        yield from findings
        if findings:
            return
    for row in np.flatnonzero(books.ended_N == 0):
        yield (
            f"step: row {row} did not end within max_episode_steps={subject.core.max_episode_steps}"
        )


def _crashes(subject: Subject) -> Iterator[str]:
    """What a row showed that cannot be meant; in training it would be counted as a crash."""
    if isinstance(subject.core, TrialVectorEnv):
        yield from subject.core.crashes.told.values()


def _observation_findings(subject: Subject, observation: Any, where: str) -> Iterator[str]:
    """What is wrong with a batched observation."""
    space = subject.env.observation_space
    if not isinstance(observation, dict) or set(observation) != set(space.spaces):
        yield f"{where}: the observation's keys are not those of the observation space"
        return
    for name, part in space.spaces.items():
        value = observation[name]
        if not isinstance(value, np.ndarray) or value.dtype != part.dtype:
            kind = getattr(value, "dtype", type(value).__name__)
            yield f"{where}: observation[{name!r}] has dtype {kind}, its space {part.dtype}"
        elif value.shape != part.shape:
            yield f"{where}: observation[{name!r}] has shape {value.shape}, its space {part.shape}"
        elif not part.contains(value):
            yield f"{where}: observation[{name!r}] lies outside its space"


def _step_findings(subject: Subject, result: Any) -> Iterator[str]:
    """What is wrong with the form of a step's result."""
    if not isinstance(result, tuple) or len(result) != 5:
        yield "step: it does not return (observation, rewards, terminations, truncations, infos)"
        return
    observation, rewards, terminations, truncations, infos = result
    yield from _observation_findings(subject, observation, "step")
    for name, value, dtype in (
        ("rewards", rewards, np.float32),
        ("terminations", terminations, np.bool_),
        ("truncations", truncations, np.bool_),
    ):
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            yield f"step: {name} are not a numpy array of {np.dtype(dtype).name}"
        elif value.shape != (subject.num_envs,):
            yield f"step: {name} have shape {value.shape}, not one entry a row"
    if not isinstance(infos, dict):
        yield "step: infos is not a dict"


class _Books:
    """Own account of every row's episode, held against what the environment records."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        count = subject.num_envs
        self.length_N = np.zeros(count, dtype=np.int64)
        self.return_N = np.zeros(count)
        self.episode_N = np.zeros(count, dtype=np.int64)
        self.ended_N = np.zeros(count, dtype=np.int64)

    def enter(self, result: tuple[Any, ...]) -> Iterator[str]:
        """Account for a step, and yield what does not agree."""
        _, rewards, terminations, truncations, infos = result
        if not np.isfinite(rewards).all():
            yield "step: a reward is not finite"
        self.length_N += 1
        self.return_N += rewards
        ended_N = terminations | truncations
        limit = self.subject.core.max_episode_steps
        if (self.length_N[~ended_N] >= limit).any():
            yield f"step: an episode went on past max_episode_steps={limit}"
        if self.subject.core.fixed_horizon and (self.length_N[ended_N] != limit).any():
            yield "step: fixed_horizon is true, but an episode ended before max_episode_steps"
        if not np.array_equal(self.subject.core.trial, self.subject.trials):
            yield "step: it moved a row to another trial, which only reset may do"
        yield from self._check_infos(ended_N, infos)
        self.ended_N += ended_N
        self.episode_N += ended_N
        self.length_N[ended_N] = 0
        self.return_N[ended_N] = 0.0

    def _check_infos(self, ended_N: np.ndarray, infos: dict[str, Any]) -> Iterator[str]:
        """Yield what is wrong with the infos of a step."""
        names = ("final_obs", "final_info", "episode_record")
        if not ended_N.any():
            for name in names:
                if name in infos:
                    yield f"step: infos holds {name!r} though no episode ended"
            return
        for name in names:
            if name not in infos or f"_{name}" not in infos:
                yield f"step: an episode ended, but infos lacks {name!r} or its mask '_{name}'"
                return
            if not np.array_equal(infos[f"_{name}"], ended_N):
                yield f"step: infos['_{name}'] is not true exactly where an episode ended"
        yield from self._check_final_obs(ended_N, infos["final_obs"])
        yield from self._check_record(ended_N, infos["episode_record"])

    def _check_final_obs(self, ended_N: np.ndarray, final_obs: Any) -> Iterator[str]:
        space = self.subject.env.single_observation_space
        if not isinstance(final_obs, np.ndarray) or final_obs.dtype != object:
            yield "step: infos['final_obs'] is not an array of objects, one a row"
            return
        for row, ended in enumerate(ended_N):
            if ended and not space.contains(final_obs[row]):
                yield "step: infos['final_obs'] of an ended row is not in single_observation_space"
            if not ended and final_obs[row] is not None:
                yield "step: infos['final_obs'] of a row that goes on is not None"

    def _check_record(self, ended_N: np.ndarray, record: Any) -> Iterator[str]:
        own = {
            "trial": self.subject.trials,
            "episode": self.episode_N,
            "length": self.length_N,
            "return": self.return_N,
        }
        for name, value in own.items():
            if name not in record:
                yield f"record: it lacks {name!r}"
            elif not np.allclose(record[name][ended_N], value[ended_N], rtol=1e-5, atol=1e-5):
                got, want = record[name][ended_N][0], value[ended_N][0]
                yield f"record: {name!r} is {got} where {want} was counted"
        for name, value in record.items():
            if not isinstance(value, np.ndarray) or value.shape != ended_N.shape:
                yield f"record: {name!r} is not an array with one entry a row"
