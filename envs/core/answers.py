"""Checks of what foreign environments return, before it is copied into the arrays of the rows.

NumPy bends what it copies: a vector of one number fills one of five, 300.7 becomes 44 in uint8,
and any text counts as true. Environments that are not the project's own are therefore read through
these checks at every step; they cost a few microseconds a key, and nothing where a picture's bounds
are those of its dtype.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.core.process_worker import misfit

Outcome = tuple[float, bool, bool, dict[str, Any]]
"""Reward, terminated, truncated and info of one step."""

_LARGEST: Final = float(np.finfo(np.float32).max)


class AnswerError(ValueError):
    """An environment answered what its spaces, or Gymnasium's rules, do not allow."""

    foreseen = True


class PartForm:
    """What one key of an observation may hold."""

    def __init__(self, name: str, space: spaces.Space[Any]) -> None:
        """Read the bounds of a Box, Discrete, MultiDiscrete or MultiBinary space."""
        self._what = f"observation[{name!r}]"
        self._space = space
        self.shape: tuple[int, ...] = space.shape or ()
        self.dtype: np.dtype[Any] = np.dtype(space.dtype)
        low, high = bounds(space)
        self._low, self._high = _one_if_equal(low), _one_if_equal(high)
        self._has_bounds = not self._covers_dtype()

    def _covers_dtype(self) -> bool:
        if self.dtype.kind not in "iu":
            return self.dtype.kind == "b"
        limits = np.iinfo(self.dtype.type)
        return bool(np.all(self._low <= limits.min) and np.all(self._high >= limits.max))

    def read(self, value: Any) -> NDArray[Any]:
        """Return a value as an array that can be copied without being bent.

        Raises:
            AnswerError: It is of another shape or kind, or outside the space.
        """
        try:
            array = np.asarray(value)
        except ValueError:  # lists of different lengths
            raise AnswerError(
                f"{self._what} must be an array of shape {self.shape}, got {value!r}. "
                "Correct the environment."
            ) from None
        fault = misfit(array, self.shape, self.dtype)
        if fault:
            raise AnswerError(f"{self._what} {fault}. Correct the environment or its space.")
        if self._has_bounds and array.size and not self._holds(array):
            raise AnswerError(
                f"{self._what} must lie in {self._space}, got {self._outside(array)}. Correct the "
                "environment or its space."
            )
        return array

    def _holds(self, array: NDArray[Any]) -> bool:
        """Say whether all values lie within the bounds, once rounded as they are stored."""
        if array.dtype != self.dtype and self.dtype.kind == "f":
            array = array.astype(self.dtype)
        if np.ndim(self._low) == 0 and np.ndim(self._high) == 0:
            return bool(array.min() >= self._low and array.max() <= self._high)
        return bool((array >= self._low).all() and (array <= self._high).all())

    def _outside(self, array: NDArray[Any]) -> Any:
        """Return the first value that lies outside."""
        wrong = ~((array >= self._low) & (array <= self._high))
        return array[wrong].flat[0] if wrong.any() else array.flat[0]


class ObservationForm:
    """What one row's observation may hold."""

    def __init__(self, space: spaces.Dict) -> None:
        """Read the spaces of all keys."""
        self._parts = {name: PartForm(name, part) for name, part in space.spaces.items()}

    def copy(self, observation: Any, into: Mapping[str, NDArray[Any]], row: int) -> None:
        """Copy an observation into one row of arrays.

        Raises:
            AnswerError: Its keys, or the shape, kind or range of a value, are not the space's.
        """
        parts = self._parts
        if not isinstance(observation, Mapping) or observation.keys() != parts.keys():
            got = sorted(observation) if isinstance(observation, Mapping) else type(observation)
            raise AnswerError(
                f"the observation must be a dict with the keys {sorted(parts)}, as the space has "
                f"them, got {got}. Correct the environment or its space."
            )
        for name, part in parts.items():
            into[name][row] = part.read(observation[name])


class CategoryWatch:
    """Finds categories outside their spaces in batched observations.

    Embeddings are looked up by number: one that is too large ends in an error of indexing far from
    its cause, or silently in the embedding of its neighbour. Other spaces are not looked at here,
    as the rows of vectorised environments are trusted once `envs.check_trial_env` has passed.
    """

    def __init__(self, space: spaces.Dict) -> None:
        """Note the bounds of the Discrete and MultiDiscrete parts."""
        kinds = spaces.Discrete | spaces.MultiDiscrete
        self._bounds = [
            (name, part, *(_one_if_equal(bound) for bound in bounds(part)))
            for name, part in space.spaces.items()
            if isinstance(part, kinds)
        ]

    def check(self, where: str, observation: Mapping[str, NDArray[Any]]) -> None:
        """Raise where a category lies outside its space.

        Raises:
            AnswerError: Naming the key, the row and the value.
        """
        for name, space, low, high in self._bounds:
            value = observation[name]
            if np.ndim(low) == 0 and np.ndim(high) == 0:
                if value.min() >= low and value.max() <= high:
                    continue
            elif (value >= low).all() and (value <= high).all():
                continue
            row = int(np.argwhere((value < low) | (value > high))[0][0])
            raise AnswerError(
                f"{where}: observation[{name!r}] must lie in {space}, got {value[row]} in row "
                f"{row}. Correct the environment or its space; envs.check_trial_env helps."
            )


def bounds(space: spaces.Space[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and the largest values of a space of arrays."""
    if isinstance(space, spaces.Box):
        return space.low, space.high
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(1, np.int64), np.ones(1, np.int64)
    assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    count = space.n if isinstance(space, spaces.Discrete) else space.nvec
    return np.asarray(space.start), np.asarray(space.start + count - 1)


def _one_if_equal(bound: NDArray[Any]) -> Any:
    """Return equal bounds as one number, as comparing with that is cheaper."""
    return bound.flat[0] if bound.size and (bound == bound.flat[0]).all() else bound


def check_outcome(answer: Sequence[Any]) -> Outcome:
    """Return what a step said beside its observation: reward, terminated, truncated, info.

    Raises:
        AnswerError: They are not four, the reward is no finite number, a flag is no truth value,
            or info no dict.
    """
    if len(answer) != 4:
        raise AnswerError(
            "step() must return (observation, reward, terminated, truncated, info), got "
            f"{len(answer) + 1} values. Correct the environment."
        )
    reward, terminated, truncated, info = answer
    if isinstance(reward, np.generic | np.ndarray) and reward.ndim == 0:
        reward = reward.item()
    # Put as a denial, the comparison refuses NaN, too.
    if not isinstance(reward, int | float) or not abs(reward) <= _LARGEST:
        raise AnswerError(
            f"the reward must be one finite number, got {reward!r}. Correct the environment."
        )
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            raise AnswerError(
                f"{name} must be True or False, got {flag!r}. Correct the environment."
            )
    if not isinstance(info, dict):
        raise AnswerError(
            f"info must be a dict, got {type(info).__name__}. Correct the environment."
        )
    return float(reward), bool(terminated), bool(truncated), info
