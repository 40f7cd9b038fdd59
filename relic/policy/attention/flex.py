"""Attention by PyTorch's FlexAttention: one kernel, compiled for whatever may be seen.

On CUDA it skips blocks that nobody sees. On a CPU only its forward pass exists, without
compilation; it serves to check the rule there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from relic.policy.attention.attend import Past, Sinks, joined_keys
from relic.policy.attention.segments import Segments

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""rule(row, head, query, key): whether the query sees the key."""

_BLOCK = 128
"""Queries and keys to a block, PyTorch's own size."""


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
    mask = segments.once(
        (BlockMask, num_sinks, window),
        lambda: _make_block_mask(segments, num_sinks, window, keys.shape[2]),
    )
    run = _compiled() if q.is_cuda else flex_attention
    out = run(q.contiguous(), keys, values, block_mask=mask, scale=scale)
    assert isinstance(out, Tensor)
    return out


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)


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

    return in_blocks(seen, segments.num_rows, segments.num_steps, num_keys, segments.device)


def in_blocks(
    seen: Rule, num_rows: int, num_steps: int, num_keys: int, device: torch.device
) -> BlockMask:
    """Return what `create_block_mask` does, without ever holding all pairs of query and key."""
    row_N = torch.arange(num_rows, device=device)[:, None, None]
    head = torch.zeros((), dtype=torch.long, device=device)
    key_J = torch.arange(num_keys, device=device)
    beyond = -num_keys % _BLOCK
    some: list[Tensor] = []
    whole: list[Tensor] = []
    for begin in range(0, num_steps, _BLOCK):
        query_Q = torch.arange(begin, min(begin + _BLOCK, num_steps), device=device)[:, None]
        seen_NQJ = F.pad(seen(row_N, head, query_Q, key_J), (0, beyond))
        block_NQBJ = seen_NQJ.unflatten(-1, (-1, _BLOCK))
        some.append(block_NQBJ.any(dim=(1, 3)))
        # The last block of queries may be short, and then counts as seen in part.
        whole.append(block_NQBJ.all(dim=(1, 3)) & (len(query_Q) == _BLOCK))
    whole_N1QB = torch.stack(whole, dim=1)[:, None]
    part_N1QB = torch.stack(some, dim=1)[:, None] & ~whole_N1QB
    return BlockMask.from_kv_blocks(
        *_ordered(part_N1QB),
        *_ordered(whole_N1QB),
        BLOCK_SIZE=_BLOCK,
        mask_mod=seen,
        seq_lengths=(num_steps, num_keys),
    )


def _ordered(blocks_NHQB: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many blocks of keys each block of queries has, and their indices, these first."""
    order = torch.argsort(blocks_NHQB.int(), dim=-1, descending=True, stable=True)
    return blocks_NHQB.sum(-1, dtype=torch.int32), order.int().contiguous()
