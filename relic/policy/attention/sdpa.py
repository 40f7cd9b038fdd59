"""Attention by PyTorch's scaled_dot_product_attention, cut so that a fused kernel always fits.

Square causal attention needs no mask once sinks stand before keys, values and, as zero rows whose
outputs are dropped, before queries: ``is_causal`` is aligned to the top left. Segments become rows
of their own, windows become blocks of a fixed size, and only queries on a past need a mask, of T
by the keys of one row at most. No mask of N x T x T or T x T is ever made for a long context.

Shapes: N rows, H heads, T steps, D head dim, K sinks, P cached steps, B segments, W window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from relic.policy.attention.inputs import AttentionInputs, Past, Sinks
from relic.policy.attention.segments import Segments


def sdpa_attention(inputs: AttentionInputs) -> Tensor:
    """Attend with a fused kernel."""
    if inputs.past is not None:
        return _on_past(inputs, inputs.past)
    if inputs.segments.starts_NT is not None:
        return _by_segment(inputs)
    return _one_segment(inputs)


def _one_segment(inputs: AttentionInputs) -> Tensor:
    if inputs.window is not None and inputs.window < inputs.q.shape[2]:
        return _windowed(inputs, inputs.window)
    return _square(inputs)


def _square(inputs: AttentionInputs) -> Tensor:
    """Causal attention of T steps to themselves and to sinks."""
    num_sinks = inputs.num_sinks
    keys, values = inputs.joined()
    # K zero rows before the queries keep it square. PyTorch aligns `is_causal` to the top left, so
    # without them query t would see K keys too few; and any other way to say it needs a mask.
    queries = F.pad(inputs.q, (0, 0, num_sinks, 0)) if num_sinks else inputs.q
    out = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=inputs.scale)
    return out[:, :, num_sinks:]


def _windowed(inputs: AttentionInputs, window: int) -> Tensor:
    """Sliding window: blocks of W queries see their own block and the one before.

    The first block is plain causal attention; all others share one mask of W x (K + 2 W).
    """
    q, k, v = inputs.q, inputs.k, inputs.v
    num_rows, num_heads, num_steps, head_dim = q.shape
    begin = (slice(None), slice(None), slice(window))
    first = _square(replace(inputs, q=q[begin], k=k[begin], v=v[begin]))
    # Whole blocks, so that all of them share one mask.
    num_blocks = -(-num_steps // window)
    pad = num_blocks * window - num_steps

    def blocks(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, pad)).unflatten(2, (num_blocks, window)).transpose(1, 2)

    def flat(x: Tensor) -> Tensor:
        return x.reshape(num_rows * (num_blocks - 1), num_heads, -1, head_dim)

    k_blocks, v_blocks = blocks(k), blocks(v)
    # A window reaches from its own block into the one before, and no further.
    keys = torch.cat([k_blocks[:, :-1], k_blocks[:, 1:]], dim=3)
    values = torch.cat([v_blocks[:, :-1], v_blocks[:, 1:]], dim=3)
    if inputs.sinks is not None:
        repeat = [s.unsqueeze(1) for s in inputs.sinks.per_row(num_rows)]
        repeat = [r.expand(-1, num_blocks - 1, -1, -1, -1).to(k.dtype) for r in repeat]
        keys = torch.cat([repeat[0], keys], dim=3)
        values = torch.cat([repeat[1], values], dim=3)
    mask = _window_mask(window, inputs.num_sinks, q.device)
    out = F.scaled_dot_product_attention(
        flat(blocks(q)[:, 1:]), flat(keys), flat(values), attn_mask=mask, scale=inputs.scale
    )
    rest = out.unflatten(0, (num_rows, num_blocks - 1)).transpose(1, 2).flatten(2, 3)
    return torch.cat([first, rest[:, :, : num_steps - window]], dim=2)


def _window_mask(window: int, num_sinks: int, device: torch.device) -> Tensor:
    """Return which of [sinks, block before, own block] a block's queries see, bool (W, K + 2 W)."""
    ahead = torch.arange(window, device=device)[:, None] + window
    ahead = ahead - torch.arange(2 * window, device=device)[None, :]
    return F.pad((ahead >= 0) & (ahead < window), (num_sinks, 0), value=True)


def _by_segment(inputs: AttentionInputs) -> Tensor:
    """Give every segment a row of its own.

    Segments of similar length (within a factor of two) share a batch, so that padding at most
    doubles the work however the lengths are spread.
    """
    q = inputs.q
    num_rows, num_heads, num_steps, head_dim = q.shape
    flat = [x.transpose(1, 2).reshape(num_rows * num_steps, -1) for x in (q, inputs.k, inputs.v)]
    outputs, places = [], []
    for index_BT, valid_BT in _segment_batches(inputs.segments):
        where = torch.from_numpy(index_BT.reshape(-1)).to(q.device)
        shape = (*index_BT.shape, num_heads, -1)
        q_B, k_B, v_B = (x.index_select(0, where).view(shape).transpose(1, 2) for x in flat)
        sinks_B = _sinks_of(inputs.sinks, index_BT[:, 0] // num_steps)
        out = _one_segment(replace(inputs, q=q_B, k=k_B, v=v_B, sinks=sinks_B))
        kept = torch.from_numpy(np.flatnonzero(valid_BT)).to(q.device)
        outputs.append(out.transpose(1, 2).reshape(index_BT.size, -1).index_select(0, kept))
        places.append(index_BT[valid_BT])
    # Batches were taken by length; this is the way back to the order of steps.
    inverse = torch.from_numpy(np.argsort(np.concatenate(places))).to(q.device)
    out = torch.cat(outputs).index_select(0, inverse)
    return out.view(num_rows, num_steps, num_heads, head_dim).transpose(1, 2)


def _segment_batches(segments: Segments) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield flat step indices of segments of similar length, (B, T'), and which are no padding."""
    first, length = segments.bounds
    size_class = np.ceil(np.log2(length)).astype(int)
    for size in np.unique(size_class):
        chosen = size_class == size
        step = np.arange(length[chosen].max())
        valid = step < length[chosen][:, None]
        # Padding repeats the last step: causality hides it from the others, and its output is
        # dropped.
        yield first[chosen][:, None] + np.minimum(step, length[chosen][:, None] - 1), valid


def _sinks_of(sinks: Sinks | None, rows: np.ndarray) -> Sinks | None:
    """Return the sinks of chosen rows, where rows differ."""
    if sinks is None or sinks.key.dim() == 3 or sinks.key.shape[0] == 1:
        return sinks
    index = torch.from_numpy(rows).to(sinks.key.device)
    return Sinks(sinks.key.index_select(0, index), sinks.value.index_select(0, index))


def _on_past(inputs: AttentionInputs, past: Past) -> Tensor:
    """Attend to cached steps too.

    Rows that see alike share one mask; others go one by one, each with its own keys only, so that
    no mask is larger than T x (K + P + T).
    """
    segments, num_sinks = inputs.segments, inputs.num_sinks
    num_rows = inputs.q.shape[0]
    alike = segments.starts_NT is None and (segments.past_steps == segments.past_steps[0]).all()
    outputs = []
    for rows in [slice(None)] if alike else [slice(n, n + 1) for n in range(num_rows)]:
        # Empty slots are cut off, from the mask too: each would be scored only to be hidden.
        used = int(segments.past_counts[rows].max())
        chosen = replace(
            inputs,
            q=inputs.q[rows],
            k=inputs.k[rows],
            v=inputs.v[rows],
            past=Past(past.key[rows, :, :used], past.value[rows, :, :used]),
            sinks=inputs.sinks if alike else _sinks_of(inputs.sinks, np.arange(num_rows)[rows]),
        )
        first = slice(0, 1) if alike else rows
        mask_TJ = segments.mask(num_sinks, inputs.window, first)[0]
        unused = segments.past_slots - used
        if unused:
            end = num_sinks + used
            mask_TJ = torch.cat([mask_TJ[:, :end], mask_TJ[:, end + unused :]], dim=1)
        outputs.append(
            F.scaled_dot_product_attention(
                chosen.q, *chosen.joined(), attn_mask=mask_TJ, scale=inputs.scale
            )
        )
    return torch.cat(outputs)
