"""Transformer-XL: every layer of a step sees its own inputs of the M steps before.

Positions are relative: a score is (q + u) k plus (q + w) r, where r is a projected sinusoid of the
distance and u, w are learned per head. The memory of a trial is the inputs of every layer at the
newest steps. Acting writes it and learning reads the same numbers, as constants, through the
weights of the day; nothing else carries over, and nothing before the trial is ever seen.

Shapes: N rows, T steps, E width, L layers, H heads, D head dim, M memory steps, C = M + 1 slots.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relic.policy.linear import Linear
from relic.policy.memory.blocks import INIT_STD, NORM_EPS, GeGLU, init_weights
from relic.policy.memory.config import TransformerXLConfig
from relic.policy.memory.cpu.layers import RMSNorm
from relic.policy.memory.sequence_model import (
    SequenceModel,
    SequenceState,
    as_state,
    check_rows,
)
from relic.policy.memory.xl_state import XLState

QUERY_BLOCK = 256
"""Queries that are scored at once, so that scores stay bounded however long the pass is."""


class XLBlock(nn.Module):
    """Pre-norm attention with relative positions, and MLP."""

    def __init__(self, config: TransformerXLConfig):
        super().__init__()
        width = config.width
        self.num_heads = config.num_heads
        self.attention_norm = RMSNorm(width, eps=NORM_EPS)
        self.query = Linear(width, width, bias=False)
        self.key_value = Linear(width, 2 * width, bias=False)
        self.distance = Linear(width, width, bias=False)
        self.content_bias_HD = nn.Parameter(torch.zeros(config.num_heads, config.head_dim))
        self.distance_bias_HD = nn.Parameter(torch.zeros(config.num_heads, config.head_dim))
        self.out = Linear(width, width, bias=False)
        self.mlp_norm = RMSNorm(width, eps=NORM_EPS)
        self.mlp = GeGLU(width, config.mlp_width)
        for bias in (self.content_bias_HD, self.distance_bias_HD):
            nn.init.normal_(bias, std=INIT_STD)

    def heads(self, x: Tensor) -> Tensor:
        """Split (..., E) into heads (..., H, D)."""
        return x.unflatten(-1, (self.num_heads, -1))

    def keys_values(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Project layer inputs (..., E) to keys and values (..., H, D)."""
        key, value = self.key_value(self.attention_norm(h)).chunk(2, dim=-1)
        return self.heads(key), self.heads(value)

    def queries(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Project layer inputs to what meets contents and what meets distances, (..., H, D)."""
        query = self.heads(self.query(self.attention_norm(h)))
        return query + self.content_bias_HD, query + self.distance_bias_HD

    def finish(self, h: Tensor, attended: Tensor) -> Tensor:
        """Add both branches to the stream; `attended` has its heads side by side."""
        h = h + self.out(attended)
        return h + self.mlp(self.mlp_norm(h))


class TransformerXL(SequenceModel):
    """The transformer-XL of a configuration."""

    Config = TransformerXLConfig

    def __init__(self, config: TransformerXLConfig, *, max_episode_steps: int):
        super().__init__(config, max_episode_steps=max_episode_steps)
        self.config = config
        self.width = config.width
        self.blocks = nn.ModuleList(XLBlock(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.width, eps=NORM_EPS)
        self.apply(init_weights)
        sinusoid = _sinusoids(config.memory_steps + 1, config.width)
        self.register_buffer("sinusoid_CE", sinusoid, persistent=False)
        self.sinusoid_CE: Tensor

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
        memory = None if state is None else as_state(self, state, XLState)
        if memory is not None:
            check_rows(self, memory, x_NTE)
        return self._read(x_NTE, memory)[0]

    def step(
        self, x_NE: Tensor, episode_starts_N: Tensor, state: SequenceState, write: bool = True
    ) -> Tensor:
        """Read the next step of every row; see `SequenceModel.step`."""
        del episode_starts_N
        memory = as_state(self, state, XLState)
        memory.make_room(1, look=0 if write else 1)
        self._sync(memory)
        y_NE = self._decode(x_NE, memory)
        if write:
            memory.note_steps(1)
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
        memory = as_state(self, state, XLState)
        y_NTE, inputs = self._read(x_NTE, memory.select(rows))
        memory.append(torch.stack(inputs), rows, counts)
        return y_NTE

    def initial_state(
        self,
        num_rows: int,
        capacity: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> XLState:
        """Return an empty memory; see `SequenceModel.initial_state`."""
        weight = self.norm.weight
        return XLState(
            self.config,
            num_rows,
            capacity,
            device=torch.device(device or weight.device),
            dtype=dtype or weight.dtype,
        )

    def bytes_per_row(self, steps: int, dtype: torch.dtype = torch.float32) -> int:
        """Return layers x slots x (input + key + value) x bytes of a number."""
        slots = min(steps, self.config.memory_steps) + 1
        return self.config.num_layers * slots * 3 * self.width * dtype.itemsize

    def _read(self, x_NTE: Tensor, memory: XLState | None) -> tuple[Tensor, list[Tensor]]:
        """Run all layers; returns the output, and each layer's inputs."""
        h_NTE, inputs = x_NTE, []
        old = None if memory is None or not memory.longest() else memory.in_order()
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, XLBlock)
            # The memory is constant: no gradient goes from a step into the inputs it remembers.
            inputs.append(h_NTE.detach())
            past = None if old is None else old[0][layer].to(h_NTE.dtype)
            attended = self._attend(block, h_NTE, past, None if old is None else old[1])
            h_NTE = block.finish(h_NTE, attended)
        return self.norm(h_NTE), inputs

    def _attend(
        self, block: XLBlock, h_NTE: Tensor, past_NPE: Tensor | None, valid_NP: Tensor | None
    ) -> Tensor:
        """Let each step see the M before it, block of queries by block."""
        reach, num_steps = self.config.memory_steps, h_NTE.shape[1]
        content_q, distance_q = (q.transpose(1, 2) for q in block.queries(h_NTE))
        all_NSE = h_NTE if past_NPE is None else torch.cat([past_NPE, h_NTE], dim=1)
        # Zeros stand where nothing was, so that every query has M slots before its own.
        missing = reach - (all_NSE.shape[1] - num_steps)
        key, value = (
            F.pad(x.transpose(1, 2), (0, 0, missing, 0)) for x in block.keys_values(all_NSE)
        )
        hidden_NS = self._hidden(h_NTE, missing, valid_NP)
        # Farthest first, as `_shifted` lines them up.
        far_first_CHD = block.heads(block.distance(self.sinusoid_CE)).flip(0)
        by_distance = distance_q @ far_first_CHD.permute(1, 2, 0)
        scale = content_q.shape[-1] ** -0.5
        outputs = []
        for first in range(0, num_steps, QUERY_BLOCK):
            last = min(first + QUERY_BLOCK, num_steps)
            seen = slice(first, last + reach)
            bias = _shifted(by_distance[:, :, first:last] * scale)
            bias = bias.masked_fill(hidden_NS[:, None, None, seen], float("-inf"))
            outputs.append(
                F.scaled_dot_product_attention(
                    content_q[:, :, first:last], key[:, :, seen], value[:, :, seen], attn_mask=bias
                )
            )
        return torch.cat(outputs, dim=2).transpose(1, 2).flatten(2)

    def _hidden(self, h_NTE: Tensor, missing: int, valid_NP: Tensor | None) -> Tensor:
        """Return which of [padding, past, steps] hold nothing, bool (N, M + T)."""
        num_rows, num_steps = h_NTE.shape[:2]
        reach = self.config.memory_steps
        hidden_NS = torch.zeros(num_rows, reach + num_steps, dtype=torch.bool, device=h_NTE.device)
        hidden_NS[:, :missing] = True
        if valid_NP is not None:
            hidden_NS[:, missing:reach] = ~valid_NP
        return hidden_NS

    @torch.no_grad()
    def _decode(self, x_NE: Tensor, memory: XLState) -> Tensor:
        """Run one step; writes it into its slot without advancing the lengths."""
        slot_N, distance_NC, seen_NC = memory.next_slot()
        rows_N = torch.arange(memory.num_rows, device=x_NE.device)
        h_NE = x_NE
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, XLBlock)
            memory.inputs_LNCE[layer, rows_N, slot_N] = h_NE.to(memory.inputs_LNCE.dtype)
            key_NCHD, value_NCHD = memory.kv[layer]
            k_NHD, v_NHD = block.keys_values(h_NE)
            key_NCHD[rows_N, slot_N] = k_NHD.to(key_NCHD.dtype)
            value_NCHD[rows_N, slot_N] = v_NHD.to(value_NCHD.dtype)
            content_q, distance_q = block.queries(h_NE)
            by_distance_CHD = block.heads(block.distance(self.sinusoid_CE))
            heads = block.num_heads
            relative_NHC = torch.einsum("nhd,chd->nhc", distance_q, by_distance_CHD)
            relative_NHC = relative_NHC.gather(2, distance_NC[:, None].expand(-1, heads, -1))
            scale = content_q.shape[-1] ** -0.5
            bias = (relative_NHC * scale).masked_fill(~seen_NC[:, None], float("-inf"))
            attended = F.scaled_dot_product_attention(
                content_q.unsqueeze(2),
                key_NCHD.transpose(1, 2).to(h_NE.dtype),
                value_NCHD.transpose(1, 2).to(h_NE.dtype),
                attn_mask=bias.unsqueeze(2),
            )
            h_NE = block.finish(h_NE, attended.squeeze(2).flatten(1))
        return self.norm(h_NE)

    @torch.no_grad()
    def _sync(self, memory: XLState) -> None:
        """Project the remembered inputs anew, if weights or inputs have changed."""
        # Versions count the writes in place, and are cheaper to compare than weights. The learner
        # counts up where its fused optimiser does not.
        version = tuple(p._version for p in self.parameters())
        if memory.projected_by == version:
            return
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, XLBlock)
            inputs = memory.inputs_LNCE[layer].to(self.norm.weight.dtype)
            for own, new in zip(memory.kv[layer], block.keys_values(inputs), strict=True):
                own.copy_(new)
        memory.projected_by = version


def _sinusoids(count: int, width: int) -> Tensor:
    """Return the sinusoidal code of distances 0 to count - 1, (count, width)."""
    frequency = 10_000.0 ** -(torch.arange(0, width, 2) / width)
    angle = torch.arange(count)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _shifted(by_distance_NHTC: Tensor) -> Tensor:
    """Line up scores by distance, farthest first, with the keys that they belong to.

    Query t's farthest key is key t of T + M. Rows padded by T and read again one shorter move right
    by one key per query; what they do not cover stays hidden.

    Returns:
        (N, H, T, T + M), minus infinity outside a query's reach.
    """
    num_steps, slots = by_distance_NHTC.shape[2:]
    padded = F.pad(by_distance_NHTC, (0, num_steps), value=float("-inf")).flatten(2)
    width = num_steps + slots - 1
    return padded[:, :, : num_steps * width].unflatten(2, (num_steps, width))
