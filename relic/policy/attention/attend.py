"""Causal attention with sinks, over several backends that give the same values and gradients.

`attend` is for many queries at once; one query per row against a cache is `decode.py`. Backends
that need packed rows or CUDA are in `packed_attention.py` and `flex_attention.py`.

A pass has queries of T steps and keys of sinks, of steps cached before them (the past), and of the
T steps. A query sees every sink, and of its own segment the newest `window` steps up to itself.

Shapes: N rows, H heads, T steps, D head dim, K sinks, P cached steps, J = K + P + T keys.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relic.policy.attention.segments import Segments
from relic.policy.config import AttentionBackend

logger = logging.getLogger(__name__)


class Sinks(NamedTuple):
    """Keys and values that every query sees."""

    key: Tensor
    """(H, K, D), or (N, H, K, D) where rows differ."""
    value: Tensor
    """As key."""


class Past(NamedTuple):
    """Cached steps before the first query; constants."""

    key: Tensor
    """(N, H, P, D); row n fills its first slots, what lies beyond them is never read."""
    value: Tensor
    """As key."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    sinks: Sinks | None = None,
    sink_query: Tensor | None = None,
    past: Past | None = None,
    segments: Segments | None = None,
    window: int | None = None,
    backend: AttentionBackend = AttentionBackend.AUTO,
) -> Tensor:
    """Let every step attend to the sinks and to the steps before it.

    Args:
        q: Queries (N, H, T, D).
        k: Keys of the same steps.
        v: Values of the same steps.
        sinks: What every query sees; gradients reach it.
        sink_query: Queries to score sinks with, where they are not q.
        past: Cached steps; needs `segments` made with their counts.
        segments: Who sees whom; None: each row is one segment without a past.
        window: Newest steps that a query sees, itself included; None: all.
        backend: Which code; `AUTO` picks by device, dtype and what is asked.

    Returns:
        (N, H, T, D), in the dtype of q.
    """
    segments = segments or Segments(q.shape[0], q.shape[2], device=q.device)
    scale = q.shape[-1] ** -0.5
    head_dim = v.shape[-1]
    if not segments.has_past:
        past = None
    if sink_query is not None and sinks is not None:
        q, k, v, sinks, past = _fold_sink_query(q, k, v, sinks, sink_query, past)
    backend = resolve_backend(backend, q, segments, window, sinks is not None)
    run = _implementation(backend)
    out = run(q, k, v, sinks=sinks, past=past, segments=segments, window=window, scale=scale)
    return out[..., :head_dim]


def resolve_backend(
    backend: AttentionBackend,
    q: Tensor,
    segments: Segments,
    window: int | None,
    has_sinks: bool,
) -> AttentionBackend:
    """Return the backend that runs; for `AUTO`, the fastest that is there, said once.

    On the CPU, plain float32 passes take our own kernels. On CUDA, square causal attention takes
    SDPA's fused kernels, packed rows skip the padding of segments, and FlexAttention skips what
    lies outside a window.
    """
    if backend is not AttentionBackend.AUTO:
        return backend
    if not q.is_cuda:
        from relic.policy.attention.cpu.passes import fits

        compiled = fits(q, segments, window)
        cpu_backend = AttentionBackend.COMPILED if compiled else AttentionBackend.SDPA
        return _announce(cpu_backend, q.device.type)
    plain = segments.starts_NT is None and not segments.has_past and window is None
    if plain:
        return _announce(AttentionBackend.SDPA, q.device.type)
    if window is not None and has_sinks:
        return _announce(AttentionBackend.FLEX, q.device.type)
    if q.dtype in (torch.float16, torch.bfloat16):
        return _announce(AttentionBackend.VARLEN, q.device.type)
    return _announce(AttentionBackend.SDPA, q.device.type)


@cache
def _announce(backend: AttentionBackend, device: str) -> AttentionBackend:
    logger.info("attention_backend auto: %s on %s", backend.value, device)
    return backend


def _implementation(backend: AttentionBackend):
    """Import a backend where it is first used; only flash-attn is an optional package."""
    if backend is AttentionBackend.REFERENCE:
        return reference_attention
    if backend is AttentionBackend.FLEX:
        from relic.policy.attention.flex import flex_attend

        return flex_attend
    if backend is AttentionBackend.SDPA:
        from relic.policy.attention.sdpa import sdpa_attention

        return sdpa_attention
    if backend is AttentionBackend.COMPILED:
        from relic.policy.attention.cpu.passes import compiled_attention

        return compiled_attention
    from relic.policy.attention.packed import flash_attention, varlen_attention

    return varlen_attention if backend is AttentionBackend.VARLEN else flash_attention


def per_row(sink: Tensor, num_rows: int) -> Tensor:
    """Return sinks (H, K, D) or (N, H, K, D) as a view of shape (N, H, K, D)."""
    return sink.expand(num_rows, *sink.shape[-3:])


def joined_keys(
    k: Tensor, v: Tensor, sinks: Sinks | None, past: Past | None
) -> tuple[Tensor, Tensor]:
    """Put sinks and past before the steps' own keys and values, each (N, H, J, D)."""
    keys, values = [k], [v]
    if past is not None:
        keys.insert(0, past.key.to(k.dtype))
        values.insert(0, past.value.to(v.dtype))
    if sinks is not None:
        keys.insert(0, per_row(sinks.key, k.shape[0]).to(k.dtype))
        values.insert(0, per_row(sinks.value, v.shape[0]).to(v.dtype))
    if len(keys) == 1:
        return k, v
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


def reference_attention(
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
    """Attention written out, with the whole mask: what the other backends are held against."""
    num_sinks = 0 if sinks is None else sinks.key.shape[-2]
    keys, values = joined_keys(k, v, sinks, past)
    seen_N1TJ = segments.mask(num_sinks, window)[:, None]
    # A slot beyond a row's length may hold anything, and 0 * NaN is NaN.
    unused_N1J1 = ~seen_N1TJ.any(dim=2).unsqueeze(-1)
    keys, values = keys.masked_fill(unused_N1J1, 0), values.masked_fill(unused_N1J1, 0)
    score = (q @ keys.transpose(-1, -2) * scale).masked_fill(~seen_N1TJ, float("-inf"))
    return score.softmax(-1) @ values


def _fold_sink_query(
    q: Tensor, k: Tensor, v: Tensor, sinks: Sinks, sink_query: Tensor, past: Past | None
) -> tuple[Tensor, Tensor, Tensor, Sinks, Past | None]:
    """Let a plain attention score sinks with queries of their own.

    The scores are computed here and carried as K further entries of each query, which meet a one
    in their sink's key and zeros in all others. The size is padded to a multiple of eight for the
    kernels' sake; the caller cuts the output back.
    """
    num_sinks = sinks.key.shape[-2]
    extra = num_sinks + (-(q.shape[-1] + num_sinks)) % 8
    score_NHTK = sink_query @ per_row(sinks.key, q.shape[0]).transpose(-1, -2)
    q = torch.cat([q, F.pad(score_NHTK, (0, extra - num_sinks))], dim=-1)
    one_KX = torch.eye(num_sinks, extra, dtype=q.dtype, device=q.device)
    mark = one_KX.expand(*sinks.key.shape[:-2], num_sinks, extra)
    sinks = Sinks(
        torch.cat([torch.zeros_like(sinks.key), mark], dim=-1), F.pad(sinks.value, (0, extra))
    )
    if past is not None:
        past = Past(F.pad(past.key, (0, extra)), F.pad(past.value, (0, extra)))
    return q, F.pad(k, (0, extra)), F.pad(v, (0, extra)), sinks, past
