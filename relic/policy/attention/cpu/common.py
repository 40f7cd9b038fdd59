"""What the compiled kernels of the CPU share.

Compiled kernels on as many threads as PyTorch has; they release the lock while they run.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

f4 = np.float32
FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be reordered, which vector units need; infinities and NaNs keep their meaning."""
_LOG2_E = f4(1.44269504)
_LN_2_HIGH = f4(0.693359375)
_LN_2_LOW = f4(-2.12194440e-4)
_LOWEST = f4(-87.0)


@numba.njit(fastmath=FAST, inline="always")
def exp(x):
    """Exponential of x <= 0, to about an ulp; 1e-38 from -87 down."""
    x = _LOWEST if x < _LOWEST else x
    n = np.floor(x * _LOG2_E + f4(0.5))
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


def in_threads(
    kernel: Callable[..., None], args: list[Any], *, axis: int = 0, max_pieces: int | None = None
) -> None:
    """Run a kernel on slices of its arrays along one axis, one per thread.

    Args:
        kernel: Writes into some of its arrays; slices must not depend on each other.
        args: Tensors and arrays, which are sliced, and scalars, which are not. The first one
            says how long the axis is.
        axis: Along which to cut.
        max_pieces: Most threads that the work is worth; None: as many as PyTorch has.
    """
    arrays = [a.detach().numpy() if isinstance(a, Tensor) else a for a in args]
    length = arrays[0].shape[axis]
    pieces = min(torch.get_num_threads(), length, max_pieces or length)
    if pieces <= 1:
        kernel(*arrays)
        return
    bounds = np.linspace(0, length, pieces + 1).astype(int)
    before = (slice(None),) * axis

    def run(piece: slice) -> None:
        kernel(*[a[(*before, piece)] if isinstance(a, np.ndarray) else a for a in arrays])

    slices = [slice(a, b) for a, b in itertools.pairwise(bounds)]
    # The last piece runs here, where waiting would be idle time.
    futures = [_pool(os.getpid(), pieces - 1).submit(run, piece) for piece in slices[:-1]]
    run(slices[-1])
    for future in futures:
        future.result()


@cache
def _pool(process: int, size: int) -> ThreadPoolExecutor:
    # The threads of a parent do not survive a fork.
    del process
    return ThreadPoolExecutor(size, thread_name_prefix="kernels")
