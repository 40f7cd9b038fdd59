"""What a transformer's heads attend to: weights from the very queries and keys of a pass.

A pass is watched from outside: hooks keep each layer's queries, keys, values and what its attention
returned, so that the weights that are recomputed here can be held against what was used.

Shapes: N rows, T steps, Q some of them, H heads, D head dim, K sinks, J = K + T keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from relic.policy.attention.inputs import Sinks
from relic.policy.attention.segments import Segments
from relic.policy.memory.blocks import Block
from relic.policy.memory.positions import rotate
from relic.policy.memory.transformer import Transformer
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """One layer's attention in a pass over whole trials."""

    query_NHTD: Tensor
    """Rotated as the keys are."""
    sink_query_NHTD: Tensor
    """What the sinks are scored with."""
    key_NHTD: Tensor
    value_NHTD: Tensor
    sinks: Sinks | None
    segments: Segments
    window: int | None
    output_NHTD: Tensor
    """What the layer's attention returned."""

    @property
    def num_sinks(self) -> int:
        """K."""
        return 0 if self.sinks is None else self.sinks.key.shape[-2]

    @property
    def joined_value_NHJD(self) -> Tensor:
        """Values of the sinks, then of the steps."""
        if self.sinks is None:
            return self.value_NHTD
        sink_value = self.sinks.per_row(len(self.value_NHTD)).value
        return torch.cat([sink_value.to(self.value_NHTD.dtype), self.value_NHTD], dim=2)

    def weights(self, steps: slice = slice(None)) -> Tensor:
        """Return how much some queries attend to each key, (N, H, Q, J); rows sum to one.

        Scaled dot products under the mask of the pass, through a softmax: the formula that all
        backends compute. Sinks come first.
        """
        scale = self.query_NHTD.shape[-1] ** -0.5
        score = self.query_NHTD[:, :, steps] @ self.key_NHTD.mT
        if self.sinks is not None:
            sink_key = self.sinks.per_row(len(score)).key
            sink_score = self.sink_query_NHTD[:, :, steps] @ sink_key.mT
            score = torch.cat([sink_score, score], dim=-1)
        seen_NQJ = self.segments.mask(self.num_sinks, self.window, steps=steps)
        return (score * scale).masked_fill(~seen_NQJ[:, None], float("-inf")).softmax(-1)


@torch.no_grad()
def watch_attention(policy: Policy, batch: SequenceBatch) -> list[LayerAttention]:
    """Return the attention of each layer in one pass over trials from their first step on.

    Raises:
        ValueError: If the policy's memory is no transformer.
    """
    memory = policy.memory
    if not isinstance(memory, Transformer):
        raise ValueError(
            "watch_attention: the policy's memory must be a transformer, got "
            f"{policy.config.memory.value}. Only transformers attend to all steps."
        )
    layers: list[LayerAttention] = []
    with _watched(memory, layers):
        policy.evaluate_actions(batch)
    return layers


@contextmanager
def _watched(memory: Transformer, layers: list[LayerAttention]) -> Iterator[None]:
    """Append what each block does, in the order in which they run."""
    handles: list[RemovableHandle] = []
    for block in memory.blocks:
        assert isinstance(block, Block)
        handles += _watch(block, layers)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(block: Block, layers: list[LayerAttention]) -> list[RemovableHandle]:
    newest: dict[str, Tensor] = {}
    config = block.config

    def keep_qkv(_module: Any, _args: Any, output: Tensor) -> None:
        newest["qkv"] = output

    def keep_attended(_module: Any, args: tuple[Tensor]) -> None:
        newest["attended"] = args[0]

    def keep_layer(_module: Any, args: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, factor, sinks, _, segments, _ = args
        _, key_NHTD, value_NHTD = output
        query_NTHD = newest["qkv"].unflatten(-1, (3, config.num_heads, -1))[:, :, 0]
        turned_NTHD = query_NTHD if factor is None else rotate(query_NTHD, factor[:, :, 0])
        sink_query_NTHD = turned_NTHD if config.rotate_sink_query else query_NTHD
        layers.append(
            LayerAttention(
                query_NHTD=turned_NTHD.transpose(1, 2),
                sink_query_NHTD=sink_query_NTHD.transpose(1, 2),
                key_NHTD=key_NHTD,
                value_NHTD=value_NHTD,
                sinks=None if sinks is None else Sinks(*(part.detach() for part in sinks)),
                segments=segments,
                window=config.attention_window,
                output_NHTD=newest["attended"]
                .unflatten(-1, (config.num_heads, -1))
                .transpose(1, 2),
            )
        )

    return [
        block.qkv.register_forward_hook(keep_qkv),
        block.out.register_forward_pre_hook(keep_attended),
        block.register_forward_hook(keep_layer),
    ]
