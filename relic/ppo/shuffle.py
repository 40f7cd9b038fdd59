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
) -> np.ndarray:
    """Permute the completed episodes of each row's context at random.

    Args:
        context_order_NC: int64; the present order.
        episode_starts_NT: bool, in time order; T may exceed C. Position 0 counts as a start.
        ended_N: bool; the last step ended its episode, so no episode is running.
        seed: The run's seed.
        row_N: Global numbers of the rows, int64; a row's shuffle depends on no other row.
        draw: Number of this shuffle in the run.

    Returns:
        The new order, int64 (N, C).
    """
    order_NC = np.empty_like(context_order_NC)
    _shuffle_kernel(
        context_order_NC,
        episode_starts_NT,
        ended_N,
        key(seed, Stream.SHUFFLE, draw),
        np.asarray(row_N, np.int64),
        order_NC,
    )
    return order_NC


@numba.njit(cache=True, nogil=True)
def _shuffle_kernel(order_NC, episode_starts_NT, ended_N, draw_key, row_N, out_NC):
    num_rows, length = order_NC.shape
    bounds = np.empty(length + 1, np.int64)
    for n in range(num_rows):
        count = 0
        for p in range(length):
            if p == 0 or episode_starts_NT[n, order_NC[n, p]]:
                bounds[count] = p
                count += 1
        bounds[count] = length
        completed = count if ended_N[n] else count - 1
        picks = np.arange(count)
        shuffle_in_place(picks[:completed], mix(draw_key ^ mix(np.uint64(row_N[n]))))
        written = 0
        for pick in picks:
            for p in range(bounds[pick], bounds[pick + 1]):
                out_NC[n, written] = order_NC[n, p]
                written += 1
