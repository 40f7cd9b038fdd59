"""Checks of what foreign environments return, before it is copied into the arrays of the rows.

NumPy bends what it copies: a vector of one number fills one of five, 300.7 becomes 44 in uint8,
and any text counts as true. Environments that are not the project's own are therefore read through
these checks at every step; they cost a few microseconds a key, and nothing where a picture's bounds
are those of its dtype.

A number that no simulator means, such as NaN, is another matter: it says that one row has broken
down, not that the environment is wrong. Such a row is treated as one whose simulator has crashed.

Shapes: N rows, K some of the rows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.core.process_worker import misfit

Outcome = tuple[float, bool, bool, dict[str, Any]]
"""Reward, terminated, truncated and info of one step."""

_LARGEST: Final = float(np.finfo(np.float32).max)
SANE: Final = 1e12
"""Numbers beyond this break a learner: squares of gradients no longer fit into float32."""

_log: Final = logging.getLogger(__name__)


class AnswerError(ValueError):
    """An environment answered what its spaces, or Gymnasium's rules, do not allow."""

    foreseen = True


class BrokenNumberError(ValueError):
    """A simulator gave a number that it cannot mean: its row has broken down."""


class CrashLimitError(RuntimeError):
    """A row has crashed more often than it may."""

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
        self._has_bounds = not covers_dtype(space)
        self._sane = sane_limit(space)

    def read(self, value: Any) -> NDArray[Any]:
        """Return a value as an array that can be copied without being bent.

        Raises:
            AnswerError: It is of another shape or kind, or outside the space.
            BrokenNumberError: A float is NaN, infinite or beyond all sense.
        """
        try:
            array = np.asarray(value)
        except ValueError:  # lists of different lengths
            raise AnswerError(
                f"{self._what} must be an array of shape {self.shape}, got {value!r}. "
                "Correct the environment."
            ) from None
        if self._sane is not None and array.dtype.kind == "f" and array.shape == self.shape:
            # First, as what cannot be meant has no place inside any bounds.
            if not is_sane(array, self._sane):
                raise BrokenNumberError(_insane(self._what, array, self._sane))
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
            BrokenNumberError: See `PartForm.read`; the row is as it was.
        """
        parts = self._parts
        if not isinstance(observation, Mapping) or observation.keys() != parts.keys():
            got = sorted(observation) if isinstance(observation, Mapping) else type(observation)
            raise AnswerError(
                f"the observation must be a dict with the keys {sorted(parts)}, as the space has "
                f"them, got {got}. Correct the environment or its space."
            )
        arrays = {name: part.read(observation[name]) for name, part in parts.items()}
        for name, array in arrays.items():
            into[name][row] = array


class RowWatch:
    """Watches batched observations, and rewards, for what would break a learner.

    Whole numbers outside their spaces are errors: they may name classes, whose embeddings are
    looked up by number, and one that is too large ends in an error of indexing far from its cause,
    or silently in the embedding of its neighbour. Numbers that cannot be meant are noted, for their
    rows to count as crashed. Nothing else is looked at here, as the rows of vectorised environments
    are trusted once `envs.check_trial_env` has passed.
    """

    def __init__(self, space: spaces.Dict) -> None:
        """Note the bounds of whole numbers, and how large floats may be."""
        self._bounds = [
            (name, part, *(_one_if_equal(bound) for bound in bounds(part)))
            for name, part in space.spaces.items()
            if np.dtype(part.dtype).kind in "iu" and not covers_dtype(part)
        ]
        limits = {name: sane_limit(part) for name, part in space.spaces.items()}
        self._limits = {name: limit for name, limit in limits.items() if limit is not None}
        self._broken: dict[int, str] = {}

    def look(
        self, where: str, observation: Mapping[str, NDArray[Any]], rows_K: Iterable[int]
    ) -> None:
        """Look at what rows see.

        Args:
            where: Names the environment.
            observation: Of all rows.
            rows_K: Those in which it is new.

        Raises:
            AnswerError: A whole number lies outside its space; it names the key, row and value.
        """
        self._check_bounds(where, observation)
        self._broken |= self.broken_in(observation, rows_K)

    def pay(self, reward_N: NDArray[Any]) -> None:
        """Look at rewards; those that cannot be meant become 0."""
        if is_sane(reward_N, SANE):
            return
        for row, reward in enumerate(reward_N):
            if not is_sane(reward, SANE):
                self.note(row, _insane("the reward", reward, SANE))
                reward_N[row] = 0.0

    def note(self, row: int, what: str) -> None:
        """Note that a row has shown what cannot be meant."""
        self._broken.setdefault(row, what)

    def take_broken(self) -> dict[int, str]:
        """Return what was noted since the last call, by row in their order."""
        broken, self._broken = self._broken, {}
        return dict(sorted(broken.items()))

    def broken_in(
        self, observation: Mapping[str, NDArray[Any]], rows_K: Iterable[int]
    ) -> dict[int, str]:
        """Return what is wrong with what some rows see, by row: its first key that is wrong."""
        found: dict[int, str] = {}
        for name, limit in self._limits.items():
            value = observation[name]
            # Pictures on a GPU are from our own renderer, which makes no such numbers.
            if not isinstance(value, np.ndarray) or is_sane(value, limit):
                continue
            for row in map(int, rows_K):
                if row not in found and not is_sane(value[row], limit):
                    found[row] = _insane(f"observation[{name!r}]", value[row], limit)
        return found

    def _check_bounds(self, where: str, observation: Mapping[str, NDArray[Any]]) -> None:
        for name, space, low, high in self._bounds:
            value = observation[name]
            # Pictures on a GPU are from our own renderer.
            if not isinstance(value, np.ndarray) or not value.size:
                continue
            if np.ndim(low) == 0 and np.ndim(high) == 0:
                if value.min() >= low and value.max() <= high:
                    continue
            elif (value >= low).all() and (value <= high).all():
                continue
            wrong = (value < low) | (value > high)
            raise AnswerError(
                f"{where}: observation[{name!r}] must lie in {space}, got {value[wrong][0]} in row "
                f"{np.argwhere(wrong)[0][0]}. Correct the environment or its space; "
                "envs.check_trial_env helps."
            )


class Crashes:
    """Counts the crashes of rows, and ends the run where a row crashes all the time.

    Attributes:
        total_N: how often each row has crashed since it was built, int64 (N,).
        in_a_row_N: how often since its last episode that ended well, int64 (N,). Saved.
        crashed_N: rows whose running episode ends by a crash, bool (N,).
        told: what was said of the first crash of each kind.
    """

    def __init__(self, num_rows: int, most: int) -> None:
        """Begin at 0; a row may crash `most` times in a row."""
        self.most = most
        self.total_N, self.in_a_row_N = np.zeros((2, num_rows), np.int64)
        self.crashed_N = np.zeros(num_rows, bool)
        self.told: dict[str, str] = {}

    def add(self, row: int, where: str, what: str) -> None:
        """Count a crash in the running episode of a row.

        Args:
            row: Whose.
            where: Names the environment, row and trial.
            what: Has happened; what stands before ` must ` names its kind.

        Raises:
            CrashLimitError: It is one too many.
        """
        self.count(row)
        text = f"{where}: {what}"
        if self.in_a_row_N[row] > self.most:
            raise CrashLimitError(
                f"{text}. This row has crashed {self.in_a_row_N[row]} times in a row, more than "
                f"max_crashes={self.most}. Correct the environment, or raise its max_crashes."
            )
        kind = what.partition(" must ")[0]
        if kind not in self.told:
            self.told[kind] = text
            _log.warning(
                "%s. The episode counts as crashed and is truncated; more of this kind are "
                "counted, not told.", text
            )  # fmt: skip

    def count(self, row: int) -> None:
        """Count a crash that is told elsewhere."""
        self.total_N[row] += 1
        self.in_a_row_N[row] += 1
        self.crashed_N[row] = True

    def forgive(self, ended_N: NDArray[np.bool_]) -> None:
        """Count from 0 again in rows whose episodes have ended well."""
        self.in_a_row_N[ended_N & ~self.crashed_N] = 0


def sane_limit(space: spaces.Space[Any]) -> float | None:
    """Return how large numbers of a space may be; None where they are whole numbers.

    Finite bounds allow what lies within them, as far as learners, which compute in float32, have
    numbers for it. The largest float is no bound: people write it where they mean none.
    """
    if not isinstance(space, spaces.Box) or space.dtype is None or space.dtype.kind != "f":
        return None
    size = np.abs(np.concatenate([space.low.reshape(-1), space.high.reshape(-1)]), dtype=float)
    meant = size[size < 0.99 * float(np.finfo(space.low.dtype).max)]
    return min(max(SANE, float(meant.max(initial=0.0))), _LARGEST)


def is_sane(value: NDArray[Any], limit: float) -> bool:
    """Say whether all numbers are finite and at most so large."""
    # NaN fails both comparisons.
    return not value.size or bool(value.min() >= -limit and value.max() <= limit)


def _insane(what: str, value: NDArray[Any], limit: float) -> str:
    value = np.atleast_1d(value)
    wrong = value[~(np.abs(value) <= limit)]
    return f"{what} must be finite and at most {limit:g} in size, got {wrong.flat[0]:g}"


def bounds(space: spaces.Space[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and the largest values of a space of arrays."""
    if isinstance(space, spaces.Box):
        return space.low, space.high
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(1, np.int64), np.ones(1, np.int64)
    assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    count = space.n if isinstance(space, spaces.Discrete) else space.nvec
    return np.asarray(space.start), np.asarray(space.start + count - 1)


def nothing_in(space: spaces.Space[Any]) -> NDArray[Any]:
    """Return 0, or the number nearest to it that a space of arrays allows."""
    return np.clip(np.zeros(space.shape or ()), *bounds(space)).astype(space.dtype)


def covers_dtype(space: spaces.Space[Any]) -> bool:
    """Say whether all that a space's dtype can hold lies within its bounds."""
    dtype = np.dtype(space.dtype)
    if dtype.kind not in "iu":
        return dtype.kind == "b"
    (low, high), limits = bounds(space), np.iinfo(dtype.type)
    return bool(np.all(low <= limits.min) and np.all(high >= limits.max))


def _one_if_equal(bound: NDArray[Any]) -> Any:
    """Return equal bounds as one number, as comparing with that is cheaper."""
    return bound.flat[0] if bound.size and (bound == bound.flat[0]).all() else bound


def check_outcome(answer: Sequence[Any]) -> Outcome:
    """Return what a step said beside its observation: reward, terminated, truncated, info.

    Raises:
        AnswerError: They are not four, the reward is no number, a flag is no truth value, or info
            no dict.
    """
    if len(answer) != 4:
        raise AnswerError(
            "step() must return (observation, reward, terminated, truncated, info), got "
            f"{len(answer) + 1} values. Correct the environment."
        )
    reward, terminated, truncated, info = answer
    if isinstance(reward, np.generic | np.ndarray) and reward.ndim == 0:
        reward = reward.item()
    if not isinstance(reward, int | float):
        raise AnswerError(
            f"the reward must be one number, got {reward!r}. Correct the environment."
        )
    if abs(reward) > _LARGEST:  # which float32 has no number for, nor float for all integers
        reward = math.copysign(math.inf, reward)
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
