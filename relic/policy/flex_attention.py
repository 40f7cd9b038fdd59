"""Attention by PyTorch's FlexAttention: one kernel, compiled for whatever may be seen.

On CUDA it skips blocks that nobody sees. On a CPU only its forward pass exists, without
compilation; it serves to check the rule there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from relic.policy.attention import Past, Sinks, joined_keys
from relic.policy.segments import Segments


def flex_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    sinks: Sinks | None,
    past: Past | None,
    segments: Segments,
    window: int | None,
    scale: float,
) -> Tensor:
    """Attend as `attention.attend` says, with FlexAttention.

    Raises:
        ValueError: If a gradient is asked for on a CPU.
    """
    if not q.is_cuda and (q.requires_grad or k.requires_grad):
        raise ValueError(
            "attention_backend: flex must run on CUDA to have a gradient, got a CPU. Choose sdpa."
        )
    num_sinks = 0 if sinks is None else sinks.key.shape[-2]
    keys, values = joined_keys(k, v, sinks, past)
    mask = _block_mask(segments, num_sinks, window, keys.shape[2])
    run = _compiled() if q.is_cuda else flex_attention
    out = run(q.contiguous(), keys, values, block_mask=mask, scale=scale)
    assert isinstance(out, Tensor)
    return out


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def _block_mask(segments: Segments, num_sinks: int, window: int | None, num_keys: int) -> BlockMask:
    """Return the mask of a pass, made once for all layers."""
    key = (BlockMask, num_sinks, window)
    if key not in segments.made:
        segments.made[key] = _make_block_mask(segments, num_sinks, window, num_keys)
    return segments.made[key]


def _make_block_mask(
    segments: Segments, num_sinks: int, window: int | None, num_keys: int
) -> BlockMask:
    query_segment, query_place, key_segment, key_place = segments.places(num_sinks)
    reach = num_keys + int(segments.past_steps.max()) + 1 if window is None else window

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del head
        ahead = query_place[row, query] - key_place[row, key]
        together = query_segment[row, query] == key_segment[row, key]
        is_sink = key_segment[row, key] == -1
        return is_sink | (together & (ahead >= 0) & (ahead < reach))

    return create_block_mask(
        seen,
        B=segments.num_rows,
        H=None,
        Q_LEN=segments.num_steps,
        KV_LEN=num_keys,
        device=str(segments.device),
    )
