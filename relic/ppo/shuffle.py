"""Episode shuffle: the order in which the context sees the steps of a rollout.

Completed episodes are permuted whole; the running one keeps its place at the end. The rollout
itself stays in time order: only `context_order_NT` changes, where `context_order_NT[n, p]` is the
time step that stands at position p of row n's context. Pure.

Legend: N rows, T steps of the rollout, C steps in the context.
"""

from __future__ import annotations

import numba
import numpy as np

from relic.noise import Stream, key, mix, shuffle_in_place


def time_order(num_rows: int, num_steps: int) -> np.ndarray:
    """Return the order of a context that was never shuffled, int64 (N, T)."""
    return np.tile(np.arange(num_steps, dtype=np.int64), (num_rows, 1))


def shuffle_episodes(
    context_order_NC: np.ndarray,
    episode_starts_NT: np.ndarray,
    ended_N: np.ndarray,
    *,
    seed: int,
    row_N: np.ndarray,
    draw: int,
) -> None:
    """Permute the completed episodes of each row's context at random, in place.

    Args:
        context_order_NC: int64; the present order, and afterwards the new one.
        episode_starts_NT: bool, in time order; T may exceed C. Step 0 counts as a start.
        ended_N: bool; the last step ended its episode, so no episode is running.
        seed: The run's seed.
        row_N: Global numbers of the rows, int64; a row's shuffle depends on no other row.
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
        np.asarray(row_N, np.int64),
    )


@numba.njit(cache=True, nogil=True)
def _shuffle_kernel(order_NC, start_E, bounds, ended_N, draw_key, row_N):
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
        shuffle_in_place(picks[:completed], mix(draw_key ^ mix(np.uint64(row_N[n]))))
        position = 0
        for pick in picks:
            begin, size = first[pick], after[pick] - first[pick]
            part = order_C[position : position + size]
            for offset in range(size):
                part[offset] = begin + offset
            position += size
