"""The plan of a pass that all layers share: positions, visibility, and what the cache keeps.

Shapes: N rows, T steps, H heads, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relic.policy.attention.inputs import Past
from relic.policy.attention.segments import Segments
from relic.policy.memory.config import PositionKind, TransformerConfig
from relic.policy.memory.kv_cache import KVCache
from relic.policy.memory.positions import Positions, positions, rotation, steps_since


@dataclass(frozen=True, slots=True)
class PassPlan:
    """One pass: T new steps of each row on what the prefix holds."""

    facts: Positions
    """Positions of the new steps, each (N, T)."""
    trial_NT: Tensor
    """Index of each step in its trial."""
    segment_starts_NT: Tensor | None
    """Where steps stop to see what came before; None: nowhere."""
    segments: Segments
    """The same for attention, with the past."""
    prefix: KVCache | None
    """The steps before, as constants."""

    def past(self, layer: int) -> Past | None:
        """Return the cached steps of a layer."""
        if self.prefix is None or not self.segments.has_past:
            return None
        first = self.prefix.num_sinks
        used = slice(first, first + self.segments.past_slots)
        return Past(self.prefix.kv[layer, 0, :, :, used], self.prefix.kv[layer, 1, :, :, used])


def plan_pass(
    config: TransformerConfig,
    episode_starts_NT: Tensor,
    prefix: KVCache | None,
    counts: np.ndarray | None = None,
) -> PassPlan:
    """Lay out one pass.

    Args:
        config: Of the transformer.
        episode_starts_NT: Where episodes begin.
        prefix: The steps before; None: there are none.
        counts: Steps of each row that are no padding; None: all.
    """
    num_rows, num_steps = episode_starts_NT.shape
    device = episode_starts_NT.device
    facts = positions(episode_starts_NT, None if prefix is None else prefix.last)
    index_T = torch.arange(num_steps, device=device)
    trial_NT = index_T if prefix is None else prefix.lengths[:, None] + index_T
    trial_NT = trial_NT.expand(num_rows, num_steps)
    if counts is not None and (counts < num_steps).any():
        # What stands in the padding has no position that a table would have a row for.
        padding = index_T >= torch.from_numpy(counts).to(device)[:, None]
        facts = Positions(*(fact.masked_fill(padding, 0) for fact in facts))
        trial_NT = trial_NT.masked_fill(padding, 0)
    starts = _segment_starts(config, episode_starts_NT, trial_NT)
    steps = None if prefix is None else prefix.host_steps()
    # No row has filled more, and empty slots would be scored only to be hidden.
    slots = 0 if prefix is None or steps is None else min(int(steps.max()), prefix.slots)
    segments = Segments(
        num_rows, num_steps, starts_NT=starts, past_steps=steps, past_slots=slots, device=device
    )
    return PassPlan(facts, trial_NT, starts, segments, prefix)


def _segment_starts(
    config: TransformerConfig, episode_starts_NT: Tensor, trial_NT: Tensor
) -> Tensor | None:
    """Return where steps stop to see what came before: at episodes, and after `drop_first`."""
    starts = None if config.inter_episode_attention else episode_starts_NT.bool()
    if config.drop_first:
        cut = trial_NT == config.drop_first
        starts = cut if starts is None else starts | cut
    return starts


def segment_steps(config: TransformerConfig, episode_starts_N: Tensor, cache: KVCache) -> Tensor:
    """Return the steps that each row's next query sees before itself; as `_segment_starts`."""
    steps_N = cache.segment_steps
    if not config.inter_episode_attention:
        steps_N = steps_N.masked_fill(episode_starts_N.bool(), 0)
    if config.drop_first:
        steps_N = steps_N.masked_fill(cache.lengths == config.drop_first, 0)
    return steps_N


def rotation_of(config: TransformerConfig, facts: Positions, trial: Tensor) -> Tensor | None:
    """Return the rotary factors of steps, (..., D / 2); None where nothing is rotary.

    Args:
        config: Of the transformer.
        facts: Positions of the steps.
        trial: Index of each step in its trial.
    """
    if config.episode_position is PositionKind.ROPE:
        index = facts.episode
    elif config.in_episode_position is PositionKind.ROPE:
        index = facts.in_episode if config.reset_position else trial
    else:
        return None
    return rotation(index, config.head_dim, config.rope_base)


class PrefillWriter:
    """Puts keys and values of T steps where single steps would have left them.

    Args:
        cache: Written.
        prefix: The chosen rows of the cache as they are before.
        rows: Indices of the chosen rows.
        counts: Steps that count in each of them.
        num_steps: T.
        segment_starts_NT: Where steps stop to see what came before; None: nowhere.
    """

    def __init__(
        self,
        cache: KVCache,
        prefix: KVCache,
        *,
        rows: np.ndarray,
        counts: np.ndarray,
        num_steps: int,
        segment_starts_NT: Tensor | None,
    ):
        device = cache.kv.device
        self.cache = cache
        self.rows = rows
        self.counts = counts
        self._rows = torch.from_numpy(rows).to(device)
        begun = prefix.host_lengths
        self._slice: slice | None = None
        starts = segment_starts_NT
        if starts is None:
            starts = torch.zeros(len(rows), num_steps, dtype=torch.bool, device=device)
        self._place_NT = steps_since(starts, prefix.segment_steps - 1)
        # Rows of one length in a cache without a ring are written as one slice. Else only what
        # later steps may see is written, so that no slot is written twice: which of two writes to
        # one place wins is undefined.
        alike = (begun == begun[0]).all() and (counts == num_steps).all()
        if cache.is_linear and alike:
            first = cache.num_sinks + int(begun[0])
            self._slice = slice(first, first + num_steps)
        else:
            self._row, self._step, self._slot = self._survivors(starts.cumsum(1))

    def _survivors(self, segment_NT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return row, step and slot of the steps that later ones may still see."""
        count_N1 = torch.from_numpy(self.counts).to(segment_NT.device).unsqueeze(1)
        last_N1 = (count_N1 - 1).clamp(min=0)
        step_T = torch.arange(segment_NT.shape[1], device=segment_NT.device)
        ahead_NT = self._place_NT.gather(1, last_N1) - self._place_NT
        survives = (step_T < count_N1) & (segment_NT == segment_NT.gather(1, last_N1))
        survives &= ahead_NT < self.cache.slots
        row, step = survives.nonzero(as_tuple=True)
        return row, step, self._place_NT[row, step] % self.cache.slots + self.cache.num_sinks

    def write(self, layer: int, k_NHTD: Tensor, v_NHTD: Tensor) -> None:
        """Write one layer's keys and values."""
        for part, x_NHTD in enumerate((k_NHTD, v_NHTD)):
            own = self.cache.kv[layer, part]
            x_NHTD = x_NHTD.to(own.dtype)
            if self._slice is not None:
                own[self._rows, :, self._slice] = x_NHTD
            else:
                own[self._rows[self._row], :, self._slot] = x_NHTD[self._row, :, self._step]

    def finish(self, facts: Positions) -> None:
        """Advances lengths and positions of the rows.

        Args:
            facts: Of all steps, each (N, T).
        """
        moved = np.flatnonzero(self.counts)
        if not moved.size:
            return
        cache, device = self.cache, self.cache.kv.device
        counts = torch.from_numpy(self.counts[moved]).to(device)
        chosen = torch.from_numpy(moved).to(device)
        rows, last = self._rows[chosen], counts - 1
        cache.lengths[rows] += counts
        cache.segment_steps[rows] = self._place_NT[chosen, last] + 1
        cache.last.in_episode[rows] = facts.in_episode[chosen, last]
        cache.last.episode[rows] = facts.episode[chosen, last]
        cache.note_steps(self.counts, self.rows)
