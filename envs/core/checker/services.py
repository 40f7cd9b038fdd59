"""Checks of what an environment offers beside `reset` and `step`: state, expert, errors.

Each check yields one sentence per finding, and nothing if all is well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.core.checker.traces import OPENING, SHORT, Subject, Trace, digest, first_difference
from envs.core.validation import StepBeforeResetError


def check_state(subject: Subject) -> Iterator[str]:
    """A saved state brings everything back, here and in a fresh environment."""
    subject.begin()
    subject.play(subject.opening)
    state = subject.core.state_dict()
    yield from _state_types(state, "state_dict()")
    before = digest_tree(state)
    expected = subject.play(subject.tape[OPENING:])
    subject.env.reset(options={"new_trial": subject.mask(0)})
    drawn = subject.core.trial.tolist()
    if digest_tree(state) != before:
        yield "state: the saved state changed while the environment went on; return copies"
        return
    targets: list[tuple[str, Any]] = [("the same environment", subject.env)]
    if subject.make is not None:
        first_row = int(getattr(subject.core, "first_row", 0))
        fresh = subject.make(num_envs=subject.num_envs, first_row=first_row)
        targets.append(("a fresh environment", fresh))
    for what, env in targets:
        env.unwrapped.load_state_dict(state)
        if digest_tree(env.unwrapped.state_dict()) != before:
            yield f"state: {what} does not give back the state that it loaded"
        difference = first_difference(
            subject.play(subject.tape[OPENING:], env), expected, subject.rows
        )
        if difference:
            yield f"state: {what} does not continue as the saved one did: {difference}"
        env.reset(options={"new_trial": subject.mask(0)})
        if env.unwrapped.trial.tolist() != drawn:
            yield f"state: {what} draws other new trials than the saved one did"
        if env is not subject.env:
            env.close()
    yield from _refuses(
        "state: a state of another dataset was loaded without an error",
        lambda: subject.core.load_state_dict({**state, "dataset": "another"}),
    )


def digest_tree(state: Any) -> Any:
    """Return a state with its arrays replaced by digests."""
    if isinstance(state, dict):
        return {name: digest_tree(value) for name, value in state.items()}
    return digest(state) if isinstance(state, np.ndarray) else state


def _state_types(state: Any, path: str) -> Iterator[str]:
    """Only nested dicts of numpy arrays, ints and strings can be saved safely."""
    if isinstance(state, dict):
        for name, value in state.items():
            if not isinstance(name, str):
                yield f"state: {path} has a key that is not a string"
            yield from _state_types(value, f"{path}[{name!r}]")
    elif isinstance(state, np.ndarray):
        if state.dtype == object:
            yield f"state: {path} is an array of objects"
    elif not isinstance(state, int | str):
        yield f"state: {path} is a {type(state).__name__}, not an array, int, str or dict"


def check_expert(subject: Subject) -> Iterator[str]:
    """Expert actions, where there are any, are legal and change nothing."""
    subject.begin()
    try:
        subject.core.expert_actions()
    except NotImplementedError:
        return
    quiet = subject.play(subject.tape[:SHORT])
    subject.begin()
    asked: Trace = []
    for actions in subject.tape[:SHORT]:
        expert = subject.core.expert_actions()
        if not isinstance(expert, np.ndarray) or len(expert) != subject.num_envs:
            yield "expert: expert_actions() is not an array with one action a row"
            return
        if not all(subject.env.single_action_space.contains(action) for action in expert):
            yield "expert: expert_actions() holds an action outside the action space"
            return
        if digest(expert) != digest(subject.core.expert_actions()):
            yield "expert: two calls of expert_actions() in one state do not agree"
        asked += subject.play([actions])
    if first_difference(asked, quiet, subject.rows):
        yield "expert: asking the expert changed what the environment does"


def check_errors(subject: Subject) -> Iterator[str]:
    """Bad input is refused by an error, and leaves the environment as it was."""
    env, core, good = subject.env, subject.core, subject.tape[0]
    subject.begin()
    expected = subject.play(subject.tape[:SHORT])
    subject.begin()
    outside = np.array(good)
    space = env.single_action_space
    if isinstance(space, spaces.Discrete):
        outside[0] = space.start + space.n
    elif isinstance(space, spaces.MultiDiscrete):
        outside[0] = space.start + space.nvec
    else:
        outside[0] = np.nan
    long = np.zeros(subject.num_envs + 1, dtype=bool)
    bad: list[tuple[str, Callable[[], Any]]] = [
        ("an action outside the action space", lambda: env.step(outside)),
        ("actions for too few rows", lambda: env.step(good[:-1])),
        ("an unknown reset option", lambda: core.reset(options={"new_trail": subject.mask(0)})),
        ("a mask with too many entries", lambda: core.reset(options={"reset_mask": long})),
        ("a mask of integers", lambda: core.reset(options={"new_trial": long[1:].astype(int)})),
        ("a negative trial", lambda: core.reset(options={"trial": subject.trials - 9})),
    ]
    for what, call in bad:
        yield from _refuses(f"errors: {what} was accepted without an error", call)
    if first_difference(subject.play(subject.tape[:SHORT]), expected, subject.rows):
        yield "errors: a refused call changed what the environment does"


def _refuses(finding: str, call: Callable[[], Any]) -> Iterator[str]:
    """Yield the finding unless the call raises the error of bad input."""
    try:
        call()
    except (ValueError, TypeError):
        return
    yield finding


def check_fresh(subject: Subject) -> Iterator[str]:
    """Before the first reset, a step is an error of its own kind."""
    if subject.make is None:
        return
    fresh = subject.make(num_envs=subject.num_envs)
    try:
        fresh.step(subject.tape[0])
    except StepBeforeResetError:
        return
    finally:
        fresh.close()
    yield "errors: a step before the first reset did not raise StepBeforeResetError"
