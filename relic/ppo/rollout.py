"""A rollout: preallocated arrays of N rows and T steps, and the context's order of episodes.

The steps stay in time order, in which returns are estimated. Shuffling changes an index array only:
`context_order_NT[n, p]` is the time step that stands at position p of row n's context. Completed
episodes are permuted whole, so that the policy learns to use what it finds wherever it stands; the
running episode keeps its place at the end, as the agent is in the middle of it.

Observations, actions, log-probs and values live on one device, host or CUDA; what the environment
says (rewards, ends) always lives on the host, where it comes from. Nothing here acts or learns.

Shapes: N rows, T steps, K chosen rows, C steps of the context or of a range of it, E episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from relic.noise import Stream, key, mix, shuffle_in_place
from relic.policy.steps import SequenceBatch
from relic.ppo.final_observations import FinalObservations


def time_order(num_rows: int, num_steps: int) -> np.ndarray:
    """Return the order of a context that was never shuffled, int64 (N, T)."""
    return np.tile(np.arange(num_steps, dtype=np.int64), (num_rows, 1))


def shuffle_episodes(
    context_order_NC: np.ndarray,
    episode_starts_NT: np.ndarray,
    ended_N: np.ndarray,
    *,
    seed: int,
    global_row_N: np.ndarray,
    draw: int,
) -> None:
    """Permute the completed episodes of each row's context at random, in place.

    Args:
        context_order_NC: int64; the present order, and afterwards the new one.
        episode_starts_NT: bool, in time order; T may exceed C. Step 0 counts as a start.
        ended_N: bool; the last step ended its episode, so no episode is running.
        seed: The run's seed.
        global_row_N: Numbers of the rows over all ranks, int64; each row is shuffled on its own.
        draw: Number of this shuffle in the run.
    """
    starts_NC = episode_starts_NT[:, : context_order_NC.shape[1]].copy()
    starts_NC[:, 0] = True
    row_E, start_E = np.divmod(np.flatnonzero(starts_NC), starts_NC.shape[1])
    _shuffle_kernel(
        context_order_NC,
        start_E,
        np.searchsorted(row_E, np.arange(len(starts_NC) + 1)),
        ended_N,
        key(seed, Stream.SHUFFLE, draw),
        np.asarray(global_row_N, np.int64),
    )


@numba.njit(cache=True, nogil=True)
def _shuffle_kernel(order_NC, start_E, bounds, ended_N, draw_key, global_row_N):
    """Shuffle row n, whose episodes start at `start_E[bounds[n] : bounds[n + 1]]`."""
    num_rows, length = order_NC.shape
    for n in range(num_rows):
        order_C, starts = order_NC[n], start_E[bounds[n] : bounds[n + 1]]
        count = len(starts)
        first, after = np.empty(count, np.int64), np.empty(count, np.int64)
        # Steps of an episode follow each other in time, so its two ends say all of it.
        position = 0
        for k in range(count):
            first[k] = order_C[position]
            following = np.searchsorted(starts, first[k]) + 1
            after[k] = starts[following] if following < count else length
            position += after[k] - first[k]
        picks = np.arange(count)
        completed = count if ended_N[n] else count - 1
        # A key of each row's own: its order depends neither on the other rows nor on their number.
        shuffle_in_place(picks[:completed], mix(draw_key ^ mix(np.uint64(global_row_N[n]))))
        position = 0
        for pick in picks:
            begin, size = first[pick], after[pick] - first[pick]
            part = order_C[position : position + size]
            for offset in range(size):
                part[offset] = begin + offset
            position += size


Array = np.ndarray[Any, Any]
_HOST_COLUMNS = ("reward_NT", "episode_starts_NT", "terminated_NT", "truncated_NT", "crashed_NT")
_ALL = slice(None)


class Rollout:
    """N x T steps of N trials, filled column by column.

    Every row's trial begins at column 0. `size` columns are filled.
    """

    def __init__(
        self,
        num_envs: int,
        num_steps: int,
        observation_space: spaces.Dict,
        *,
        action_space: spaces.Space[Any],
        dtypes: Mapping[str, torch.dtype] | None = None,
        device: torch.device | str = "cpu",
        first_row: int = 0,
        demonstrations: bool = False,
    ) -> None:
        """Allocate everything.

        Args:
            num_envs: N.
            num_steps: T.
            observation_space: What is stored of one observation (`Policy.stored_space`).
            action_space: Of one row.
            dtypes: Types of observations, where they are not those of the space
                (`Policy.stored_dtypes`).
            device: Where observations, actions, log-probs and values live.
            first_row: Number of row 0 over all ranks.
            demonstrations: Keep the expert's actions beside those taken.
        """
        self.num_envs = num_envs
        self.num_steps = num_steps
        self.device = torch.device(device)
        self.global_row_N = np.arange(first_row, first_row + num_envs)
        shape = (num_envs, num_steps)
        dtypes = dtypes or {}
        self.observation = {
            name: self._empty(space, dtypes.get(name))
            for name, space in observation_space.spaces.items()
        }
        # Vectors are in the policy's units and as exact: else their log-probs would change.
        kind = torch.float32 if isinstance(action_space, spaces.Box) else None
        self.action = self._empty(action_space, kind)
        self.expert_action = self._empty(action_space, kind) if demonstrations else None
        self.log_prob_NT = torch.zeros(shape, device=self.device)
        self.value_NT = torch.zeros(shape, device=self.device)
        self.final_value_NT = torch.zeros(shape, device=self.device)
        self.finals = FinalObservations()
        self.reward_NT = np.zeros(shape, np.float32)
        self.episode_starts_NT = np.zeros(shape, bool)
        self.terminated_NT = np.zeros(shape, bool)
        self.truncated_NT = np.zeros(shape, bool)
        self.crashed_NT = np.zeros(shape, bool)
        self.context_order_NT = time_order(num_envs, num_steps)
        self.size = 0
        self._shuffled = 0

    def _empty(self, space: spaces.Space[Any], dtype: torch.dtype | None = None) -> Tensor:
        shape = (self.num_envs, self.num_steps, *(space.shape or ()))
        if dtype is None:
            dtype = torch.from_numpy(np.empty(0, space.dtype)).dtype
        return torch.zeros(shape, dtype=dtype, device=self.device)

    @property
    def nbytes(self) -> int:
        """Bytes of all columns, host and device."""
        tensors = [*self.observation.values(), self.action, self.log_prob_NT, self.value_NT]
        tensors += [self.final_value_NT]
        tensors += [] if self.expert_action is None else [self.expert_action]
        arrays = [getattr(self, name) for name in _HOST_COLUMNS] + [self.context_order_NT]
        return sum(t.nbytes for t in tensors) + sum(a.nbytes for a in arrays) + self.finals.nbytes

    @property
    def ended_N(self) -> Array:
        """Whether each row's newest step ended its episode, so that none is running."""
        last = self.size - 1
        return self.terminated_NT[:, last] | self.truncated_NT[:, last]

    def clear(self) -> None:
        """Begin anew, in new trials."""
        self.size = 0
        self.restore_time_order()
        # Sums and maxima over the unfilled part must stay finite; ends are read as flags.
        self.final_value_NT.zero_()
        self.finals.kept.clear()

    def shuffle(self, seed: int, draw: int) -> None:
        """Permute the completed episodes in each row's context.

        Args:
            seed: The run's seed.
            draw: Number of this shuffle in the run.
        """
        shuffle_episodes(
            self.context_order_NT[:, : self.size],
            self.episode_starts_NT,
            self.ended_N,
            seed=seed,
            global_row_N=self.global_row_N,
            draw=draw,
        )
        self._shuffled = self.size

    def restore_time_order(self) -> None:
        """Put the episodes of each row's context back into the order in which they happened.

        Memories of another order are no longer this context's until a refresh.
        """
        self.context_order_NT[:] = np.arange(self.num_steps)
        self._shuffled = 0

    def batch(
        self, rows_K: Array, begin: int, end: int, device: torch.device | str = "cpu"
    ) -> SequenceBatch:
        """Gather a range of the context, in the context's order.

        Args:
            rows_K: Numbers of the rows in this process.
            begin: First position.
            end: One past the last position.
            device: Where the batch goes.
        """

        def gather(column: Tensor) -> Tensor:
            return self.in_context(column, rows_K, begin, end).to(device, non_blocking=True)

        # The action before a step is that of the step before in time, not in the context; at an
        # episode's start, where the two differ, nobody looks at it.
        before = None
        if begin < self._shuffled:
            before = np.maximum(self.context_order_NT[rows_K, begin:end] - 1, 0)
        prev_action = self._gather(self.action, rows_K, begin - 1, end - 1, order_KC=before)
        return SequenceBatch(
            observation={key: gather(column) for key, column in self.observation.items()},
            action=gather(self.action),
            prev_action=prev_action.to(device, non_blocking=True),
            episode_starts=gather(torch.from_numpy(self.episode_starts_NT)),
        )

    def in_context(self, column: Tensor, rows_K: Array, begin: int, end: int) -> Tensor:
        """Gather a range of the context from a column in time order: (N, T, ...) to (K, C, ...)."""
        # Beyond what was shuffled, positions are times, and a slice is cheaper than an index.
        order = self.context_order_NT[rows_K, begin:end] if begin < self._shuffled else None
        return self._gather(column, rows_K, begin, end, order_KC=order)

    def _gather(
        self, column: Tensor, rows_K: Array, begin: int, end: int, *, order_KC: Array | None
    ) -> Tensor:
        rows = torch.from_numpy(rows_K).to(column.device)
        if order_KC is not None:
            return column[rows[:, None], torch.from_numpy(order_KC).to(column.device)]
        if begin >= 0:
            return column[:, begin:end].index_select(0, rows)
        # One step before the first: its content is never looked at.
        taken = column[:, :end].index_select(0, rows)
        return torch.cat([taken[:, :1] if end else column[:, :1].index_select(0, rows), taken], 1)

    def scatter(self, column: Tensor, rows_K: Array, context_KC: Tensor) -> None:
        """Write the first C positions of the context back into a column in time order."""
        length = context_KC.shape[1]
        order = torch.from_numpy(self.context_order_NT[rows_K, :length]).to(self.device)
        rows = torch.from_numpy(rows_K).to(self.device)
        column[rows[:, None], order] = context_KC.to(column)

    def chunk_state(self, begin: int, end: int, rows: slice = _ALL) -> dict[str, Any]:
        """Return what never changes again of the steps `[begin, end)`, for append-only files.

        Final values are as they were collected, or as a refresh has left them.

        Args:
            begin: First step.
            end: One past the last.
            rows: Of these rows, by their numbers in this process.
        """
        part = (rows, slice(begin, end))
        numbers = range(self.num_envs)[rows]
        return {
            "begin": begin,
            "end": end,
            "observation": {k: v[part].cpu().clone() for k, v in self.observation.items()},
            "action": self.action[part].cpu().clone(),
            "expert_action": None
            if self.expert_action is None
            else self.expert_action[part].cpu().clone(),
            "final_value": self.final_value_NT[part].cpu().clone(),
            "finals": self.finals.state_dict(begin, end, numbers),
            **{name: getattr(self, name)[part].copy() for name in _HOST_COLUMNS},
        }

    def state_dict(self, rows: slice = _ALL) -> dict[str, Any]:
        """Return what `chunk_state` leaves out of some rows: what refreshes and shuffles change."""
        part = (rows, slice(self.size))
        return {
            "size": self.size,
            "shuffled": self._shuffled,
            "log_prob": self.log_prob_NT[part].cpu().clone(),
            "value": self.value_NT[part].cpu().clone(),
            "final_value": self.final_value_NT[part].cpu().clone(),
            "context_order": self.context_order_NT[part].copy(),
        }

    def load_chunk(self, chunk: dict[str, Any], rows: slice = _ALL) -> None:
        """Write what `chunk_state` returned into some rows; `size` stays as it is."""
        part = (rows, slice(int(chunk["begin"]), int(chunk["end"])))
        for name, column in self.observation.items():
            column[part] = torch.as_tensor(chunk["observation"][name]).to(column)
        self.action[part] = torch.as_tensor(chunk["action"]).to(self.action)
        if self.expert_action is not None:
            self.expert_action[part] = torch.as_tensor(chunk["expert_action"]).to(self.action)
        self.final_value_NT[part] = torch.as_tensor(chunk["final_value"]).to(self.device)
        first_row = range(self.num_envs)[rows].start
        self.finals.load_state_dict(chunk.get("finals"), first_row, like=self.observation)
        for name in _HOST_COLUMNS:
            getattr(self, name)[part] = np.asarray(chunk[name])

    def load_state_dict(self, state: dict[str, Any], chunks: list[dict[str, Any]]) -> None:
        """Take over a saved rollout.

        Args:
            state: From `state_dict`.
            chunks: From `chunk_state`; together they must cover `[0, size)`.

        Raises:
            ValueError: If they do not.
        """
        self.clear()
        for chunk in sorted(chunks, key=lambda c: c["begin"]):
            if int(chunk["begin"]) != self.size:
                break
            self.load_chunk(chunk)
            self.size = int(chunk["end"])
        self.load_columns(state)

    def load_columns(self, state: dict[str, Any], rows: slice = _ALL) -> None:
        """Write what `state_dict` returned into some rows whose chunks are loaded.

        Raises:
            ValueError: If they have another number of steps.
        """
        if self.size != int(state["size"]):
            raise ValueError(
                f"Rollout.load_columns: chunks must cover all {state['size']} steps, got the "
                f"first {self.size}. Restore every chunk that the checkpoint names."
            )
        self._shuffled = int(state["shuffled"])
        part = (rows, slice(self.size))
        self.log_prob_NT[part] = torch.as_tensor(state["log_prob"])
        self.value_NT[part] = torch.as_tensor(state["value"])
        if "final_value" in state:  # older files have those of the chunks alone
            self.final_value_NT[part] = torch.as_tensor(state["final_value"])
        self.context_order_NT[part] = np.asarray(state["context_order"])
