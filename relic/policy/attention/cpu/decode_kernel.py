"""One query per row against the cache: a stream over keys and values.

A decode reads every cached number once, so memory should be what limits it; PyTorch's kernel takes
two to four times as long as this one. Keys are not transposed as for passes: that would read them
twice.

Shapes: R rows x heads, S slots, D numbers of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba
import numpy as np

from relic.policy.attention.cpu.arithmetic import FAST, exp, f4
from relic.policy.attention.cpu.vectors import KEYS, gather, score_four


@numba.njit(fastmath=FAST, inline="always")
def _weigh(s, length):
    """Turn scores into weights; return their total, which they are not yet divided by."""
    highest = s[0]
    for j in range(length):
        highest = max(highest, s[j])
    total = f4(0.0)
    for j in range(length):
        weight = exp(s[j] - highest)
        s[j] = weight
        total += weight
    return total


@cache
def decode_kernel(dim: int) -> Callable[..., None]:
    """Return the kernel for heads of so many numbers, a multiple of 4.

    The size is a constant of the code, not an argument: without it there is no good vector code.
    """

    @numba.njit(
        "void(float32[:,::1], float32[:,:,::1], float32[:,:,::1], int64[::1], float32, "
        "float32[:,::1])",
        fastmath=FAST,
        error_model="numpy",
        nogil=True,
        cache=True,
    )
    def kernel(q_RD, key_RSD, value_RSD, used_R, scale, out_RD):
        """Write what one query per row and head gets from its first slots.

        Args:
            q_RD: Queries.
            key_RSD: Keys.
            value_RSD: Values.
            used_R: Slots that each query reads.
            scale: Factor of the scores.
            out_RD: Written.
        """
        s = np.zeros(used_R.max(), f4)
        a, o = np.zeros(dim, f4), np.zeros(dim, f4)
        for r in range(q_RD.shape[0]):
            key_SD, value_SD, length = key_RSD[r], value_RSD[r], used_R[r]
            for i in range(dim):
                a[i] = q_RD[r, i] * scale
            whole = length // KEYS * KEYS
            for j in range(0, whole, KEYS):
                score_four(a, key_SD, j, s, dim)
            # Those behind the last four. What lies beyond them is not looked at: it may be NaN.
            for j in range(whole, length):
                s[j] = f4(0.0)
                for i in range(dim):
                    s[j] += a[i] * key_SD[j, i]
            inverse = f4(1.0) / _weigh(s, length)
            gather(s, value_SD, whole, o, dim)
            for j in range(whole, length):
                for i in range(dim):
                    o[i] += s[j] * value_SD[j, i]
            for i in range(dim):
                out_RD[r, i] = o[i] * inverse

    return kernel
