"""The keys and values of one pass with gradient, kept so that a cache can take them over.

Shapes: L layers, N rows of the pass, T steps, H heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from relic.policy.memory.kv_cache import KVCache
from relic.policy.memory.sequence_model import SequenceModel, SequenceState
from relic.policy.memory.transformer import Transformer


class PassKeys:
    """What each layer's attention saw of the steps of one pass.

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
    def write(self, cache: SequenceState, rows: np.ndarray, first_step: int) -> None:
        """Put them where the same steps stand in a cache that keeps every step.

        To be called after the pass's own backward: that still reads the cache, and what it reads
        must not be written.

        Args:
            cache: Holds the steps already, from older weights; its lengths stay as they are.
            rows: Its rows that went through the pass, in order.
            first_step: Step of the trial at which the pass began.
        """
        assert isinstance(cache, KVCache)
        index = torch.from_numpy(rows).to(cache.kv.device)
        first = cache.num_sinks + first_step
        for own, pair in zip(cache.kv, self._layers, strict=True):
            for part, x_NHTD in zip(own, pair, strict=True):
                part[index, :, first : first + x_NHTD.shape[2]] = x_NHTD.to(part.dtype)


@contextmanager
def watch_keys(model: SequenceModel) -> Iterator[PassKeys]:
    """Yield what will hold the keys and values of a transformer's one pass meanwhile."""
    assert isinstance(model, Transformer)
    kept = PassKeys(copies=model.config.gradient_checkpointing)
    hooks = [block.register_forward_hook(kept.take) for block in model.blocks]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()
