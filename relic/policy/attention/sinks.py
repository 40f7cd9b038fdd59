"""Attention sinks: the kinds and their parameters.

A sink is one or more key-value pairs that every query sees before step 0 of its context. The
learned input of `SinkKind.TOKEN` runs through all layers, so it belongs to `memory/transformer.py`.

Where sinks enter attention:

* full pass: `Transformer._sinks` takes them from here, `Block.forward` hands them to `attend`, and
  each backend puts them before the keys and values of the steps (`AttentionInputs.joined` in
  the reference). Gradients reach the parameters on this way.
* cached step: `Transformer.sync_sinks` copies them into the first slots of the cache, where
  `decode_attend` reads them like the keys and values of steps.

Shapes: L layers, H heads, D head dim, K sinks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relic.policy.attention.kinds import SinkKind


class SinkKV(nn.Module):
    """Keys and values of the sinks of all layers (kinds kv, kv0, k0v, k0v0).

    One sink starts at zero, as published. Several that started there would receive the same
    gradient and stay equal, so their learned parts start from a normal distribution.
    """

    INIT_STD = 0.02

    def __init__(
        self, kind: SinkKind, num_sinks: int, *, num_layers: int, num_heads: int, head_dim: int
    ):
        super().__init__()
        shape = (num_layers, num_heads, num_sinks, head_dim)
        self._add("key_LHKD", shape, learned=kind.has_learned_key)
        self._add("value_LHKD", shape, learned=kind.has_learned_value)
        self.key_LHKD: Tensor
        self.value_LHKD: Tensor
        self.reset_parameters()

    def _add(self, name: str, shape: tuple[int, ...], *, learned: bool) -> None:
        if learned:
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        else:
            # A constant, so checkpoints need not hold it.
            self.register_buffer(name, torch.zeros(shape), persistent=False)

    def reset_parameters(self) -> None:
        """Set the learned parts to their start values."""
        for parameter in self.parameters():
            # Several that began alike would have the same gradient, and stay alike.
            if parameter.shape[2] == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=self.INIT_STD)

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return key and value of one layer's sinks, each (H, K, D)."""
        return self.key_LHKD[index], self.value_LHKD[index]
