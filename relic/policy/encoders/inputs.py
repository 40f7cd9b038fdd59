"""Encoders of vectors, categories and the previous action.

Shapes: ``...`` stands for N rows or N rows x T steps; A action dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

VectorSpace = spaces.Box | spaces.MultiBinary
CategorySpace = spaces.Discrete | spaces.MultiDiscrete

UNBOUNDED = 1e6
"""Bounds beyond it are none: some environments write the largest float where they mean infinity."""


def vector_size(space: VectorSpace) -> int:
    """Return the numbers in a vector of the space."""
    return int(np.prod(space.shape, dtype=np.int64))


def vector_scale(space: VectorSpace) -> tuple[np.ndarray, np.ndarray] | None:
    """Return centre and half range, flat, where finite bounds leave [-1, 1]; else None."""
    if not isinstance(space, spaces.Box):
        return None
    low = space.low.astype(np.float64).reshape(-1)
    high = space.high.astype(np.float64).reshape(-1)
    if max(np.abs(low).max(initial=0), np.abs(high).max(initial=0)) > UNBOUNDED:
        return None
    if low.min(initial=0) >= -1 and high.max(initial=0) <= 1:
        return None
    half = np.where(high > low, (high - low) / 2, 1.0)
    return (low + high) / 2, half


def repeat_units(units: Sequence[float], size: int) -> np.ndarray:
    """Return a unit for each number of a vector.

    Raises:
        ValueError: If they do not come out even.
    """
    if size % len(units):
        raise ValueError(
            f"encoder.vector_units: must be as many as a vector's numbers, or a part of them that "
            f"comes out even, got {len(units)} for {size} numbers. Give one for all."
        )
    return np.tile(np.asarray(units, np.float64), size // len(units))


class VectorEncoder(nn.Module):
    """Numbers as they are, scaled by their bounds, or through a linear layer.

    Args:
        space: Their space.
        width: Width of the linear layer; None for none.
        scaled: Scale finite bounds that leave [-1, 1] to [-1, 1].
        angles: They are angles in radians, of which cosines and sines are taken; never scaled.
        units: What they are divided by instead, over and over.

    Raises:
        ValueError: If the numbers are not so many times as many as the units.
    """

    def __init__(
        self,
        space: VectorSpace,
        width: int | None,
        *,
        scaled: bool,
        angles: bool = False,
        units: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.size = vector_size(space)
        self.angles = angles
        size = 2 * self.size if angles else self.size
        self.linear = None if width is None else nn.Linear(size, width)
        self.num_features = size if width is None else width
        scale = vector_scale(space) if scaled and not angles else None
        if units is not None and not angles:
            scale = np.zeros(self.size), repeat_units(units, self.size)
        self.is_scaled = scale is not None
        centre, half = scale or (np.zeros(self.size), np.ones(self.size))
        # They follow from the space, which is saved with the policy.
        self.register_buffer("centre", torch.as_tensor(centre).float(), persistent=False)
        self.register_buffer("gain", torch.as_tensor(1 / half).float(), persistent=False)
        self.centre: Tensor
        self.gain: Tensor

    def forward(self, vector: Tensor) -> Tensor:
        """Return (..., num_features) of numbers (..., size)."""
        vector = vector.float()
        if self.angles:
            vector = torch.cat([vector.cos(), vector.sin()], -1)
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
        sizes = choices_in(space)
        # Dimension after dimension has its rows in one table.
        firsts = np.cumsum([0, *sizes[:-1]]) - np.asarray(space.start).reshape(-1)
        self.size = len(sizes)
        self.num_features = width
        self.table = nn.Embedding(sum(sizes), width)
        self.is_shifted = bool(firsts.any())
        self.register_buffer("firsts", torch.as_tensor(firsts), persistent=False)
        self.firsts: Tensor

    def forward(self, category: Tensor) -> Tensor:
        """Return (..., width) of numbers (..., dimensions)."""
        rows = self.rows(category)
        if self.size == 1:
            return self.table(rows.squeeze(-1))
        return self.table(rows).sum(-2)

    def rows(self, category: Tensor) -> Tensor:
        """Return the rows of the table (..., dimensions) of numbers (..., dimensions)."""
        category = category.long()
        return category + self.firsts if self.is_shifted else category


class SameCategoryEncoder(nn.Module):
    """Numbers to the embeddings that another observation's categories have; has no weights.

    Args:
        other: Their encoder.
        space: The numbers' space: those of `other`, and perhaps one more for none.

    Raises:
        ValueError: If there are more or fewer.
    """

    def __init__(self, other: CategoryEncoder, space: CategorySpace) -> None:
        super().__init__()
        # In a tuple, as weights belong to one module: files would hold them twice.
        self._other = (other,)
        self.num_features = other.num_features
        count = other.table.num_embeddings
        if not isinstance(space, spaces.Discrete) or space.n not in (count, count + 1):
            raise ValueError(
                f"encoder.same_categories: must name as many categories, {count}, or one more, "
                f"got {space}. Leave them out to embed them by a table of their own."
            )
        self._start = int(space.start)

    def forward(self, category: Tensor) -> Tensor:
        """Return (..., width) of numbers (..., 1): zeros where they name none."""
        # A row of zeros after the last category's.
        table = F.pad(self._other[0].table.weight, (0, 0, 0, 1))
        return F.embedding(category.long().squeeze(-1) - self._start, table)


def picked(rows_GX: Tensor, category: Tensor) -> Tensor:
    """Return the row of one category at each step, (..., X).

    Args:
        rows_GX: A row for each of G categories, (..., G, X).
        category: Which, int64 (...,).
    """
    index = category[..., None, None].expand(*category.shape, 1, rows_GX.shape[-1])
    return rows_GX.gather(-2, index)[..., 0, :]


def embed_categories(
    categories: Mapping[str, CategorySpace], width: int, same: Mapping[str, str]
) -> dict[str, nn.Module]:
    """Return an encoder for each observation of categories.

    Args:
        categories: Their spaces.
        width: Of an embedding.
        same: Which are embedded by the table of which other, where that is there.
    """
    encoders: dict[str, nn.Module] = {}
    for key, space in categories.items():
        if same.get(key) not in categories:
            encoders[key] = CategoryEncoder(space, width)
    for key in sorted(categories.keys() - encoders.keys()):
        other = encoders[same[key]]
        assert isinstance(other, CategoryEncoder)  # as `EncoderConfig` allows no chains
        encoders[key] = SameCategoryEncoder(other, categories[key])
    return encoders


class PrevActionEncoder(nn.Module):
    """The previous action, or at an episode's start a symbol for none.

    Args:
        action_space: `Discrete`, or a flat `MultiDiscrete`, `MultiBinary` or float `Box`.
        width: Width of an embedding.
    """

    def __init__(self, action_space: spaces.Space, width: int) -> None:
        super().__init__()
        self.num_features = width
        self.is_discrete = not isinstance(action_space, spaces.Box)
        if not self.is_discrete:
            self.linear = nn.Linear(spaces.flatdim(action_space) + 1, width)
            return
        choices = choices_in(action_space)
        # Row 0 stands for no action; dimension after dimension has its rows behind it.
        self.table = nn.Embedding(sum(choices) + 1, width)
        self.is_vector = bool(action_space.shape)
        firsts = torch.tensor([1, *choices[:-1]]).cumsum(0)
        self.register_buffer("firsts_D", firsts, persistent=False)
        self.firsts_D: Tensor

    def forward(self, prev_action: Tensor, episode_starts: Tensor) -> Tensor:
        """Return (..., width); `prev_action` is not looked at where an episode starts."""
        if self.is_discrete and not self.is_vector:
            return self.table((prev_action.long() + 1).masked_fill(episode_starts, 0))
        none = episode_starts.unsqueeze(-1)
        if self.is_discrete:
            return self.table((prev_action.long() + self.firsts_D).masked_fill(none, 0)).sum(-2)
        action_A = prev_action.float().masked_fill(none, 0.0)
        return self.linear(torch.cat((action_A, none.float()), -1))


def choices_in(space: spaces.Space) -> list[int]:
    """Return the choices in each dimension of a space of whole numbers."""
    if isinstance(space, spaces.MultiBinary):
        return [2] * vector_size(space)
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.reshape(-1).tolist()
    assert isinstance(space, spaces.Discrete)
    return [int(space.n)]
