"""A stack of layers, each of which mixes steps and then transforms every step by itself.

The layers' norms, MLPs and residual stream are those of the transformer. A memory of this kind is
one `Mixer`: what takes the place of attention.

Shapes: N rows, T steps, E width, C channels, W taps of a convolution.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from relic.policy.memory.blocks import NORM_EPS, GeGLU, init_weights
from relic.policy.memory.config import StackConfig
from relic.policy.memory.cpu.layers import RMSNorm
from relic.policy.memory.states.fixed_state import FixedStateModel, Parts

SHORTEST, LONGEST = 4, 4096
"""Steps in which the fastest and the slowest parts of a layer fade at the start of training."""


def time_scales(count: int) -> Tensor:
    """Return in how many steps parts of a layer are to fade, spread evenly on a scale of ratios."""
    return torch.logspace(math.log2(SHORTEST), math.log2(LONGEST), count, base=2.0)


def softplus_inverse(x: Tensor) -> Tensor:
    """Return what softplus turns into x."""
    return x.expm1().log()


class Mixer(nn.Module, ABC):
    """Carries what one layer remembers from step to step."""

    shapes: Mapping[str, tuple[int, ...]]
    """The parts of one row's state in one layer, by name, and their shapes."""

    @abstractmethod
    def forward(self, x_NTE: Tensor, parts: Parts) -> tuple[Tensor, Parts]:
        """Read steps; returns what is added to the stream, and what is remembered after them."""

    @abstractmethod
    def start(self) -> None:
        """Draw what does not start as the matrices of all layers do."""


class Stack(FixedStateModel):
    """Layers of a mixer and an MLP, each joined to the stream; a subclass names the mixer."""

    Mixer: ClassVar[type[Mixer]]

    def __init__(self, config: StackConfig, *, max_episode_steps: int):
        super().__init__(config, max_episode_steps=max_episode_steps)
        self.width = config.width
        self.layers = nn.ModuleList(
            StackLayer(config, self.Mixer) for _ in range(config.num_layers)
        )
        self.norm = RMSNorm(config.width, eps=NORM_EPS)
        self.apply(init_weights)
        for layer in self._layers():
            layer.mixer.start()
        self.shapes = {
            f"{i}.{name}": shape
            for i, layer in enumerate(self._layers())
            for name, shape in layer.mixer.shapes.items()
        }

    def read(self, x_NTE: Tensor, episode_starts_NT: Tensor, parts: Parts) -> tuple[Tensor, Parts]:
        """Run all layers; episode starts leave the memory as it is."""
        del episode_starts_NT
        h_NTE, after = x_NTE, {}
        for i, layer in enumerate(self._layers()):
            own = {name: parts[f"{i}.{name}"] for name in layer.mixer.shapes}
            h_NTE, left = layer(h_NTE, own)
            after |= {f"{i}.{name}": part for name, part in left.items()}
        return self.norm(h_NTE), after

    def _layers(self) -> list[StackLayer]:
        return [layer for layer in self.layers if isinstance(layer, StackLayer)]


class StackLayer(nn.Module):
    """A mixer and an MLP."""

    def __init__(self, config: StackConfig, mixer: Any):
        super().__init__()
        self.mixer_norm = RMSNorm(config.width, eps=NORM_EPS)
        self.mixer: Mixer = mixer(config)
        self.mlp_norm = RMSNorm(config.width, eps=NORM_EPS)
        self.mlp = GeGLU(config.width, config.mlp_width)

    def forward(self, h_NTE: Tensor, parts: Parts) -> tuple[Tensor, Parts]:
        """Add both branches to the stream; returns what is remembered, too."""
        mixed_NTE, after = self.mixer(self.mixer_norm(h_NTE), parts)
        h_NTE = h_NTE + mixed_NTE
        return h_NTE + self.mlp(self.mlp_norm(h_NTE)), after


class ShortConvolution(nn.Module):
    """A weighted sum of each channel's newest W steps, itself included, and a SiLU."""

    WIDTH = 4

    def __init__(self, channels: int):
        super().__init__()
        self.weight_WC = nn.Parameter(torch.empty(self.WIDTH, channels))
        self.shape = (self.WIDTH - 1, channels)
        """Of what a row remembers: its newest inputs."""
        self.start()

    def start(self) -> None:
        """Draw the weights so that a step's size is kept."""
        bound = self.WIDTH**-0.5
        nn.init.uniform_(self.weight_WC, -bound, bound)

    def forward(self, x_NTC: Tensor, past_NPC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums, and the newest inputs."""
        seen_NSC = torch.cat([past_NPC.to(x_NTC.dtype), x_NTC], dim=1)
        steps = x_NTC.shape[1]
        y_NTC = seen_NSC[:, :steps] * self.weight_WC[0]
        for tap in range(1, self.WIDTH):
            y_NTC = torch.addcmul(y_NTC, seen_NSC[:, tap : tap + steps], self.weight_WC[tap])
        return nn.functional.silu(y_NTC), seen_NSC[:, steps:]
