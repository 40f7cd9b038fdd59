"""Positions of a step: in its episode, and of its episode in the trial.

Pure functions of `episode_starts` in context order (gather the flags by ``context_order`` first
where episodes were shuffled), and of the same facts about the step before. The first step of a
trial has position 0 in episode 0, whatever its flag says: the flag cannot begin a second episode.

Shapes: N rows, T steps, D head dim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Positions(NamedTuple):
    """Facts of steps, int64. The step before a trial has `in_episode` -1 and `episode` 0."""

    in_episode: Tensor
    """Steps since the episode began."""
    episode: Tensor
    """Episodes of the trial that ended before."""


def steps_since(starts_NT: Tensor, before_N: Tensor | None = None) -> Tensor:
    """Count the steps since the latest start; 0 at a start.

    Args:
        starts_NT: bool, where counting begins anew.
        before_N: The count of the step before the first; None for -1, which lets the first step
            begin a count.

    Returns:
        int64 (N, T).
    """
    index_T = torch.arange(starts_NT.shape[1], device=starts_NT.device)
    latest_NT = torch.where(starts_NT, index_T, -1).cummax(dim=1).values
    running_NT = index_T if before_N is None else index_T + (before_N + 1).unsqueeze(1)
    return torch.where(latest_NT >= 0, index_T - latest_NT, running_NT)


def positions(episode_starts_NT: Tensor, before: Positions | None = None) -> Positions:
    """Return the facts of T steps that follow each other in context.

    Args:
        episode_starts_NT: bool, true at an episode's first step.
        before: Facts of the step before, each (N,); None where the trial begins here.
    """
    starts_NT = episode_starts_NT.bool()
    if before is None:
        counted_NT = starts_NT.clone()
        counted_NT[:, 0] = False
        return Positions(steps_since(starts_NT), counted_NT.cumsum(1))
    counted_NT = starts_NT.clone()
    # Nothing came before a trial's first step, so its flag ends no episode.
    counted_NT[:, 0] &= before.in_episode >= 0
    episode_NT = before.episode.unsqueeze(1) + counted_NT.cumsum(1)
    return Positions(steps_since(starts_NT, before.in_episode), episode_NT)


def next_position(episode_starts_N: Tensor, before: Positions) -> Positions:
    """Return the facts of the one step after `before`; as `positions`, without a time axis."""
    starts_N = episode_starts_N.bool()
    in_episode_N = (before.in_episode + 1).masked_fill(starts_N, 0)
    return Positions(in_episode_N, before.episode + (starts_N & (before.in_episode >= 0)))


def last_before(index: Tensor, end: int) -> Tensor:
    """Return indices with the end itself replaced by the last one before it.

    What stands at the end is only looked at, for the value of what follows the last step. No loss
    goes through it, so a table's row of its own would never learn.
    """
    return index - (index == end).long()


def rotation(index: Tensor, head_dim: int, base: float) -> Tensor:
    """Return the rotary factors of positions as unit complex numbers.

    Args:
        index: Positions, any shape.
        head_dim: Size of a head, even; each pair of neighbours turns at one frequency.
        base: Base of the wavelengths.

    Returns:
        complex64, shape (*index.shape, head_dim / 2).
    """
    exponent = torch.arange(0, head_dim, 2, device=index.device, dtype=torch.float32) / head_dim
    angle = index.unsqueeze(-1).float() * base**-exponent
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, factor: Tensor) -> Tensor:
    """Turn heads by rotary factors.

    Neighbours pair up: a permutation of the published half-split layout, and one multiplication.

    Args:
        x: Heads (..., D).
        factor: What `rotation` returned, with as many axes as x or broadcasting against it.
    """
    # In float32, because bfloat16 has no complex numbers.
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * factor).flatten(-2).to(x.dtype)
