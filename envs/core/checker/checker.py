"""The entry point of the checker: which checks run, in which order, and how findings are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import gymnasium
from gymnasium.vector import VectorEnv

from envs.core.checker import behaviour, formats, services
from envs.core.checker.traces import OPENING, Subject

CHECKS: Final[tuple[Callable[[Subject], Iterator[str]], ...]] = (
    behaviour.check_resets,
    behaviour.check_autoreset,
    behaviour.check_seeds,
    behaviour.check_copies,
    behaviour.check_rows,
    behaviour.check_number_of_rows,
    services.check_state,
    services.check_expert,
    services.check_errors,
    services.check_fresh,
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
        env: a `TrialVectorEnv` or anything that behaves like one, with at least two rows, bare or
            in Gymnasium's vector wrappers.
        make: builds another such environment from the keywords `num_envs` and `first_row`.
            Without it the environment is rebuilt from its Gymnasium spec; if it has none, what
            needs a second environment is not checked.
        seed: of the random actions.

    Raises:
        TrialEnvError: It does not; the message names each breach in one sentence.
        TypeError: It is no vector environment.
    """
    if not isinstance(env, VectorEnv):
        raise TypeError(
            f"check_trial_env: env must be a gymnasium.vector.VectorEnv, got {type(env).__name__}. "
            "Single environments are checked by gymnasium.utils.env_checker.check_env."
        )
    findings = _collect("attributes", formats.check_attributes(env))
    if findings:
        raise TrialEnvError(env, findings)
    subject = Subject(env, make or _remake(env), seed)
    findings = _collect("formats", formats.check_formats(subject))
    if findings:
        raise TrialEnvError(env, findings)
    if not subject.settle():
        raise TrialEnvError(
            env, [f"episodes: random actions end one within {OPENING} steps, too soon to check"]
        )
    for check in CHECKS:
        findings += _collect(check.__name__.removeprefix("check_"), check(subject))
    if findings:
        raise TrialEnvError(env, findings)


def _collect(name: str, findings: Iterator[str]) -> list[str]:
    """Run a check to its end; an error that it did not expect is a finding too."""
    collected: list[str] = []
    try:
        for finding in findings:
            collected.append(finding)
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
