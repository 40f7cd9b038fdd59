"""Writing many steps at once into chosen rows of a cache.

Shapes: N chosen rows, T steps, H heads, D head dim.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from relic.policy.memory.kv_cache import KVCache
from relic.policy.memory.positions import Positions, steps_since


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
