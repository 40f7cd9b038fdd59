"""Rules for environments: resets, autoreset, seeds, rows, saved states, expert, errors.

Most checks compare what the same environment did under changes that must not matter. Each yields
one sentence per finding, and nothing if all is well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.core.checker.traces import OPENING, SHORT, Subject, Trace, digest, first_difference
from envs.core.hooks import state_of_rows
from envs.core.validation import StepBeforeResetError


def check_copies(subject: Subject) -> Iterator[str]:
    """What was handed out stays as it is, and nothing that a user does to it comes back."""
    env, tape = subject.env, subject.tape[:SHORT]
    subject.begin()
    clean = subject.play(tape)
    subject.begin()
    observation, *_ = env.step(tape[0])
    before = {name: digest(value) for name, value in observation.items()}
    subject.play(tape[1:4])
    for name, value in observation.items():
        if digest(value) != before[name]:
            yield f"copies: observation[{name!r}] changed in the caller's hands at a later step"
    observation, *_ = env.step(tape[4])
    for value in observation.values():
        value.fill(0)
    subject.core.trial.fill(0)
    if first_difference(subject.play(tape[5:]), clean[5:], subject.rows):
        yield "copies: writing into arrays that the environment handed out changed what it does"


def check_seeds(subject: Subject) -> Iterator[str]:
    """A seed fixes everything; the next trials come from it alone."""
    env = subject.env

    def run(seed: int) -> tuple[Trace, list[list[int]]]:
        observation, _ = env.reset(seed=seed)
        trials = [subject.core.trial.tolist()]
        trace = [subject.look(observation), *subject.play(subject.tape)]
        for _ in range(3):
            env.reset(options={"new_trial": np.ones(subject.num_envs, dtype=bool)})
            trials.append(subject.core.trial.tolist())
        return trace, trials

    (one, trials_one), (other, trials_other) = run(7), run(7)
    if trials_one != trials_other:
        yield "seeds: two resets with the same seed drew different trials"
        return
    difference = first_difference(one, other, subject.rows)
    if difference:
        yield f"seeds: two runs with the same seed and actions are not equal: {difference}"
    # Row 0 draws one trial more than the others, which must not shift theirs.
    env.reset(seed=7)
    env.reset(options={"new_trial": subject.mask(0)})
    env.reset(options={"new_trial": np.ones(subject.num_envs, dtype=bool)})
    if subject.core.trial[1:].tolist() != trials_one[1][1:]:
        yield "seeds: the next trial of a row depends on how often other rows began a new one"
    if subject.core.trial[0] != trials_one[2][0]:
        yield "seeds: a row's second new trial is not the third trial of its seed"
    if getattr(subject.core, "num_trials", 2) > 1:
        drawn = set()
        for seed in range(12):
            env.reset(seed=seed)
            drawn.add(tuple(subject.core.trial.tolist()))
        if len(drawn) == 1:
            yield "seeds: twelve seeds drew one and the same trial in each row"


def check_resets(subject: Subject) -> Iterator[str]:
    """Bare resets, masks and named trials move exactly the rows that they name."""
    env, rows = subject.env, subject.rows
    first = subject.begin()
    subject.play(subject.opening)
    # How the trial's second episode must begin, whatever is done in the first.
    second = subject.look(env.reset()[0])
    if not np.array_equal(subject.core.trial, subject.trials):
        yield "reset: a bare reset moved rows to another trial"
    again = subject.begin()
    if first_difference([again], [first], rows):
        yield "reset: the first observation of a named trial is not always the same"
    if first_difference([subject.look(env.reset()[0])], [second], rows):
        yield "reset: the trial's second episode depends on what was done in the first"

    before = subject.open()
    untouched = rows[1:]
    options = {"reset_mask": subject.mask(0)}
    now = subject.look(env.reset(options=options)[0])
    if env is subject.core and list(options) != ["reset_mask"]:
        yield "reset: it changed the options dict that it was given"
    if first_difference([now], [second], rows[:1]):
        yield "reset: options['reset_mask'] did not begin the next episode of the trial"
    yield from _untouched(subject, before, now, "options['reset_mask']")
    subject.begin()
    rest = subject.tape[subject.opening_steps : SHORT + OPENING]
    expected = subject.play(subject.tape[: SHORT + OPENING])[subject.opening_steps :]
    subject.begin()
    subject.play(subject.opening)
    env.reset(options={"reset_mask": subject.mask(0)})
    if first_difference(subject.play(rest), expected, untouched):
        yield "reset: options['reset_mask'] changed how rows outside it go on"
    if not np.array_equal(subject.core.trial, subject.trials):
        yield "reset: options['reset_mask'] moved rows to another trial"
    yield from _check_new_trial(subject, expected)


def _check_new_trial(subject: Subject, expected: Trace) -> Iterator[str]:
    """A mask of new trials, with names."""
    env, rows = subject.env, subject.rows
    rest = subject.tape[subject.opening_steps : SHORT + OPENING]
    target = subject.trials + 1
    first = subject.begin(target)
    before = subject.open()
    options = {"new_trial": subject.mask(0), "trial": target}
    now = subject.look(env.reset(options=options)[0])
    wanted = np.where(subject.mask(0), target, subject.trials)
    if not np.array_equal(subject.core.trial, wanted):
        yield "reset: options['new_trial'] did not move exactly its rows to the named trials"
    if first_difference([now], [first], rows[:1]):
        yield "reset: a new trial does not begin with the first observation of that trial"
    yield from _untouched(subject, before, now, "options['new_trial']")
    if first_difference(subject.play(rest), expected, rows[1:]):
        yield "reset: options['new_trial'] changed how rows outside it go on"


def _untouched(subject: Subject, before: Any, now: Any, what: str) -> Iterator[str]:
    """Rows outside a mask see again what they saw before."""
    for row in range(1, subject.num_envs):
        if any(before[row][name] != value for name, value in now[row].items()):
            yield f"reset: {what} changed the observation of a row outside it"
            return


def check_autoreset(subject: Subject) -> Iterator[str]:
    """After an episode's end the row sees the first observation of the next episode."""
    env = subject.env
    subject.begin()
    second = subject.look(env.reset()[0])
    subject.begin()
    waiting = set(range(subject.num_envs))
    for actions in subject.tape:
        observation, _, terminations, truncations, infos = env.step(actions)
        now = subject.look(observation)
        for row in waiting & set(np.flatnonzero(terminations | truncations).tolist()):
            waiting.remove(row)
            if now[row] != second[row]:
                yield (
                    "autoreset: the observation after an episode's end is not the first one of "
                    "the next episode"
                )
                return
            last, first = infos["final_obs"][row], {k: v[row] for k, v in observation.items()}
            if any(np.shares_memory(last[name], first[name]) for name in last):
                yield "autoreset: final_obs shares memory with the returned observation"
                return


def check_rows(subject: Subject) -> Iterator[str]:
    """A row's fate depends on its trial and its actions, not on its place or its neighbours."""
    twins = np.repeat(subject.trials[:1], subject.num_envs)
    tape = [np.repeat(actions[:1], subject.num_envs, axis=0) for actions in subject.tape]
    first = subject.begin(twins)
    trace = [first, *subject.play(tape)]
    pairs = [(row, 0) for row in range(1, subject.num_envs)]
    # The trace against itself: each row must have lived as row 0 did.
    difference = first_difference(trace, trace, pairs)
    if difference:
        yield f"rows: rows with the same trial and actions are not equal: {difference}"
    subject.begin()
    alone = subject.play(subject.tape)
    other = subject.trials + 5
    other[0] = subject.trials[0]
    subject.begin(other)
    # Row 0 acts as before. The others are in other trials, and act in another order.
    pairs_of_actions = zip(subject.tape, reversed(subject.tape), strict=True)
    mixed = [np.concatenate([one[:1], two[1:]]) for one, two in pairs_of_actions]
    difference = first_difference(subject.play(mixed), alone, subject.rows[:1])
    if difference:
        yield f"rows: row 0 depends on what other rows do: {difference}"


def check_number_of_rows(subject: Subject) -> Iterator[str]:
    """Row i of N is row 0 of an environment of one row whose `first_row` is i."""
    if subject.make is None:
        return
    last = subject.num_envs - 1
    observation, _ = subject.env.reset(seed=subject.seed)
    whole = [subject.look(observation), *subject.play(subject.tape)]
    trial = int(subject.core.trial[last])
    first_row = int(getattr(subject.core, "first_row", 0))
    alone = subject.make(num_envs=1, first_row=first_row + last)
    try:
        observation, _ = alone.reset(seed=subject.seed)
        if int(alone.unwrapped.trial[0]) != trial:
            yield "rows: the trials that a row draws depend on the number of rows"
            return
        tape = [actions[last:] for actions in subject.tape]
        trace = [subject.look(observation), *subject.play(tape, alone)]
        difference = first_difference(trace, whole, [(0, last)])
        if difference:
            yield f"rows: what a row sees depends on the number of rows: {difference}"
    finally:
        alone.close()


def check_state(subject: Subject) -> Iterator[str]:
    """A saved state brings everything back, here and in a fresh environment."""
    subject.begin()
    subject.play(subject.tape[:OPENING])
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


def check_cut(subject: Subject) -> Iterator[str]:
    """A saved state can be cut: other environments go on with a part of the rows each."""
    if subject.make is None:
        return
    first_row = int(getattr(subject.core, "first_row", 0))
    subject.begin()
    subject.play(subject.tape[:OPENING])
    state = subject.core.state_dict()
    expected = subject.play(subject.tape[OPENING:])
    parts = (range(subject.num_envs - 1), range(subject.num_envs - 1, subject.num_envs))
    states = []
    for rows in parts:
        env = subject.make(num_envs=len(rows), first_row=first_row + rows.start)
        try:
            numbers = range(first_row + rows.start, first_row + rows.stop)
            env.unwrapped.load_state_dict(state_of_rows([state], numbers))
            states.append(env.unwrapped.state_dict())
            tape = [actions[rows.start : rows.stop] for actions in subject.tape[OPENING:]]
            pairs = [(n, row) for n, row in enumerate(rows)]
            difference = first_difference(subject.play(tape, env), expected, pairs)
        finally:
            env.close()
        if difference:
            yield f"state: a part of its rows does not continue as the saved ones did: {difference}"
            return
    whole = state_of_rows(states, range(first_row, first_row + subject.num_envs))
    if digest_tree(whole) != digest_tree(state):
        yield "state: its parts, put together again, are not what was saved"


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


def check_records(subject: Subject) -> Iterator[str]:
    """What an environment was asked to record was in the last info of some episode."""
    told = sorted({name for info in getattr(subject.core, "last_info", ()) for name in info})
    for name in sorted(getattr(subject.core, "never_recorded", ())):
        yield (
            f"record: {name!r} was in the last info of no episode, so its records hold NaN; the "
            f"last infos hold {told}"
        )


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
    elif isinstance(space, spaces.MultiBinary):
        outside[0] = 2
    else:
        outside = outside.astype(np.float64)
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
