"""Memo (Gupta et al. 2025, arXiv 2510.19732): a transformer that remembers summaries.

A trial is cut into segments of so many steps. Behind each stand learned summary tokens, which read
the segment and the summaries before it. A step sees the steps of its own segment and the summaries
of all segments before, so what is kept of a segment shrinks to its summaries. How they are read is
learned through them: the pass is one transformer over steps and summary tokens, with a mask.

Shapes: N rows, T steps, I items (steps and summary tokens), E width, L layers, H heads, D head dim,
S slots of the cache, B items of a segment, M summary tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relic.policy.linear import Linear
from relic.policy.memory.blocks import INIT_STD, NORM_EPS, GeGLU, init_weights
from relic.policy.memory.config import MemoConfig
from relic.policy.memory.cpu.layers import RMSNorm
from relic.policy.memory.memo.state import MemoState
from relic.policy.memory.positions import rotate, rotation
from relic.policy.memory.sequence_model import (
    SequenceModel,
    SequenceState,
    as_state,
    check_rows,
)

ROPE_BASE = 10_000.0
"""Base of the wavelengths at which queries and keys turn with their place in the trial."""


class MemoBlock(nn.Module):
    """Pre-norm attention and MLP; which items see which is the model's business."""

    def __init__(self, config: MemoConfig):
        super().__init__()
        width = config.width
        self.num_heads = config.num_heads
        self.attention_norm = RMSNorm(width, eps=NORM_EPS)
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.mlp_norm = RMSNorm(width, eps=NORM_EPS)
        self.mlp = GeGLU(width, config.mlp_width)

    def project(self, h: Tensor, factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries and keys, turned by their places, and values, (N, I, H, D) each."""
        qkv = self.qkv(self.attention_norm(h)).unflatten(-1, (3, self.num_heads, -1))
        query, key = rotate(qkv[:, :, :2], factor[..., None, None, :]).unbind(2)
        return query, key, qkv[:, :, 2]

    def finish(self, h: Tensor, attended_NIHD: Tensor) -> Tensor:
        """Add both branches to the stream."""
        h = h + self.out(attended_NIHD.flatten(2))
        return h + self.mlp(self.mlp_norm(h))


class Span(NamedTuple):
    """Items of one segment, and what of the cache and of the summaries they see."""

    items: slice
    cached: int
    """Steps of the segment that are in the cache."""
    summaries: int
    """Summary tokens before it, in the cache and among the items."""


class Items(NamedTuple):
    """Steps of rows whose trials are equally long, with the summary tokens that follow segments."""

    spans: list[Span]
    is_step_I: np.ndarray
    """Which items are steps; the others are summary tokens."""
    place_I: np.ndarray
    """Places of the items in the trial, where steps and summary tokens count."""


class Memo(SequenceModel):
    """The transformer over steps and summaries of a configuration."""

    Config = MemoConfig

    def __init__(self, config: MemoConfig, *, max_episode_steps: int):
        super().__init__(config, max_episode_steps=max_episode_steps)
        self.config = config
        self.width = config.width
        self.summary_ME = nn.Parameter(torch.empty(config.summary_tokens, config.width))
        self.blocks = nn.ModuleList(MemoBlock(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.width, eps=NORM_EPS)
        self.apply(init_weights)
        nn.init.normal_(self.summary_ME, std=INIT_STD)

    def forward(
        self,
        x_NTE: Tensor,
        episode_starts_NT: Tensor,
        state: SequenceState | None = None,
        *,
        depth_mask_NL: Tensor | None = None,
    ) -> Tensor:
        """Read all steps at once; episode starts leave the memory as it is."""
        del episode_starts_NT, depth_mask_NL
        if state is None:
            return self._read(x_NTE, None)[0]
        prefix = as_state(self, state, MemoState)
        check_rows(self, prefix, x_NTE)
        groups = list(_alike(prefix.host_lengths))
        if len(groups) == 1:
            return self._read(x_NTE, prefix)[0]
        parts = [self._read(x_NTE[rows], prefix.select(rows))[0] for rows in groups]
        order = torch.from_numpy(np.argsort(np.concatenate(groups)))
        return torch.cat(parts)[order.to(x_NTE.device)]

    @torch.no_grad()
    def step(
        self, x_NE: Tensor, episode_starts_N: Tensor, state: SequenceState, write: bool = True
    ) -> Tensor:
        """Read the next step of every row; see `SequenceModel.step`."""
        del episode_starts_N
        memory = as_state(self, state, MemoState)
        memory.make_room(1, look=0 if write else 1)
        y_NE = self._decode(x_NE, memory)
        if write:
            memory.note_steps(1)
            full = np.flatnonzero(memory.host_lengths % self.config.segment_steps == 0)
            for chosen in _alike(memory.host_lengths[full]):
                self._summarize(memory, full[chosen])
        return y_NE

    def append(
        self,
        x_NTE: Tensor,
        episode_starts_NT: Tensor,
        state: SequenceState,
        rows: np.ndarray,
        counts: np.ndarray,
    ) -> Tensor:
        """Append many steps to chosen rows; see `SequenceModel.append`."""
        del episode_starts_NT
        memory = as_state(self, state, MemoState)
        y_NTE = torch.zeros_like(x_NTE)
        for chosen in _alike(memory.host_lengths[rows], counts):
            own, count = rows[chosen], int(counts[chosen[0]])
            if not count:
                continue
            y, kv, items = self._read(x_NTE[chosen, :count], memory.select(own))
            y_NTE[chosen, :count] = y.to(y_NTE.dtype)
            memory.note_steps(count, own)
            self._write(memory, own, kv, items)
        return y_NTE

    def initial_state(
        self,
        num_rows: int,
        capacity: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> MemoState:
        """Return an empty cache; see `SequenceModel.initial_state`."""
        weight = self.norm.weight
        return MemoState(
            self.config,
            num_rows,
            capacity,
            device=torch.device(device or weight.device),
            dtype=dtype or weight.dtype,
        )

    def bytes_per_row(self, steps: int, dtype: torch.dtype = torch.float32) -> int:
        """Return layers x 2 x width x slots x bytes of a number."""
        numbers = self.config.num_layers * 2 * self.width
        return numbers * self.config.slots_for(steps) * dtype.itemsize

    def _lay_out(self, begin: int, num_steps: int) -> Items:
        """Place steps that follow `begin` others of their trials, and the summary tokens."""
        length, tokens = self.config.segment_steps, self.config.summary_tokens
        spans, is_step, places = [], [], []
        first = at = 0
        while at < num_steps:
            segment, offset = divmod(begin + at, length)
            count = min(length - offset, num_steps - at)
            closes = tokens if offset + count == length else 0
            spans.append(Span(slice(first, first + count + closes), offset, segment * tokens))
            is_step += [np.ones(count, bool), np.zeros(closes, bool)]
            places.append(segment * (length + tokens) + offset + np.arange(count + closes))
            first, at = first + count + closes, at + count
        # Only the first segment may have begun before.
        spans[1:] = [span._replace(cached=0) for span in spans[1:]]
        return Items(spans, np.concatenate(is_step), np.concatenate(places))

    def _read(
        self, x_NTE: Tensor, past: MemoState | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]], Items]:
        """Run steps of rows whose trials are equally long; returns keys and values of all items."""
        begin = 0 if past is None else int(past.host_lengths[0])
        items = self._lay_out(begin, x_NTE.shape[1])
        step_T = torch.from_numpy(np.flatnonzero(items.is_step_I)).to(x_NTE.device)
        token_I = np.flatnonzero(~items.is_step_I)
        h_NIE = x_NTE.new_empty(len(x_NTE), len(items.is_step_I), self.width)
        h_NIE = h_NIE.index_copy(1, step_T, x_NTE)
        if len(token_I):
            repeats = len(token_I) // self.config.summary_tokens
            tokens = self.summary_ME.to(x_NTE.dtype).repeat(repeats, 1).expand(len(x_NTE), -1, -1)
            h_NIE = h_NIE.index_copy(1, torch.from_numpy(token_I).to(x_NTE.device), tokens)
        y_NIE, kv = self._run(h_NIE, items, past)
        return y_NIE[:, step_T], kv, items

    def _run(
        self, h_NIE: Tensor, items: Items, past: MemoState | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Run all layers over items."""
        factor = self._factor(torch.from_numpy(items.place_I).to(h_NIE.device))
        token_I = torch.from_numpy(np.flatnonzero(~items.is_step_I)).to(h_NIE.device)
        old = items.spans[0].summaries
        length, kept = self.config.segment_steps, []
        for layer, block in enumerate(self._blocks()):
            q, k, v = block.project(h_NIE, factor)
            kept.append((k, v))
            summaries, cached = [k[:, token_I], v[:, token_I]], [k[:, :0], v[:, :0]]
            if past is not None:
                held = past.kv[layer].to(k.dtype)
                cached = [x[:, : items.spans[0].cached] for x in held]
                summaries = [
                    torch.cat([x[:, length : length + old], new], dim=1)
                    for x, new in zip(held, summaries, strict=True)
                ]
            parts = [_see(q, (k, v), cached, summaries, span) for span in items.spans]
            h_NIE = block.finish(h_NIE, torch.cat(parts, dim=1))
        return self.norm(h_NIE), kept

    def _decode(self, x_NE: Tensor, memory: MemoState) -> Tensor:
        """Run one step; writes its keys and values, and leaves the lengths as they are."""
        length, tokens = self.config.segment_steps, self.config.summary_tokens
        segment_N, offset_N = memory.lengths // length, memory.lengths % length
        longest = int(memory.host_lengths.max(initial=0)) // length * tokens
        slot_S = torch.arange(length + longest, device=x_NE.device)
        in_segment_NS = (slot_S < length) & (slot_S <= offset_N[:, None])
        seen_NS = in_segment_NS | (
            (slot_S >= length) & (slot_S < length + segment_N[:, None] * tokens)
        )
        factor = self._factor(segment_N * (length + tokens) + offset_N).unsqueeze(1)
        rows_N = torch.arange(memory.num_rows, device=x_NE.device)
        h_N1E = x_NE.unsqueeze(1)
        for layer, block in enumerate(self._blocks()):
            q, k, v = block.project(h_N1E, factor)
            held = memory.kv[layer]
            for own, new in zip(held, (k, v), strict=True):
                own[rows_N, offset_N] = new[:, 0].to(own.dtype)
            keys, values = (x[:, : len(slot_S)].to(q.dtype) for x in held)
            attended = F.scaled_dot_product_attention(
                *(x.transpose(1, 2) for x in (q, keys, values)), attn_mask=seen_NS[:, None, None]
            )
            h_N1E = block.finish(h_N1E, attended.transpose(1, 2))
        return self.norm(h_N1E).squeeze(1)

    def _summarize(self, memory: MemoState, rows: np.ndarray) -> None:
        """Let the summary tokens read a segment that is full, in rows with equally long trials."""
        length, tokens = self.config.segment_steps, self.config.summary_tokens
        before = int(memory.host_lengths[rows[0]]) // length - 1
        place_M = before * (length + tokens) + length + np.arange(tokens)
        span = Span(slice(0, tokens), length, before * tokens)
        items = Items([span], np.zeros(tokens, bool), place_M)
        h_NME = self.summary_ME.expand(len(rows), -1, -1)
        self._write(memory, rows, self._run(h_NME, items, memory.select(rows))[1], items)

    def _write(
        self, memory: MemoState, rows: np.ndarray, kv: list[tuple[Tensor, Tensor]], items: Items
    ) -> None:
        """Write the summaries, and the steps of the segment in progress; lengths are as after."""
        length, tokens = self.config.segment_steps, self.config.summary_tokens
        segment_I, offset_I = np.divmod(items.place_I, length + tokens)
        slot_I = np.where(
            items.is_step_I, offset_I, length + segment_I * tokens + offset_I - length
        )
        now = int(memory.host_lengths[rows[0]]) // length
        (kept,) = np.nonzero(~items.is_step_I | (segment_I == now))
        device = memory.kv.device
        row, slot, item = (torch.from_numpy(x).to(device) for x in (rows, slot_I[kept], kept))
        for own, pair in zip(memory.kv, kv, strict=True):
            for part, new in zip(own, pair, strict=True):
                part[row[:, None], slot] = new[:, item].to(part.dtype)

    def _factor(self, place: Tensor) -> Tensor:
        return rotation(place, self.config.head_dim, ROPE_BASE)

    def _blocks(self) -> list[MemoBlock]:
        return [block for block in self.blocks if isinstance(block, MemoBlock)]


def _see(
    query: Tensor,
    kv: tuple[Tensor, Tensor],
    cached: list[Tensor],
    summaries: list[Tensor],
    span: Span,
) -> Tensor:
    """Let the items of a segment see the summaries before it and each other, none a later one."""
    parts = [
        torch.cat([s[:, : span.summaries], c[:, : span.cached], own[:, span.items]], dim=1)
        for s, c, own in zip(summaries, cached, kv, strict=True)
    ]
    q = query[:, span.items]
    seen_II = torch.ones(q.shape[1], parts[0].shape[1], dtype=torch.bool, device=q.device)
    attended = F.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, *parts)),
        attn_mask=seen_II.tril(parts[0].shape[1] - q.shape[1]),
    )
    return attended.transpose(1, 2)


def _alike(*numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Yield groups of indices at which all the arrays have the same numbers."""
    _, group = np.unique(np.stack(numbers), axis=1, return_inverse=True)
    group = group.reshape(-1)
    for one in range(group.max(initial=-1) + 1):
        yield np.flatnonzero(group == one)
