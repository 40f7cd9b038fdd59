"""Encoders of what is not a picture: vectors, categories and the previous action.

Shapes: ``...`` stands for N rows or N rows x T steps; A action dimensions.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from relic.policy.observations import CategorySpace, VectorSpace, vector_scale, vector_size


class VectorEncoder(nn.Module):
    """Numbers as they are, scaled by their bounds, or through a linear layer.

    Args:
        space: Their space.
        width: Width of the linear layer; None for none.
        scaled: Scale finite bounds that leave [-1, 1] to [-1, 1].
    """

    def __init__(self, space: VectorSpace, width: int | None, *, scaled: bool) -> None:
        super().__init__()
        self.size = vector_size(space)
        self.linear = None if width is None else nn.Linear(self.size, width)
        self.num_features = self.size if width is None else width
        scale = vector_scale(space) if scaled else None
        self.is_scaled = scale is not None
        centre, half = scale or (np.zeros(self.size), np.ones(self.size))
        self.register_buffer("centre", torch.as_tensor(centre).float(), persistent=False)
        self.register_buffer("gain", torch.as_tensor(1 / half).float(), persistent=False)
        self.centre: Tensor
        self.gain: Tensor

    def forward(self, vector: Tensor) -> Tensor:
        """Return (..., num_features) of numbers (..., size)."""
        vector = vector.float()
        if self.is_scaled:
            vector = (vector - self.centre) * self.gain
        return vector if self.linear is None else self.linear(vector)


class CategoryEncoder(nn.Module):
    """Numbers that name categories to embeddings.

    Args:
        space: Their space; the embeddings of several dimensions are summed.
        width: Width of an embedding.
    """

    def __init__(self, space: CategorySpace, width: int) -> None:
        super().__init__()
        nvec = [space.n] if isinstance(space, spaces.Discrete) else space.nvec
        sizes = [int(n) for n in nvec]
        # Dimension after dimension has its rows in one table.
        firsts = np.cumsum([0, *sizes[:-1]]) - np.atleast_1d(space.start)
        self.size = len(sizes)
        self.num_features = width
        self.table = nn.Embedding(sum(sizes), width)
        self.is_shifted = bool(firsts.any())
        self.register_buffer("firsts", torch.as_tensor(firsts), persistent=False)
        self.firsts: Tensor

    def forward(self, category: Tensor) -> Tensor:
        """Return (..., width) of numbers (..., dimensions)."""
        category = category.long()
        if self.is_shifted:
            category = category + self.firsts
        if self.size == 1:
            return self.table(category.squeeze(-1))
        return self.table(category).sum(-2)


class PrevActionEncoder(nn.Module):
    """The previous action, or at an episode's start a symbol for none.

    Args:
        action_space: `Discrete` from zero, or a flat float `Box`.
        width: Width of an embedding.
    """

    def __init__(self, action_space: spaces.Space, width: int) -> None:
        super().__init__()
        self.num_features = width
        self.is_discrete = isinstance(action_space, spaces.Discrete)
        if isinstance(action_space, spaces.Discrete):
            self.table = nn.Embedding(int(action_space.n) + 1, width)
        else:
            self.linear = nn.Linear(spaces.flatdim(action_space) + 1, width)

    def forward(self, prev_action: Tensor, episode_starts: Tensor) -> Tensor:
        """Return (..., width); `prev_action` is not looked at where an episode starts."""
        if self.is_discrete:
            return self.table((prev_action + 1).masked_fill(episode_starts, 0))
        none = episode_starts.unsqueeze(-1)
        action_A = prev_action.float().masked_fill(none, 0.0)
        return self.linear(torch.cat((action_A, none.float()), -1))
