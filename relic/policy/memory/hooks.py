"""Passes of a transformer, watched from outside by hooks on its blocks.

`recorded` keeps keys and values, to be written into a cache. `watched` keeps what the heads of each
layer attend to. The pass itself knows of neither, so it costs nothing without them.

Shapes: L layers, N rows of the pass, T steps, H heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from relic.policy.attention.inputs import Sinks
from relic.policy.attention.layer_attention import LayerAttention
from relic.policy.memory.blocks import Block
from relic.policy.memory.kv_cache import KVCache
from relic.policy.memory.positions import rotate
from relic.policy.memory.sequence_model import KVRecorder, SequenceState


class BlockKVRecorder(KVRecorder):
    """Keeps the keys and values of each block.

    Args:
        copies: Keep copies: views would hold on to what checkpointing means to free.
    """

    def __init__(self, *, copies: bool) -> None:
        self._copies = copies
        self._layers: list[tuple[Tensor, Tensor]] = []

    def take(self, _block: nn.Module, _inputs: Any, outputs: tuple[Tensor, Tensor, Tensor]) -> None:
        """Keep one layer's keys and values, (N, H, T, D) each; a block's forward hook."""
        key, value = (x.detach() for x in outputs[1:])
        self._layers.append((key.clone(), value.clone()) if self._copies else (key, value))

    @torch.no_grad()
    def write(self, state: SequenceState, rows: np.ndarray, first_step: int) -> None:
        """Put them into a cache that keeps every step; see `KVRecorder.write`."""
        assert isinstance(state, KVCache)
        index = torch.from_numpy(rows).to(state.kv.device)
        first = state.num_sinks + first_step
        for own, pair in zip(state.kv, self._layers, strict=True):
            for part, x_NHTD in zip(own, pair, strict=True):
                # Slots follow time in such a cache, so a pass's steps stand side by side.
                part[index, :, first : first + x_NHTD.shape[2]] = x_NHTD.to(part.dtype)


@contextmanager
def recorded(blocks: Iterable[nn.Module], *, copies: bool) -> Iterator[KVRecorder]:
    """Record keys and values of the blocks' one pass in the `with` block; yields the recorder."""
    recorder = BlockKVRecorder(copies=copies)
    with _removed_after([block.register_forward_hook(recorder.take) for block in blocks]):
        yield recorder


@contextmanager
def watched(blocks: Iterable[nn.Module]) -> Iterator[list[LayerAttention]]:
    """Yield a list to which each block adds its attention, in the order in which they run."""
    layers: list[LayerAttention] = []
    handles: list[RemovableHandle] = []
    for block in blocks:
        assert isinstance(block, Block)
        # By hooks, since kernels never return the weights: these are worked out from queries and
        # keys.
        handles += _watch(block, layers)
    with _removed_after(handles):
        yield layers


@contextmanager
def _removed_after(handles: list[RemovableHandle]) -> Iterator[None]:
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
        # A block returns no queries, so they are turned here as the block turns them.
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
