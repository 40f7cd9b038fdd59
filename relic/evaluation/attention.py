"""What a policy attends to in a trial that it lived through: how much, of which episode, where.

Numbers are those of the policy's own queries and keys (`relic.policy.inspection`).

Shape suffixes: L layers, H heads, T steps of the trial, Q some of them, I episode index, K sinks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from relic.evaluation.trace import Trace
from relic.policy.inspection import LayerAttention, watch_attention
from relic.policy.policy import Policy

_AT_ONCE = 256
"""Queries whose weights are held at once: a row of them is as long as the trial."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TrialAttention:
    """The attention of a policy in one trial."""

    trace: Trace
    layers: tuple[LayerAttention, ...]

    @property
    def num_heads(self) -> int:
        """H."""
        return self.layers[0].query_NHTD.shape[1]

    def to_steps(self, steps: slice) -> Floats:
        """Return how much each head attends to each step of the trial, (L, H, T).

        Args:
            steps: The queries; their mean is returned. What is missing to one goes to the sinks.
        """
        means = [layer.weights(steps)[0, :, :, layer.num_sinks :].mean(1) for layer in self.layers]
        return torch.stack(means).cpu().numpy()

    def shares(self) -> Shares:
        """Return where the attention of each step goes."""
        episode_T = self.trace.episode_T
        parts = [_layer_shares(layer, episode_T) for layer in self.layers]
        sink_LHT, episode_LHTI = (np.stack(part) for part in zip(*parts, strict=True))
        return Shares(sink_LHT, episode_LHTI, episode_T)


@dataclass(frozen=True, slots=True)
class Shares:
    """How each step's attention is divided; sink, own and earlier sum to one."""

    sink_LHT: Floats
    episode_LHTI: Floats
    """To the steps of each episode."""
    episode_T: NDArray[np.int64]
    """The episode of each step that attends."""

    @property
    def own_LHT(self) -> Floats:
        """To the episode that the step is in."""
        index = self.episode_T[None, None, :, None]
        return np.take_along_axis(self.episode_LHTI, index, axis=3)[..., 0]

    @property
    def earlier_LHT(self) -> Floats:
        """To earlier episodes."""
        return self.episode_LHTI.sum(axis=3) - self.own_LHT

    def by_episode(self) -> Floats:
        """Return the mean over the steps of each episode, (L, H, I attending, I attended)."""
        count = self.episode_LHTI.shape[3]
        means = [self.episode_LHTI[:, :, self.episode_T == i].mean(axis=2) for i in range(count)]
        return np.stack(means, axis=2)


def attention_of(policy: Policy, trace: Trace) -> TrialAttention:
    """Work out what a policy attended to.

    Args:
        policy: The one that the trace was recorded of; another one shows what it would have
            attended to there.
        trace: The trial.

    Raises:
        ValueError: If the policy's memory is no transformer.
    """
    return TrialAttention(trace, tuple(watch_attention(policy, trace.batch)))


def _layer_shares(layer: LayerAttention, episode_T: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the shares of the sinks (H, T) and of each episode (H, T, I)."""
    num_steps = len(episode_T)
    of_episode_TI = torch.zeros(num_steps, int(episode_T[-1]) + 1)
    of_episode_TI[torch.arange(num_steps), torch.from_numpy(episode_T)] = 1.0
    sinks, episodes = [], []
    for begin in range(0, num_steps, _AT_ONCE):
        weights_HQJ = layer.weights(slice(begin, begin + _AT_ONCE))[0].cpu().float()
        sinks.append(weights_HQJ[..., : layer.num_sinks].sum(-1))
        episodes.append(weights_HQJ[..., layer.num_sinks :] @ of_episode_TI)
    return torch.cat(sinks, dim=1).numpy(), torch.cat(episodes, dim=1).numpy()
