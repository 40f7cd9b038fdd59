"""A transformer's cached step as CUDA graphs: one launch instead of hundreds.

What the host decides (room, sinks, its own count of the steps) stays in `Transformer.step`; see
`Transformer.decode` for why the rest can be captured.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from relic.policy.kv_cache import KVCache
from relic.policy.transformer import Transformer


class CapturedSteps:
    """The device's part of one state's steps, captured; to be set as the state's `captured`.

    A graph has fixed shapes, so each reads a fixed number of slots under a mask. There is one for
    each power of two of slots, captured when first needed: a step reads at most twice what it sees.
    Without CUDA nothing is captured and each call runs the same step.

    Args:
        model: Its weights may change, but not move.
        state: Of the model; so is its cache.
        fewest_slots: Of the smallest graph.
    """

    WARM_UP_STEPS = 3

    def __init__(self, model: Transformer, state: KVCache, *, fewest_slots: int = 256):
        self.model = model
        self.state = state
        self.fewest_slots = fewest_slots
        device = state.kv.device
        with torch.inference_mode(False):
            self._x_NE = torch.zeros(state.num_rows, model.width, device=device)
            self._starts_N = torch.zeros(state.num_rows, dtype=torch.bool, device=device)
        self._pool = torch.cuda.graph_pool_handle() if state.kv.is_cuda else None
        self._runs: dict[int, Callable[[], Tensor]] = {}

    def __call__(self, x_NE: Tensor, episode_starts_N: Tensor) -> Tensor:
        """Run `Transformer.decode` on the state.

        Returns:
            Tokens (N, E), overwritten by the next call.
        """
        self._x_NE.copy_(x_NE)
        self._starts_N.copy_(episode_starts_N)
        slots = self._slots_to_read()
        if slots not in self._runs:
            self._runs[slots] = self._capture(slots)
        return self._runs[slots]()

    def _slots_to_read(self) -> int:
        seen = self.state.most_steps() + 1
        return min(max(1 << (seen - 1).bit_length(), self.fewest_slots), self.state.slots)

    def _capture(self, slots: int) -> Callable[[], Tensor]:
        """Record one step. Warming up writes nothing that counts, and recording runs nothing."""
        if self._pool is None:
            return lambda: self._decode(slots)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(False):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(self.WARM_UP_STEPS):
                    self._decode(slots, write=False)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph, pool=self._pool):
                y_NE = self._decode(slots)

        def replay() -> Tensor:
            graph.replay()
            return y_NE

        return replay

    def _decode(self, slots: int, write: bool = True) -> Tensor:
        """Run the step on so many slots; what the model steps by itself goes on as ever."""
        self.state.fixed_slots = slots
        try:
            return self.model.decode(self._x_NE, self._starts_N, self.state, write)
        finally:
            self.state.fixed_slots = 0
