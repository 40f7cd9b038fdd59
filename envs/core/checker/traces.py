"""What rows saw, in a form that can be compared: the checker's memory. No rule lives here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import gymnasium
import numpy as np
from numpy.typing import NDArray

Outcome = dict[str, Any]
"""What one row got from one call, by name; arrays as digests."""

OPENING: Final = 3
"""Steps at the start of the tape in which, if it can be had, no episode ends."""

_TRIES: Final = 40
"""Tapes drawn before a shorter opening is taken."""

SHORT: Final = 12
"""Steps of the checks that need no episode's end."""

Trace = list[list[Outcome]]
"""Outcomes by step, then row."""


def digest(value: Any) -> Any:
    """Return something small that is equal exactly when the values are, bit for bit."""
    array = np.asarray(value)
    if array.dtype == object:
        return value
    hashed = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=12)
    return array.dtype.str, array.shape, hashed.hexdigest()


def seen(observation: dict[str, NDArray[Any]], row: int, label: str) -> Outcome:
    """Return what a batched observation shows to a row."""
    return {f"{label}[{name!r}]": digest(value[row]) for name, value in observation.items()}


def outcome(env: Any, result: tuple[Any, ...], row: int) -> Outcome:
    """Return what a row got from a `step`."""
    observation, rewards, terminations, truncations, infos = result
    got = seen(observation, row, "observation")
    got["reward"] = float(rewards[row])
    got["termination"] = bool(terminations[row])
    got["truncation"] = bool(truncations[row])
    got["trial"] = int(env.unwrapped.trial[row])
    if got["termination"] or got["truncation"]:
        final = infos["final_obs"][row]
        got |= {f"final_obs[{name!r}]": digest(value) for name, value in final.items()}
        record = infos["episode_record"]
        got |= {f"episode_record[{name!r}]": digest(value[row]) for name, value in record.items()}
    return got


def first_difference(one: Trace, other: Trace, rows: Sequence[tuple[int, int]]) -> str | None:
    """Name the first difference between pairs of rows (of `one`, of `other`), None if equal."""
    for step, (outcomes_one, outcomes_other) in enumerate(zip(one, other, strict=True)):
        for row_one, row_other in rows:
            got, want = outcomes_one[row_one], outcomes_other[row_other]
            for name in {**want, **got}:
                if name not in got or name not in want or got[name] != want[name]:
                    return f"{name} of row {row_one} differs at step {step}"
    return None


@dataclass(frozen=True)
class Subject:
    """The environment under test, and a tape of random actions for it."""

    env: Any
    make: Callable[..., Any] | None
    seed: int
    trials: NDArray[np.int64] = field(init=False)
    """Named trials, one a row, all different where there are enough."""
    tape: list[NDArray[Any]] = field(init=False)
    """Actions of enough steps to end every row's episode, and a few more."""
    opening_steps: int = field(init=False, default=OPENING)
    """Steps of the opening; `settle` finds out."""

    def __post_init__(self) -> None:
        """Draw trials and actions."""
        self.env.single_action_space.seed(self.seed)
        steps = max(int(self.core.max_episode_steps) + 4, 24)
        object.__setattr__(self, "tape", [self.sample(self.num_envs) for _ in range(steps)])
        object.__setattr__(self, "trials", np.arange(self.num_envs, dtype=np.int64))

    @property
    def core(self) -> Any:
        """The environment under all wrappers."""
        return self.env.unwrapped

    @property
    def num_envs(self) -> int:
        """N."""
        return self.env.num_envs

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Each row paired with itself."""
        return [(row, row) for row in range(self.num_envs)]

    @property
    def opening(self) -> list[NDArray[Any]]:
        """The start of the tape, for checks that want all rows in their first episode.

        Up to `OPENING` steps: none where an episode can end at once, as in a bandit.
        """
        return self.tape[: self.opening_steps]

    def settle(self) -> None:
        """Redraw the start of the tape until no episode ends in it; shorten it if that fails."""
        longest = min(OPENING, int(self.core.max_episode_steps) - 1)
        for steps in range(longest, 0, -1):
            for _ in range(_TRIES):
                self.begin()
                outcomes = [got for step in self.play(self.tape[:steps]) for got in step]
                if not any(got["termination"] or got["truncation"] for got in outcomes):
                    object.__setattr__(self, "opening_steps", steps)
                    return
                self.tape[:steps] = [self.sample(self.num_envs) for _ in range(steps)]
        object.__setattr__(self, "opening_steps", 0)

    def sample(self, count: int) -> NDArray[Any]:
        """Draw actions for so many rows."""
        space: gymnasium.Space[Any] = self.env.single_action_space
        return np.stack([np.asarray(space.sample()) for _ in range(count)])

    def begin(self, trials: NDArray[np.int64] | None = None) -> list[Outcome]:
        """Reset all rows under the subject's seed, into named trials, and return what they see."""
        trials = self.trials if trials is None else trials
        observation, _ = self.env.reset(seed=self.seed, options={"trial": trials})
        return self.look(observation)

    def open(self) -> list[Outcome]:
        """Begin, play the opening, and return what the rows saw last."""
        first = self.begin()
        return self.play(self.opening)[-1] if self.opening else first

    def look(self, observation: dict[str, NDArray[Any]]) -> list[Outcome]:
        """Return what an observation shows to each row."""
        count = len(next(iter(observation.values())))
        return [seen(observation, row, "observation") for row in range(count)]

    def play(self, tape: Sequence[NDArray[Any]], env: Any = None) -> Trace:
        """Step through a tape of actions."""
        env = self.env if env is None else env
        trace = []
        for actions in tape:
            result = env.step(actions)
            trace.append([outcome(env, result, row) for row in range(env.num_envs)])
        return trace

    def mask(self, *rows: int) -> NDArray[np.bool_]:
        """Return a row mask."""
        chosen = np.zeros(self.num_envs, dtype=bool)
        chosen[list(rows)] = True
        return chosen
