"""Causal attention with sinks: the one entry point, and the choice of a backend.

`attend` is for many queries at once; one query per row against a cache is `memory/decode.py`. All
backends give the same values and gradients; `inputs.py` says what they are given.

Shapes: N rows, H heads, T steps, D head dim, K sinks.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from relic.policy.attention.cpu.compiled import compiled_attention, fits
from relic.policy.attention.inputs import AttentionInputs, Backend, Past, Sinks
from relic.policy.attention.kinds import AttentionBackend
from relic.policy.attention.packed import flash_attention, varlen_attention
from relic.policy.attention.reference import reference_attention
from relic.policy.attention.sdpa import sdpa_attention
from relic.policy.attention.segments import Segments

logger = logging.getLogger(__name__)

BACKENDS: dict[AttentionBackend, Backend] = {
    AttentionBackend.REFERENCE: reference_attention,
    AttentionBackend.SDPA: sdpa_attention,
    AttentionBackend.COMPILED: compiled_attention,
    AttentionBackend.VARLEN: varlen_attention,
    AttentionBackend.FLASH: flash_attention,
}


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
        backend: Which code; `AUTO` picks by device, dtype and kind of pass.

    Returns:
        (N, H, T, D), in the dtype of q.
    """
    segments = segments or Segments(q.shape[0], q.shape[2], device=q.device)
    # An empty past would only keep the pass from backends that know none.
    past = past if segments.has_past else None
    # The scale is said, not left to kernels: theirs would follow the padding of `_fold_sink_query`.
    inputs = AttentionInputs(q, k, v, segments, sinks, past, window, q.shape[-1] ** -0.5)
    if sink_query is not None and sinks is not None:
        inputs = _fold_sink_query(inputs, sinks, sink_query)
    if backend is AttentionBackend.AUTO:
        backend = _fastest(inputs)
        announce(backend, q.device.type)
    # The cut takes off what `_fold_sink_query` has padded values with.
    return BACKENDS[backend](inputs)[..., : v.shape[-1]]


def _fastest(inputs: AttentionInputs) -> AttentionBackend:
    """Return the fastest backend that can do a pass."""
    q, segments = inputs.q, inputs.segments
    if not q.is_cuda:
        return AttentionBackend.COMPILED if fits(inputs) else AttentionBackend.SDPA
    plain = segments.starts_NT is None and not segments.has_past and inputs.window is None
    # Square causal attention is what SDPA's fused kernels are made for. Packed rows skip the
    # padding of segments, but a packed window would slide past the sinks.
    slides_past_sinks = inputs.window is not None and inputs.sinks is not None
    if plain or slides_past_sinks or q.dtype not in (torch.float16, torch.bfloat16):
        return AttentionBackend.SDPA
    return AttentionBackend.VARLEN


@cache
def announce(backend: AttentionBackend, device: str) -> None:
    """Log what `AUTO` takes on a device, once per kind."""
    logger.info("attention_backend auto: %s on %s", backend.value, device)


def _fold_sink_query(inputs: AttentionInputs, sinks: Sinks, sink_query: Tensor) -> AttentionInputs:
    """Let a plain attention score sinks with queries of their own.

    The scores are computed here and carried as K further entries of each query, which meet a one
    in their sink's key and zeros in all others. The caller cuts the output back.
    """
    q, num_sinks = inputs.q, inputs.num_sinks
    # Fused kernels want head sizes that are multiples of eight.
    extra = num_sinks + (-(q.shape[-1] + num_sinks)) % 8

    def padded(x: Tensor) -> Tensor:
        return F.pad(x, (0, extra))

    score_NHTK = sink_query @ sinks.per_row(q.shape[0]).key.transpose(-1, -2)
    one_KX = torch.eye(num_sinks, extra, dtype=q.dtype, device=q.device)
    mark = one_KX.expand(*sinks.key.shape[:-2], num_sinks, extra)
    return replace(
        inputs,
        q=torch.cat([q, F.pad(score_NHTK, (0, extra - num_sinks))], dim=-1),
        k=padded(inputs.k),
        v=padded(inputs.v),
        sinks=Sinks(torch.cat([torch.zeros_like(sinks.key), mark], dim=-1), padded(sinks.value)),
        past=inputs.past and Past(*(padded(part) for part in inputs.past)),
    )
