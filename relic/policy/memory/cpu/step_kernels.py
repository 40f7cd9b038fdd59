"""Kernels of a cached step: positions and attention.

Each kernel does at once what would be a handful of PyTorch's operations, whose calls take longer
than their arithmetic where rows are few. Every row is worked out by itself, so results depend
neither on other rows nor on the number of threads.

Shapes: N rows, E width, F columns of a product, H heads, S slots, D head dim, P pairs of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba
import numpy as np

from relic.policy.attention.cpu.arithmetic import FAST, exp, f4, narrow, ordered, widen
from relic.policy.attention.cpu.vectors import KEYS, gather, score_four

_ROWS = "float32[:,::1]"
CACHES = {False: "float32[:,:,:,::1]", True: "uint16[:,:,:,::1]"}
"""Of keys or values, by whether it holds bfloat16, as the uint16 of its bits."""
_OPTIONS = {"fastmath": FAST, "error_model": "numpy", "nogil": True, "cache": True}
_PART_NUMBERS = 2048
"""Of keys, and as many of values, that attention works on at a time: 16 kB, so that the nearest
cache holds them and as many more that are fetched meanwhile."""
_LOWEST = f4(-1e30)


@numba.njit(
    f"void(boolean[::1], {', '.join(['int64[::1]'] * 4)}, boolean, {', '.join(['int64'] * 3)}, "
    "int64[:,::1])",
    **_OPTIONS,
)
def place(
    starts_N, in_episode_N, episode_N, trial_N, segment_N, joined, drop_first, sinks, slots, out_5N
):
    """Write where each row's next step stands, and where the cache has it.

    Args:
        starts_N: Where an episode starts.
        in_episode_N: Position of the step before in its episode; -1: there is none.
        episode_N: Index of its episode.
        trial_N: Steps of the trial so far.
        segment_N: Steps of the running segment so far.
        joined: Steps see earlier episodes.
        drop_first: From this step of the trial on, those before it are forgotten; 0: none.
        sinks: Slots before the first step's.
        slots: Slots of steps.
        out_5N: Written: the step's position in its episode, its episode, steps of its segment
            before it, its slot, and how many slots it reads.
    """
    for n in range(len(starts_N)):
        start, before = starts_N[n], segment_N[n]
        # A trial's first step is in episode 0, whatever its flag says.
        counts = start and in_episode_N[n] >= 0
        if (start and not joined) or (drop_first > 0 and trial_N[n] == drop_first):
            before = 0
        out_5N[0, n] = 0 if start else in_episode_N[n] + 1
        out_5N[1, n] = episode_N[n] + (1 if counts else 0)
        out_5N[2, n] = before
        out_5N[3, n] = sinks + before % slots
        # A full ring is seen whole: the new step has just taken the place of the oldest.
        out_5N[4, n] = sinks + min(before + 1, slots)


@numba.njit(inline="always")
def _turn(x_F, first, turn_P, out_D):
    """Write a head that begins at x[first], turned by rotary factors if there are any."""
    for p in range(out_D.shape[0] // 2):
        a, b = x_F[first + 2 * p], x_F[first + 2 * p + 1]
        if len(turn_P):
            c, s = turn_P[p].real, turn_P[p].imag
            a, b = a * c - b * s, a * s + b * c
        out_D[2 * p], out_D[2 * p + 1] = a, b


@numba.njit(fastmath=FAST, inline="always")
def _weigh(s_S, length, highest):
    """Turn scores into weights; return their total, which they are not yet divided by."""
    total = f4(0.0)
    for j in range(length):
        weight = exp(s_S[j] - highest)
        s_S[j] = weight
        total += weight
    return total


@numba.njit(fastmath=FAST, inline="always")
def _attend_part(q_D, kv_2SD, next_2SD, s_S, o_D, highest, total, dim):
    """Attend to some slots more, and fetch what comes after them.

    Args:
        q_D: The query, scaled.
        kv_2SD: Keys and values of the slots.
        next_2SD: Those that are read after them.
        s_S: Scratch.
        o_D: Sum of the values so far by their weights; written.
        highest: The largest score so far, of which the exponential is 1 in all weights.
        total: Sum of the weights so far.
        dim: D.

    Returns:
        The new `highest` and `total`.
    """
    (key_SD, value_SD), (next_key_SD, next_value_SD) = kv_2SD, next_2SD
    count = key_SD.shape[0]
    whole = count // KEYS * KEYS
    for j in range(0, whole, KEYS):
        score_four(q_D, key_SD, j, s_S, next_key_SD, dim)
    # Those behind the last four. What lies beyond the slots is not looked at: it may be NaN.
    for j in range(whole, count):
        s_S[j] = f4(0.0)
        for i in range(dim):
            s_S[j] += q_D[i] * widen(key_SD[j, i])
    before = highest
    bits_S = s_S.view(np.int32)
    largest = ordered(np.float32(highest).view(np.int32))
    for j in range(count):
        largest = max(largest, ordered(bits_S[j]))
    highest = ordered(largest).view(np.float32)
    less = exp(before - highest)
    for i in range(dim):
        o_D[i] *= less
    total = total * less + _weigh(s_S, count, highest)
    gather(s_S, value_SD, whole, o_D, next_value_SD, dim)
    for j in range(whole, count):
        for i in range(dim):
            o_D[i] += s_S[j] * widen(value_SD[j, i])
    return highest, total


@numba.njit(inline="always")
def _part_after(end, length, n, h, num_rows, num_heads):
    """Return row, head and first slot of what is read after a part that ends before `end`."""
    if end < length:
        return n, h, end
    if h + 1 < num_heads:
        return n, h + 1, 0
    return min(n + 1, num_rows - 1), 0, 0


@numba.njit(fastmath=FAST, inline="always")
def attend_rows(qkv_NF, turn_NP, cache_2NHSD, slot_N, used_N, keeps, out_NE, dim):
    """Write the step's keys and values into the cache, and what its queries get from it.

    It reads every cached number once, so memory is what limits it: slots go by in parts that the
    nearest cache holds, and while one is worked on, the next one is fetched.

    Args:
        qkv_NF: Queries of all heads, their keys, their values.
        turn_NP: Rotary factors of each pair of a head; P is 0 where nothing is rotary.
        cache_2NHSD: Keys and values, written.
        slot_N: Where each row's step is written.
        used_N: Slots that each row reads, from the first one.
        keeps: Leave the step in its slot; else what was there is put back.
        out_NE: Written.
        dim: D, a constant of the calling code: without it there is no good vector code.
    """
    key_NHSD, value_NHSD = cache_2NHSD
    num_rows, num_heads = key_NHSD.shape[:2]
    width = num_heads * dim
    scale = f4(1.0) / np.sqrt(f4(dim))
    most = max(_PART_NUMBERS // dim // KEYS, 1) * KEYS
    held_k, held_v = np.empty(dim, key_NHSD.dtype), np.empty(dim, key_NHSD.dtype)
    s, q, k, o = np.empty(most, f4), np.empty(dim, f4), np.empty(dim, f4), np.empty(dim, f4)
    for n in range(num_rows):
        slot, length = slot_N[n], used_N[n]
        # Parts of one size: as much is fetched as is worked on meanwhile.
        part = (length - 1) // ((length - 1) // most + 1) // KEYS * KEYS + KEYS
        for h in range(num_heads):
            key_SD, value_SD = key_NHSD[n, h], value_NHSD[n, h]
            _turn(qkv_NF[n], h * dim, turn_NP[n], q)
            _turn(qkv_NF[n], width + h * dim, turn_NP[n], k)
            for i in range(dim):
                q[i] *= scale
                o[i] = f4(0.0)
                held_k[i], held_v[i] = key_SD[slot, i], value_SD[slot, i]
                key_SD[slot, i] = narrow(k[i], key_SD)
                value_SD[slot, i] = narrow(qkv_NF[n, 2 * width + h * dim + i], value_SD)
            highest, total = _LOWEST, f4(0.0)
            for first in range(0, length, part):
                end = min(first + part, length)
                then_n, then_h, at = _part_after(end, length, n, h, num_rows, num_heads)
                own = key_SD[first:end], value_SD[first:end]
                after = key_NHSD[then_n, then_h, at:], value_NHSD[then_n, then_h, at:]
                highest, total = _attend_part(q, own, after, s, o, highest, total, dim)
            for i in range(dim):
                out_NE[n, h * dim + i] = o[i] / total
                if not keeps:
                    key_SD[slot, i], value_SD[slot, i] = held_k[i], held_v[i]


@cache
def attend_kernel(dim: int, half: bool) -> Callable[..., None]:
    """Return `attend_rows` for heads of so many numbers, a multiple of 4; `half` as in `CACHES`."""

    @numba.njit(
        f"void({_ROWS}, complex64[:,::1], {CACHES[half]}, {CACHES[half]}, int64[::1], int64[::1], "
        f"boolean, {_ROWS})",
        **_OPTIONS,
    )
    def attend(qkv_NF, turn_NP, key_NHSD, value_NHSD, slot_N, used_N, keeps, out_NE):
        cache_2NHSD = key_NHSD, value_NHSD
        attend_rows(qkv_NF, turn_NP, cache_2NHSD, slot_N, used_N, keeps, out_NE, dim)

    return attend
