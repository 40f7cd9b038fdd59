"""The interface of a source of rollouts, as the learning loop sees it.

`RolloutSource` holds what every source shares: counters, records, times, and the memory of each
row's trial. `relic.ppo.collector` steps environments of this process, `relic.cluster.remote` asks
actors.

A row has three numbers. Its *global* number, over all ranks, keys every random draw, so that
results do not depend on how rows are shared out (`Rollout.global_row_N`). Its number in this
*process* is its line of the rollout; `row` and `rows_K` mean this one unless a name says otherwise.
Its *index* in a `RowGroup` is its line of the group's memory (`RowGroup.index`, `index_K`).

Shapes: N rows, K chosen rows.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relic.noise import Stream, key
from relic.policy.memory.sequence_model import SequenceState
from relic.policy.policy import Policy
from relic.policy.steps import PolicyState
from relic.ppo.rollout import Rollout

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class RowGroup:
    """Rows that act together, and what the policy remembers of their trials."""

    rows: slice
    """Their numbers in this process."""
    state: PolicyState
    prefix: SequenceState
    """The memory as it was when the newest chunk began."""

    @property
    def rows_N(self) -> Array:
        """The same as an array."""
        return np.arange(self.rows.start, self.rows.stop)

    def index(self, rows_K: Array) -> Array:
        """Return where rows of this process stand in the group's memory."""
        return rows_K - self.rows.start

    def depth_mask(self, rows_K: Array) -> Tensor | None:
        """Return the factors of the layers that some rows act with; None without depth dropout."""
        mask_NL = self.state.memory.depth_mask_NL
        if mask_NL is None:
            return None
        return mask_NL[torch.from_numpy(self.index(rows_K)).to(mask_NL.device)]


class RolloutSource(ABC):
    """Fills a rollout, chunk by chunk."""

    def __init__(
        self,
        policy: Policy,
        rollout: Rollout,
        *,
        seed: int,
        world_size: int = 1,
        cache_dtype: torch.dtype = torch.float32,
    ) -> None:
        """Set up the counters.

        Args:
            policy: Who acts.
            rollout: What is filled.
            seed: Of trials and acting noise.
            world_size: Ranks that collect alike, for counting environment steps.
            cache_dtype: Of what the policy remembers.
        """
        self.policy = policy
        self.rollout = rollout
        self.seed = seed
        self.world_size = world_size
        self._cache_dtype = cache_dtype
        self.row_steps = 0
        """Steps that each row has done in the run."""
        self.times: dict[str, float] = defaultdict(float)
        """Seconds spent so far, by activity; see `take_times`."""
        self.restarts = 0
        """Actors that had to be started again; 0 where the environments are in this process."""
        self._episodes: list[dict[str, Array]] = []
        self._crashes = 0

    @property
    @abstractmethod
    def groups(self) -> Sequence[RowGroup]:
        """The groups of rows, in their order."""

    @abstractmethod
    def begin_rollout(self) -> None:
        """Move all rows to new trials, with an empty rollout and an empty memory."""

    @abstractmethod
    def collect(self, until: int) -> None:
        """Act until `until` columns are filled."""

    @abstractmethod
    def bootstrap_value(self) -> Tensor:
        """Return what the critic expects from here on, (N,); the memory is not written.

        It stands for all that follows the newest step, which the rollout does not hold yet.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, but for the rollout and the memory."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state; the rollout must have been restored before.

        Args:
            state: From `state_dict`. After the last step of a rollout its `groups` may be None:
                what follows begins in new trials, so that only the count of steps matters.
        """

    @abstractmethod
    def close(self) -> None:
        """Release threads and connections; environments stay open."""

    @property
    def env_steps(self) -> int:
        """Environment steps of the run so far, over all rows and ranks."""
        return self.row_steps * self.rollout.num_envs * self.world_size

    @property
    def rollout_began(self) -> int:
        """Steps that a row had taken when the rollout under way, a trial in each row, began."""
        return self.row_steps - self.rollout.size

    def row_batches(self, rows_N: Array, tokens: int | None) -> Iterator[Array]:
        """Cut rows into batches whose contexts have at most so many tokens, or one row each.

        Args:
            rows_N: Rows of this process.
            tokens: None: all rows at once.
        """
        at_once = max(len(rows_N), 1)
        if tokens is not None:
            at_once = max(1, tokens // max(self.rollout.size, 1))
        for first in range(0, len(rows_N), at_once):
            yield rows_N[first : first + at_once]

    def take_episodes(self) -> dict[str, Array]:
        """Return the records of episodes that ended since the last call, one entry each."""
        records, self._episodes = self._episodes, []
        if not records:
            return {}
        return {key: np.concatenate([r[key] for r in records]) for key in records[0]}

    def take_crashes(self) -> int:
        """Return how often rows of this process have crashed since the last call."""
        crashes, self._crashes = self._crashes, 0
        return crashes

    @contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        """Count the time inside for an activity."""
        began = time.perf_counter()
        yield
        self.times[activity] += time.perf_counter() - began

    def take_times(self) -> dict[str, float]:
        """Return the seconds spent since the last call, by activity."""
        times, self.times = dict(self.times), defaultdict(float)
        return times

    def _new_group(self, rows: slice) -> RowGroup:
        """Make a group of some rows, with an empty memory."""
        state = self.policy.initial_state(
            rows.stop - rows.start, self.rollout.num_steps, dtype=self._cache_dtype
        )
        return RowGroup(rows, state, state.memory.snapshot())

    def _draw_depth_mask(self, group: RowGroup) -> None:
        """Draw, row by row, which layers are dropped until the next trial.

        One mask for acting, refreshing and learning: else the ratio would compare two networks.
        """
        masks = []
        for row in self.rollout.global_row_N[group.rows]:
            # Seeded row by row, so that a row's draw depends neither on its group nor on its rank.
            generator = torch.Generator()
            generator.manual_seed(int(key(self.seed, Stream.DEPTH, int(row), self.rollout_began)))
            masks.append(self.policy.memory.draw_depth_mask(1, generator))
        if masks[0] is not None:
            group.state.memory.set_depth_mask(torch.cat(masks))
