"""One query per row against the cache, on the CPU: a stream over keys and values.

A decode reads every cached number once, so memory should be what limits it; PyTorch's kernel takes
twice as long as this one. Rows may have different lengths. Every head of every row is worked out by
itself, so a row's result depends neither on other rows nor on the number of threads.

Shapes: N rows, H heads, D head dim, S slots, R rows x heads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from relic.policy.threads import in_threads

HEAD_DIM = 32
"""What the kernel is made for: the published head size. Others did not gain enough."""
_NUMBERS_PER_THREAD = 2**18
"""Below this, waking a thread takes longer than the work."""


def fits(cache: Tensor) -> bool:
    """Say whether the kernel can read a cache (..., S, D)."""
    plain = cache.device.type == "cpu" and cache.dtype is torch.float32
    return plain and cache.shape[-1] == HEAD_DIM


def compiled_decode(
    q_NHD: Tensor, key_NHSD: Tensor, value_NHSD: Tensor, used_N: np.ndarray
) -> Tensor:
    """Let one query per row attend to the first slots of its cache.

    Args:
        q_NHD: Queries.
        key_NHSD: Keys; a contiguous part of the cache, as the values.
        value_NHSD: Values.
        used_N: Slots that each row reads, int64.

    Returns:
        (N, H, D).
    """
    from relic.policy.decode_kernel import decode_kernel

    num_heads = q_NHD.shape[1]
    q_RD = q_NHD.reshape(-1, HEAD_DIM).contiguous()
    out_RD = torch.empty_like(q_RD)
    used_R = np.repeat(used_N, num_heads)
    caches = [cache.view(-1, *cache.shape[2:]) for cache in (key_NHSD, value_NHSD)]
    scale = np.float32(HEAD_DIM**-0.5)
    pieces = 1 + 2 * HEAD_DIM * int(used_R.sum()) // _NUMBERS_PER_THREAD
    in_threads(decode_kernel, [q_RD, *caches, used_R, scale, out_RD], max_pieces=pieces)
    return out_RD.view_as(q_NHD)
