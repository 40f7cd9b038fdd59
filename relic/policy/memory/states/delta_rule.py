"""The gated delta rule (Yang et al. 2024, arXiv 2412.06464): a matrix that is written like a table.

Each head keeps a matrix that maps keys to values. A step lets all of it fade, then corrects what it
finds at its own key towards its own value, so that a new fact replaces the old one of the same key
instead of adding to it. Learning takes chunks of steps at once; acting updates the matrix.

Shapes: N rows, T steps, E width, H heads, D head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from relic.policy.linear import Linear
from relic.policy.memory.blocks import NORM_EPS
from relic.policy.memory.config import DeltaRuleConfig
from relic.policy.memory.cpu.layers import RMSNorm
from relic.policy.memory.states.fixed_state import Parts
from relic.policy.memory.states.scan import read_matrix
from relic.policy.memory.states.stack import (
    Mixer,
    ShortConvolution,
    Stack,
    softplus_inverse,
    time_scales,
)


class DeltaRuleMixer(Mixer):
    """One layer's matrices."""

    def __init__(self, config: DeltaRuleConfig):
        super().__init__()
        width, heads = config.width, config.num_heads
        self.num_heads = heads
        self.head_dim = head_dim = width // heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.convolution = ShortConvolution(3 * width)
        self.fade_rate = Linear(width, 2 * heads)
        self.gate = Linear(width, width, bias=False)
        self.read_norm = RMSNorm(head_dim, eps=NORM_EPS)
        self.out = Linear(width, width, bias=False)
        self.shapes = {
            "inputs": self.convolution.shape,
            "matrix": (heads, head_dim, head_dim),
        }

    def start(self) -> None:
        """Spread the heads over time scales."""
        self.convolution.start()
        scale_H = time_scales(self.num_heads)
        with torch.no_grad():
            fade_H, rate_H = self.fade_rate.bias.chunk(2)
            fade_H.copy_(softplus_inverse(1 / scale_H))
            # A step at a random key overwrites the rate's share of one of D directions. So slow
            # heads write less, or they would be overwritten long before they fade.
            rate_H.copy_(torch.logit((self.head_dim / scale_H).clamp(max=0.5)))

    def forward(self, x_NTE: Tensor, parts: Parts) -> tuple[Tensor, Parts]:
        """Read steps; see `Mixer.forward`."""
        qkv_NTC, inputs = self.convolution(self.qkv(x_NTE), parts["inputs"])
        query, key, value = qkv_NTC.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        fade_NHT, rate_NHT = self.fade_rate(x_NTE).float().mT.chunk(2, dim=1)
        read_NHTD, matrix = read_matrix(
            # Queries and keys of length one: a step then never writes more than its value.
            F.normalize(query, dim=-1),
            F.normalize(key, dim=-1),
            value,
            -F.softplus(fade_NHT),
            parts["matrix"],
            rate_NHT=torch.sigmoid(rate_NHT),
        )
        read_NTHD = self.read_norm(read_NHTD.transpose(1, 2).to(x_NTE.dtype))
        mixed_NTE = self.out(read_NTHD.flatten(2) * F.silu(self.gate(x_NTE)))
        return mixed_NTE, {"inputs": inputs, "matrix": matrix}


class DeltaRule(Stack):
    """A stack of layers with the gated delta rule."""

    Config = DeltaRuleConfig
    Mixer = DeltaRuleMixer
