"""One query per row against the cache: a stream over keys and values.

A decode reads every cached number once, so memory should be what limits it; PyTorch's kernel takes
twice as long as this one. Keys are not transposed as for passes: that would read them twice. All
loops over a head have instead a length that the compiler knows, and four keys go at a time, whose
sums do not wait for each other: that is what makes good vector code of them.

Shapes: R rows x heads, S slots, D = 32 numbers of a head.
"""

from __future__ import annotations

import numba
import numpy as np

from relic.policy.attention.cpu.arithmetic import FAST, exp, f4

# A constant of the code, not an argument: loops of known length become good vector code.
_DIM = 32


@numba.njit(fastmath=FAST, inline="always")
def _score(a_D, key_SD, length, s):
    """Set s[j] to the product of a and key j."""
    fours = length // 4 * 4
    for j in range(0, fours, 4):
        # Four sums that do not wait for each other.
        x0 = x1 = x2 = x3 = f4(0.0)
        for i in range(_DIM):
            x0 += a_D[i] * key_SD[j, i]
            x1 += a_D[i] * key_SD[j + 1, i]
            x2 += a_D[i] * key_SD[j + 2, i]
            x3 += a_D[i] * key_SD[j + 3, i]
        s[j], s[j + 1], s[j + 2], s[j + 3] = x0, x1, x2, x3
    for j in range(fours, length):
        x0 = f4(0.0)
        for i in range(_DIM):
            x0 += a_D[i] * key_SD[j, i]
        s[j] = x0


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


@numba.njit(fastmath=FAST, inline="always")
def _gather(s, value_SD, length, o_D):
    """Add the values weighted by s to o."""
    fours = length // 4 * 4
    for j in range(0, fours, 4):
        p0, p1, p2, p3 = s[j], s[j + 1], s[j + 2], s[j + 3]
        for i in range(_DIM):
            o_D[i] += (
                p0 * value_SD[j, i]
                + p1 * value_SD[j + 1, i]
                + p2 * value_SD[j + 2, i]
                + p3 * value_SD[j + 3, i]
            )
    for j in range(fours, length):
        for i in range(_DIM):
            o_D[i] += s[j] * value_SD[j, i]


@numba.njit(
    "void(float32[:,::1], float32[:,:,::1], float32[:,:,::1], int64[::1], float32, float32[:,::1])",
    fastmath=FAST,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def decode_kernel(q_RD, key_RSD, value_RSD, used_R, scale, out_RD):
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
    a, o = np.zeros(_DIM, f4), np.zeros(_DIM, f4)
    for r in range(q_RD.shape[0]):
        for i in range(_DIM):
            a[i], o[i] = q_RD[r, i] * scale, f4(0.0)
        _score(a, key_RSD[r], used_R[r], s)
        inverse = f4(1.0) / _weigh(s, used_R[r])
        _gather(s, value_RSD[r], used_R[r], o)
        for i in range(_DIM):
            out_RD[r, i] = o[i] * inverse
