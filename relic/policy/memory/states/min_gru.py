"""minGRU (Feng et al. 2024, arXiv 2410.01201): the cheapest memory that is trained in parallel.

h[t] = (1 - z[t]) h[t-1] + z[t] c[t], where gate z and candidate c are read from step t alone. So
steps need not wait for each other: all of them are one scan.

Shapes: N rows, T steps, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relic.policy.linear import Linear
from relic.policy.memory.config import MinGRUConfig
from relic.policy.memory.states.fixed_state import Parts
from relic.policy.memory.states.scan import scan
from relic.policy.memory.states.stack import Mixer, Stack, time_scales


class MinGRUMixer(Mixer):
    """One layer's recurrence."""

    def __init__(self, config: MinGRUConfig):
        super().__init__()
        width = config.width
        self.shapes = {"hidden": (width,)}
        self.gate = Linear(width, width)
        self.candidate = Linear(width, width, bias=False)
        self.out = Linear(width, width, bias=False)

    def start(self) -> None:
        """Spread the channels over time scales."""
        with torch.no_grad():
            # A gate of 1 / (1 + s) averages over about s steps.
            self.gate.bias.copy_(-time_scales(self.gate.out_features).log())

    def forward(self, x_NTE: Tensor, parts: Parts) -> tuple[Tensor, Parts]:
        """Read steps; see `Mixer.forward`."""
        # In float32: in bfloat16, one less a small gate is one, and nothing would ever fade.
        gate_NTE = torch.sigmoid(self.gate(x_NTE).float())
        hidden_NTE = scan(1 - gate_NTE, gate_NTE * self.candidate(x_NTE), parts["hidden"])
        return self.out(hidden_NTE.to(x_NTE.dtype)), {"hidden": hidden_NTE[:, -1]}


class MinGRU(Stack):
    """A stack of minGRU layers."""

    Config = MinGRUConfig
    Mixer = MinGRUMixer
