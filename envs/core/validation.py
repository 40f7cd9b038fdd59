"""Checks of arguments that all environments share, and their errors.

Each check returns the value in the form that the environment uses, or raises an error that names
the argument, the rule and the value.

Shapes: N rows, A action dimensions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

_KINDS: Final = ["f", "b", "b"]
"""Of rewards, terminations and truncations."""
_NO_DTYPE: Final = np.dtype(object)

KINDS: Final = ("colour", "depth", "classes", "numbers", "flat")
"""What an array of an observation may be said to hold: colours up to 255, depth in metres, class
numbers or other numbers of a picture, or numbers that are no picture."""

RESET_OPTIONS: Final = ("reset_mask", "new_trial", "trial")


class EnvStateError(RuntimeError):
    """A method was called at a time when the environment cannot serve it."""


class StepBeforeResetError(EnvStateError):
    """`step` (or anything else that needs a running episode) came before the first `reset`."""


class EpisodeEndedError(EnvStateError):
    """`step` came after the end of an episode of a single environment."""


class ClosedError(EnvStateError):
    """A closed environment was used."""


def unknown_name(where: str, what: str, name: object, known: Iterable[str]) -> ValueError:
    """Build the error for a name that is none of the known ones, with the nearest one guessed.

    Args:
        where: dotted path or `Class.method` that received the name.
        what: what the name should have named.
        name: what was given.
        known: the valid names.

    Returns:
        The error, for the caller to raise.
    """
    choices = sorted(known)
    nearest = difflib.get_close_matches(str(name), choices, n=1)
    guess = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return ValueError(f"{where}: {what} must be one of {', '.join(choices)}, got {name!r}.{guess}")


@dataclass(frozen=True, slots=True)
class ResetRequest:
    """Which rows a `reset` moves, and where to."""

    new_trial_N: NDArray[np.bool_]
    new_episode_N: NDArray[np.bool_]
    """Rows that get a new episode in their trial; never overlaps `new_trial_N`."""
    trial_N: NDArray[np.int64] | None
    """Named trials, read only where `new_trial_N`."""


def check_in_use(where: str, *, closed: bool, fresh: bool) -> None:
    """Raise if an environment is closed, or fresh where its first reset should have come before.

    Raises:
        ClosedError: It is closed.
        StepBeforeResetError: It is fresh.
    """
    if closed:
        raise ClosedError(
            f"{where}: the environment must be open, got a closed one. Build a new one."
        )
    if fresh:
        method = where.rpartition(".")[2]
        raise StepBeforeResetError(
            f"{where}: reset() must come first, got {method}() on a fresh environment. "
            "Call reset()."
        )


def check_count(where: str, name: str, value: Any, *, least: int) -> None:
    """Raise unless an argument is an integer of at least `least`.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{where}: {name} must be an integer, got {value!r}.")
    if value < least:
        raise ValueError(f"{where}: {name} must be at least {least}, got {value}.")


def check_positive(where: str, name: str, value: Any) -> None:
    """Raise unless an argument is a number above 0.

    Raises:
        TypeError: It is no number.
        ValueError: It is not above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{where}: {name} must be a number, got {value!r}.")
    if not value > 0:
        raise ValueError(f"{where}: {name} must be above 0, got {value}.")


def check_choice(where: str, name: str, value: Any, known: Iterable[str]) -> None:
    """Raise unless an argument is one of some words.

    Raises:
        ValueError: It is another; the nearest is named.
    """
    if value not in known:
        raise unknown_name(where, name, value, known)


def check_privileged(where: str, names: Any, known: Iterable[str]) -> tuple[str, ...]:
    """Return names of observations.

    Raises:
        TypeError: They are no list.
        ValueError: There is no such observation.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"{where}: privileged must be a list of names, got {names!r}.")
    names = tuple(names)
    for name in names:
        if name not in known:
            raise unknown_name(where, "privileged", name, known)
    return names


def check_kinds(where: str, kinds: Any, known: Iterable[str]) -> dict[str, str]:
    """Return what observations hold, by their names.

    Raises:
        TypeError: They are no mapping.
        ValueError: There is no such observation, or no such kind.
    """
    if not isinstance(kinds, Mapping):
        raise TypeError(f"{where}: kinds must be a dict of observation to kind, got {kinds!r}.")
    for name, kind in kinds.items():
        if name not in known:
            raise unknown_name(where, "kinds", name, known)
        check_choice(where, f"kinds[{name!r}]", kind, KINDS)
    return dict(kinds)


def check_flag(where: str, value: Any) -> bool:
    """Return a truth value; `where` names the environment and its option.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{where}: must be True or False, got {value!r}.")
    return value


def check_seed(where: str, seed: Any) -> int:
    """Return the seed as an int.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is negative.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(
            f"{where}: seed must be one integer, got {type(seed).__name__}. Rows derive their own "
            "randomness from it and from their number."
        )
    if seed < 0:
        raise ValueError(f"{where}: seed must be at least 0, got {seed}. Use a positive integer.")
    return int(seed)


def check_reset_options(
    where: str, options: dict[str, Any] | None, *, num_envs: int, everything: bool
) -> ResetRequest:
    """Turn `reset` options into a request.

    Args:
        where: `Class.reset`, for messages.
        options: as given by the caller; never changed.
        num_envs: N.
        everything: the first reset or one with a seed: new trials in all rows.

    Raises:
        ValueError: An unknown option, a wrong shape or value, or options that contradict.
        TypeError: A mask or trial array of the wrong type.
    """
    options = options or {}
    for name in options:
        if name not in RESET_OPTIONS:
            raise unknown_name(where, "an option", name, RESET_OPTIONS)
    given = {
        name: _check_mask(where, name, options[name], num_envs)
        for name in ("reset_mask", "new_trial")
        if options.get(name) is not None
    }
    nothing_N = np.zeros(num_envs, dtype=bool)
    named = options.get("trial") is not None
    if everything:
        if given and not np.logical_or.reduce(list(given.values())).all():
            raise ValueError(
                f"{where}: options[{'/'.join(given)}] must cover all rows in the first reset and "
                "in one with a seed, as those start new trials everywhere. Leave the masks out, or "
                "call reset() first."
            )
        new_trial_N, new_episode_N = ~nothing_N, nothing_N
    elif not given:
        new_trial_N, new_episode_N = (~nothing_N, nothing_N) if named else (nothing_N, ~nothing_N)
    else:
        new_trial_N = given.get("new_trial", nothing_N)
        new_episode_N = given.get("reset_mask", nothing_N) & ~new_trial_N
    if named and "reset_mask" in given and "new_trial" not in given and not everything:
        raise ValueError(
            f"{where}: options['trial'] with options['reset_mask'] must come with "
            "options['new_trial'], which says in which rows the trials begin. Add it."
        )
    trial_N = _check_trials(where, options["trial"], new_trial_N) if named else None
    return ResetRequest(new_trial_N, new_episode_N, trial_N)


def _check_mask(where: str, name: str, mask: Any, num_envs: int) -> NDArray[np.bool_]:
    """Return a row mask, or say what is wrong with it."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"{where}: options[{name!r}] must be a numpy array of bool, got {kind}.")
    if mask.shape != (num_envs,):
        raise ValueError(
            f"{where}: options[{name!r}] must have shape ({num_envs},), one entry a row, "
            f"got {mask.shape}."
        )
    return mask


def _check_trials(where: str, trial: Any, used_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return trial numbers, or say what is wrong with them. Unused entries may hold anything."""
    trial = np.asarray(trial)
    if trial.dtype.kind not in "iu":
        raise TypeError(f"{where}: options['trial'] must hold integers, got {trial.dtype}.")
    if trial.shape != used_N.shape:
        raise ValueError(
            f"{where}: options['trial'] must have shape {used_N.shape}, one entry a row (any value "
            f"where new_trial is false), got {trial.shape}."
        )
    if (trial[used_N] < 0).any():
        row = int(np.flatnonzero(used_N & (trial < 0))[0])
        raise ValueError(
            f"{where}: options['trial'] must be at least 0, got {trial[row]} in row {row}."
        )
    return trial.astype(np.int64)


def check_state(
    where: str, state: Any, *, identity: Mapping[str, Any], keys: Sequence[str]
) -> None:
    """Raise unless a saved state is whole and belongs to this environment.

    Args:
        where: `Class.load_state_dict`, for messages.
        state: as given by the caller.
        identity: entries that must be equal.
        keys: further entries that must be there.

    Raises:
        TypeError: It is no dict.
        ValueError: An entry differs or is absent.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"{where}: state must be a dict as state_dict() returns it, got {type(state).__name__}."
        )
    for name, own in identity.items():
        if state.get(name) != own:
            raise ValueError(
                f"{where}: {name} of the state must be {own!r}, got {state.get(name)!r}. Build the "
                "environment that the state was saved from."
            )
    for name in keys:
        if name not in state:
            raise ValueError(
                f"{where}: state must hold {', '.join(keys)}, but {name} is missing. Pass on "
                "what state_dict() returned."
            )


def check_actions(where: str, actions: Any, space: Space[Any], num_envs: int) -> NDArray[Any]:
    """Return one action per row as an array that owns its memory.

    Args:
        where: `Class.step`, for messages.
        actions: array-like, (N,) or (N, A).
        space: the single action space: Discrete, MultiDiscrete, MultiBinary or Box.
        num_envs: N.

    Raises:
        TypeError: The entries are of the wrong kind.
        ValueError: The shape is wrong, or an action is outside the space.
    """
    try:
        array = np.array(actions)
    except ValueError:  # lists of different lengths
        raise ValueError(
            f"{where}: actions must be an array with one action a row, got {actions!r}."
        ) from None
    discrete = not isinstance(space, spaces.Box)
    if array.dtype.kind not in ("iu" if discrete else "fiu"):
        kind = "integers" if discrete else "numbers"
        raise TypeError(f"{where}: actions must be {kind}, got {array.dtype}.")
    shape = (num_envs, *(space.shape or ()))
    if array.shape != shape:
        raise ValueError(
            f"{where}: actions must have shape {shape}, one action a row, got {array.shape}."
        )
    low, high = _bounds(space)
    outside = ~((array >= low) & (array <= high))  # so that NaN is outside
    if outside.any():
        row = int(np.argwhere(outside)[0][0])
        raise ValueError(f"{where}: actions must lie in {space}, got {array[row]} in row {row}.")
    return array.astype(space.dtype, copy=False)


def check_transition(where: str, transition: Any, num_envs: int) -> tuple[NDArray[Any], ...]:
    """Return what all rows got from a step, if it is what the trial contract says.

    Of a wrong shape it would be broadcast, and of a wrong kind be added up or taken for true.

    Raises:
        TypeError: The parts are not arrays of numbers, bool and bool.
        ValueError: They do not have one entry a row.
    """
    reward_N, terminated_N, truncated_N = transition
    kinds = [getattr(part, "dtype", _NO_DTYPE).kind for part in transition]
    if kinds != _KINDS:
        raise TypeError(
            f"{where}: advance() must return arrays of float32 rewards, bool terminations and bool "
            f"truncations, got {', '.join(repr(part) for part in transition):.200}. Correct it."
        )
    if any(part.shape != (num_envs,) for part in transition):
        raise ValueError(
            f"{where}: advance() must return one reward, termination and truncation for each of "
            f"{num_envs} rows, got the shapes {[part.shape for part in transition]}. Correct it."
        )
    return reward_N, terminated_N, truncated_N


def _bounds(space: Space[Any]) -> tuple[Any, Any]:
    """Return the smallest and largest action of a supported space."""
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    if isinstance(space, spaces.Box):
        return space.low, space.high
    raise TypeError(
        "single_action_space must be Discrete, MultiDiscrete, MultiBinary or Box, got "
        f"{type(space).__name__}. Flatten it with a wrapper."
    )
