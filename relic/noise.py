"""Random numbers that depend on their purpose only, not on how many were drawn before.

Acting noise is keyed by (seed, global row, step): a row acts alike whatever the number of rows,
ranks or groups, and the learner's draws never move it. Episode shuffles and minibatches use the
same generator under other streams, so none of them has a state to save.

Shapes: N rows, K numbers per row.
"""

from __future__ import annotations

from enum import IntEnum

import numba
import numpy as np

from envs.core import draws

_MASK = 0xFFFFFFFFFFFFFFFF

mix = numba.njit(cache=True, inline="always")(draws.mix)
"""Scramble 64 bits, in kernels."""


class Stream(IntEnum):
    """What a draw is for; streams never share numbers."""

    ACTION = 1
    SHUFFLE = 2
    ROWS = 3
    FRACTION = 4
    DEMONSTRATION = 5
    DEPTH = 6
    LESSON = 7


def row_uniforms(
    seed: int, row_N: np.ndarray, step: int, size: int, *, stream: Stream = Stream.ACTION
) -> np.ndarray:
    """Draw numbers for each row at one step.

    Args:
        seed: The run's seed.
        row_N: Global numbers of the rows, int64.
        step: Number of the step in the run, counted per row.
        size: Numbers per row.
        stream: What they are for.

    Returns:
        float32 (N, size), uniform in [0, 1).
    """
    out_NK = np.empty((len(row_N), size), np.float32)
    _uniforms_kernel(key(seed, stream), np.asarray(row_N, np.int64), np.int64(step), out_NK)
    return out_NK


def key(*numbers: int) -> np.uint64:
    """Fold numbers into one 64-bit key."""
    # The golden ratio's digits: any constant without a pattern would do, as long as it stays.
    folded = 0x9E3779B97F4A7C15
    for number in numbers:
        # Scrambled before the next one comes in, so that the order of the numbers counts.
        folded = draws.mix(folded ^ draws.mix(number & _MASK))
    return np.uint64(folded)


def keyed_permutation(size: int, *numbers: int) -> np.ndarray:
    """Return a permutation of `range(size)` that depends on the numbers alone."""
    order = np.arange(size, dtype=np.int64)
    shuffle_in_place(order, key(*numbers))
    return order


@numba.njit(cache=True)
def shuffle_in_place(items, seed_key):
    """Permute `items` by Fisher and Yates, with draws that the key determines."""
    state = seed_key
    for i in range(len(items) - 1, 0, -1):
        state = mix(state)
        # All unsigned: numba makes a float of int64 with uint64.
        # The bias of a remainder is below 2**-40 for any length met here.
        j = np.int64(state % np.uint64(i + 1))
        items[i], items[j] = items[j], items[i]


@numba.njit(cache=True, nogil=True)
def _uniforms_kernel(stream_key, row_N, step, out_NK):
    for n in range(out_NK.shape[0]):
        # Keyed, not counted: a row draws alike whichever rows stand beside it.
        row_key = mix(stream_key ^ mix(np.uint64(row_N[n])))
        step_key = mix(row_key ^ mix(np.uint64(step)))
        for k in range(out_NK.shape[1]):
            bits = mix(step_key ^ mix(np.uint64(k)))
            # 24 bits are what a float32 holds exactly, so 1.0 is never reached.
            out_NK[n, k] = np.float32(bits >> np.uint64(40)) * np.float32(2.0**-24)
