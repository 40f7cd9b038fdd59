"""Arithmetic that the compiled kernels share."""

from __future__ import annotations

import numba
import numpy as np
from numba import types
from numba.extending import overload

f4 = np.float32
FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be reordered, which vector units need; infinities and NaNs keep their meaning."""
_LOG2_E = f4(1.44269504)
_LN_2_HIGH = f4(0.693359375)
_LN_2_LOW = f4(-2.12194440e-4)
# The tanh form of GELU: x times the logistic function of 2 sqrt(2 / pi) (x + 0.044715 x^3).
GELU = f4(2 * np.sqrt(2 / np.pi))
GELU_CUBE = f4(0.044715)
# Here 2 ** n has the smallest exponent of a normal float; below, its bits would mean another one.
_LOWEST = f4(-87.0)


@numba.njit(fastmath=FAST, inline="always")
def exp(x):
    """Exponential of x <= 0, to about an ulp; 1e-38 from -87 down."""
    # x = n ln 2 + r with |r| <= ln 2 / 2, where the series to r^6 is exact to about an ulp. The
    # library's exp would be a call, and loops with calls in them do not become vector code.
    x = _LOWEST if x < _LOWEST else x
    n = np.floor(x * _LOG2_E + f4(0.5))
    # ln 2 in two parts: n times the first one is exact, so that r keeps its last digits.
    r = (x - n * _LN_2_HIGH) - n * _LN_2_LOW
    p = f4(1.0 / 720)
    p = p * r + f4(1.0 / 120)
    p = p * r + f4(1.0 / 24)
    p = p * r + f4(1.0 / 6)
    p = p * r + f4(0.5)
    p = p * r + f4(1.0)
    p = p * r + f4(1.0)
    # 2 ** n, made of its bits.
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return p * power


@numba.njit(inline="always")
def ordered(bits):
    """Return the bits of a float as an int32 that compares as the float does, and back again.

    Vector units then find the largest of many floats ten times as fast: for floats themselves
    compilers keep to the order of comparisons, because of NaN. One here is the largest of all, or
    if its sign is set the smallest.
    """
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


def widen(number):
    """Return a number of a cache as float32: one itself, or bfloat16 as the uint16 of its bits."""
    raise NotImplementedError("widen: must be called in compiled code.")


@overload(widen, inline="always")
def _widen(number):
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << np.uint32(16)).view(np.float32)
    return lambda number: number


def narrow(x, like):
    """Return a float32 as the numbers of an array, see `widen`, rounded as PyTorch does."""
    raise NotImplementedError("narrow: must be called in compiled code.")


@overload(narrow, inline="always")
def _narrow(x, like):
    if like.dtype != types.uint16:
        return lambda x, like: x

    def rounded(x, like):
        bits = np.uint32(np.float32(x).view(np.uint32))
        if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):
            return np.uint16(0x7FC0)  # rounding could make an infinity, or a zero, of a NaN
        # To the nearest; of two that are as near, to the even one.
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return np.uint16((np.uint64(bits) + np.uint64(0x7FFF) + np.uint64(odd)) >> np.uint64(16))

    return rounded


@numba.njit(fastmath=FAST, inline="always")
def gelu_share(x):
    """Return gelu(x) / x: the logistic function of what GELU's tanh form makes of x."""
    u = GELU * (x + GELU_CUBE * x * x * x)
    # Our exp takes no positive numbers, and 1 / (1 + exp(-u)) = exp(u) / (1 + exp(u)).
    e = exp(-abs(u))
    return (f4(1.0) if u > f4(0.0) else e) / (f4(1.0) + e)
