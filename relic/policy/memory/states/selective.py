"""A selective state space, as Mamba-2 (Dao and Gu 2024, arXiv 2405.21060).

Each channel of a head has a state of S numbers. A step decides how long the moment is that it
stands for: a long one fades the state and writes the step into it, a short one leaves it as it is.
Where it writes and reads among the S numbers the step says, too, alike for all heads.

Shapes: N rows, T steps, E width, H heads, D channels of a head, S state size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relic.policy.linear import Linear
from relic.policy.memory.blocks import NORM_EPS
from relic.policy.memory.config import SelectiveConfig
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

MOMENTS = (0.001, 0.1)
"""Moments that a step stands for at the start of training, those of the slowest heads first."""


class SelectiveMixer(Mixer):
    """One layer's states."""

    def __init__(self, config: SelectiveConfig):
        super().__init__()
        heads, inner, size = config.num_heads, 2 * config.width, config.state_size
        self.num_heads = heads
        self.sizes = (inner, size, size)
        self.content = Linear(config.width, sum(self.sizes), bias=False)
        self.convolution = ShortConvolution(sum(self.sizes))
        self.moment = Linear(config.width, heads)
        self.log_rate_H = nn.Parameter(torch.empty(heads))
        self.skip_H1 = nn.Parameter(torch.ones(heads, 1))
        self.gate = Linear(config.width, inner, bias=False)
        self.read_norm = RMSNorm(inner, eps=NORM_EPS)
        self.out = Linear(inner, config.width, bias=False)
        self.shapes = {
            "inputs": self.convolution.shape,
            "state": (heads, size, inner // heads),
        }

    def start(self) -> None:
        """Let moments be as published, and spread the heads over time scales."""
        self.convolution.start()
        shortest, longest = (math.log2(m) for m in MOMENTS)
        moment_H = torch.logspace(longest, shortest, self.num_heads, base=2.0)
        with torch.no_grad():
            self.moment.bias.copy_(softplus_inverse(moment_H))
            self.log_rate_H.copy_(-(moment_H * time_scales(self.num_heads)).log())

    def forward(self, x_NTE: Tensor, parts: Parts) -> tuple[Tensor, Parts]:
        """Read steps; see `Mixer.forward`."""
        mixed_NTC, inputs = self.convolution(self.content(x_NTE), parts["inputs"])
        value_NTI, key_NTS, query_NTS = mixed_NTC.split(self.sizes, dim=-1)
        value_NTHD = value_NTI.unflatten(-1, (self.num_heads, -1))
        moment_NTH = F.softplus(self.moment(x_NTE).float())
        read_NHTD, state = read_matrix(
            query_NTS.unsqueeze(1),
            key_NTS.unsqueeze(1),
            (value_NTHD * moment_NTH.unsqueeze(-1)).transpose(1, 2),
            -(moment_NTH * self.log_rate_H.exp()).mT,
            parts["state"],
        )
        read_NTHD = read_NHTD.transpose(1, 2) + self.skip_H1 * value_NTHD
        gated_NTI = read_NTHD.flatten(2).to(x_NTE.dtype) * F.silu(self.gate(x_NTE))
        return self.out(self.read_norm(gated_NTI)), {"inputs": inputs, "state": state}


class Selective(Stack):
    """A stack of selective state spaces."""

    Config = SelectiveConfig
    Mixer = SelectiveMixer
