"""One layer of the transformer with its three ways of running, and the parts that it is made of.

Shapes: N rows, T steps, E width, H heads, D head dim, K sinks, S slots of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relic.policy.attention.attend import attend
from relic.policy.attention.inputs import Past, Sinks
from relic.policy.attention.segments import Segments
from relic.policy.linear import Linear
from relic.policy.memory.config import TransformerConfig
from relic.policy.memory.cpu.layers import RMSNorm, gated
from relic.policy.memory.decode import DecodePlan, decode_attend, read_slot, write_step
from relic.policy.memory.kv_cache import KVCache
from relic.policy.memory.positions import rotate

NORM_EPS = 1e-6
INIT_STD = 0.02


class GeGLU(nn.Module):
    """MLP whose hidden layer is gated by a GELU: down(gelu(gate(x)) * up(x)); no biases."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        # One matrix for gate and up: half the calls where calls are what costs.
        self.gate_up = Linear(width, 2 * hidden, bias=False)
        self.down = Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branch's output; the residual is the caller's."""
        return self.down(gated(self.gate_up(x)))


def init_weights(module: nn.Module) -> None:
    """Draw matrices and embeddings of a transformer from N(0, 0.02); for `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)


def look_up(table: nn.Embedding, index: Tensor, what: str) -> Tensor:
    """Return rows of a table of positions.

    Raises:
        ValueError: On a CPU, if it has no such row.
    """
    # On a GPU the comparison would make every step wait; there the lookup itself fails.
    if index.device.type == "cpu":
        check_rows(int(index.max()), table.num_embeddings, what)
    return table(index)


def check_rows(highest: int, num_rows: int, what: str) -> None:
    """Check that a table of positions has the rows that are asked for.

    Raises:
        ValueError: If it has not.
    """
    if highest >= num_rows:
        raise ValueError(
            f"Transformer: a step's {what} must be below {num_rows}, got {highest}. Build the "
            "policy for longer episodes, or use rotary positions."
        )


class Block(nn.Module):
    """Pre-norm attention and MLP, each joined to the stream."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        width = config.width
        self.config = config
        self.attention_norm = RMSNorm(width, eps=NORM_EPS)
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.mlp_norm = RMSNorm(width, eps=NORM_EPS)
        self.mlp = GeGLU(width, config.mlp_width)

    def forward(
        self,
        h_NTE: Tensor,
        factor: Tensor | None,
        sinks: Sinks | None,
        past: Past | None,
        segments: Segments,
        scale: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read T steps at once.

        Args:
            h_NTE: The stream.
            factor: Rotary factors (N, T, 1, 1, D / 2).
            sinks: What every step sees.
            past: Cached steps.
            segments: Who sees whom.
            scale: Depth dropout's factor of each row (N, 1, 1); None: one.

        Returns:
            The stream, and the steps' keys and values (N, H, T, D).
        """
        qkv = self._project(h_NTE)
        qk = qkv[:, :, :2] if factor is None else rotate(qkv[:, :, :2], factor)
        q, k = (x.transpose(1, 2) for x in qk.unbind(2))
        raw_q, v = (qkv[:, :, i].transpose(1, 2) for i in (0, 2))
        # The raw query scores sinks by content alone: a turned one also says which episode it is.
        attended = attend(
            q,
            k,
            v,
            sinks=sinks,
            sink_query=None if self.config.rotate_sink_query else raw_q,
            past=past,
            segments=segments,
            window=self.config.attention_window,
            backend=self.config.attention_backend,
        )
        return self.finish(h_NTE, attended.transpose(1, 2).flatten(2), scale), k, v

    def decode(
        self,
        h_NE: Tensor,
        factor: Tensor | None,
        plan: DecodePlan,
        cache_2NHSD: Tensor,
        scale: Tensor | None,
    ) -> Tensor:
        """Read one step; writes its key and value into the layer's cache.

        Args:
            h_NE: The stream.
            factor: Rotary factors (N, D / 2).
            plan: Where to write and what to read.
            cache_2NHSD: The layer's keys and values, sinks first.
            scale: As in `forward`, (N, 1).
        """
        qkv = self._project(h_NE)
        if factor is not None:
            # Values get the factor one: keys and values then stay one tensor, written at once.
            all_three = torch.stack([factor, factor, torch.ones_like(factor)], dim=1)
            qkv = rotate(qkv, all_three[:, :, None])
        write_step(cache_2NHSD, plan, qkv[:, 1:])
        attended = decode_attend(qkv[:, 0], cache_2NHSD, plan).to(h_NE.dtype)
        return self.finish(h_NE, attended.flatten(1), scale)

    def read_sink(self, h_NKE: Tensor, scale: Tensor | None) -> tuple[Tensor, Sinks]:
        """Read sink tokens, which come before everything and see nothing but each other.

        Returns:
            Their stream, and what they are to the steps of this layer.
        """
        q, k, v = (x.transpose(1, 2) for x in self._project(h_NKE).unbind(2))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.finish(h_NKE, attended.transpose(1, 2).flatten(2), scale), Sinks(k, v)

    def _project(self, h: Tensor) -> Tensor:
        """Return queries, keys and values, (..., 3, H, D), not rotated."""
        return self.qkv(self.attention_norm(h)).unflatten(-1, (3, self.config.num_heads, -1))

    @property
    def num_weights(self) -> int:
        """Numbers in its matrices."""
        width, hidden = self.config.width, self.config.mlp_width
        return width * (4 * width + 3 * hidden)

    def finish(self, h: Tensor, attended: Tensor, scale: Tensor | None) -> Tensor:
        """Add both branches to the stream."""
        branch = self.out(attended)
        h = h + (branch if scale is None else branch * scale)
        branch = self.mlp(self.mlp_norm(h))
        return h + (branch if scale is None else branch * scale)


def decode_layers(
    blocks: Sequence[Block],
    norm: nn.RMSNorm,
    x_NE: Tensor,
    factor: Tensor | None,
    cache: KVCache,
    plan: DecodePlan,
    *,
    write: bool,
) -> Tensor:
    """Run one step through all layers and the last norm, whatever the device.

    Args:
        blocks: The layers.
        norm: What follows them.
        x_NE: Tokens with their learned positions.
        factor: Rotary factors (N, D / 2).
        cache: Its keys and values are written; nothing else of it.
        plan: Where to write and what to read.
        write: The step is to be remembered.
    """
    # A step that is not to be remembered is written to a slot too. In a linear cache the next step
    # overwrites it. In a ring the slot held an older step that is still seen, so its content is put
    # back afterwards.
    keeps = write or cache.is_linear
    h_NE = x_NE
    for layer, block in enumerate(blocks):
        own = cache.kv[layer]
        held = None if keeps else read_slot(own, plan)
        if cache.sink_key is not None and factor is not None:
            turn_sinks(own, cache.sink_key[layer], factor)
        mask = cache.depth_mask_NL
        scale = None if mask is None else mask[:, layer, None]
        h_NE = block.decode(h_NE, factor, plan, own, scale)
        if held is not None:
            write_step(own, plan, held)
    return norm(h_NE)


def turn_sinks(cache_2NHSD: Tensor, key_NHKD: Tensor, factor: Tensor) -> None:
    """Write the keys of sinks that are to be scored with queries before their rotation.

    The cache is read with rotated queries. So a sink's key is rotated by the step's own factor: a
    rotation of both does not change their dot product.

    Args:
        cache_2NHSD: A layer of the cache, sinks first.
        key_NHKD: The layer's sink keys as made; N may be 1.
        factor: Rotary factors of the step (N, D / 2).
    """
    cache_2NHSD[0, :, :, : key_NHKD.shape[2]] = rotate(key_NHKD, factor[:, None, None])
