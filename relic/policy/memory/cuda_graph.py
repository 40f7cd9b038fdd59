"""A transformer's cached step as CUDA graphs: one launch instead of hundreds.

What the host decides (room, sinks, its own count of the steps) stays in `Transformer.step`; see
`Transformer.decode` for why the rest can be captured.

Shapes: N rows, E width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from relic.policy.memory.decode import takes_lengths
from relic.policy.memory.kv_cache import KVCache

Decode = Callable[[Tensor, Tensor, KVCache, bool], Tensor]
"""Runs one step of tokens and episode starts against a cache, and writes it or not."""


class CUDAGraphSteps:
    """The device's part of one state's steps, captured; to be set as the state's `cuda_graph`.

    A graph has fixed shapes, so each reads a fixed number of slots under a mask. There is one for
    each power of two of slots, captured when first needed: a step reads at most twice what it sees.
    A packed kernel that is told the lengths reads what it sees, and takes one graph. Without CUDA
    nothing is captured and each call runs the same step.

    Args:
        decode: `Transformer.decode`. The weights may be written, but not replaced.
        state: Of the model. Likewise: its tensors may be written, but not replaced.
        fewest_slots: Of the smallest graph.
    """

    WARM_UP_STEPS = 3

    def __init__(self, decode: Decode, state: KVCache, *, fewest_slots: int = 256):
        self.decode = decode
        self.state = state
        self.fewest_slots = fewest_slots
        device = state.kv.device
        with torch.inference_mode(False):
            # A graph reads and writes the addresses it was recorded with, so inputs are copied to
            # these.
            self._x_NE = torch.zeros(state.num_rows, state.config.width, device=device)
            self._starts_N = torch.zeros(state.num_rows, dtype=torch.bool, device=device)
        if state.kv.is_cuda:
            # One stream and one pool for all graphs: each further stream has its workspaces.
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream(device)
        self._runs: dict[int, Callable[[], Tensor]] = {}

    @property
    def graph_slots(self) -> list[int]:
        """Slots that each graph reads which has been captured so far."""
        return sorted(self._runs)

    @torch.no_grad()
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
        state = self.state
        if takes_lengths(state, state.config.attention_backend):
            return state.slots
        seen = state.most_steps() + 1
        return min(max(1 << (seen - 1).bit_length(), self.fewest_slots), state.slots)

    def _capture(self, slots: int) -> Callable[[], Tensor]:
        """Record one step. Warming up writes nothing that counts, and recording runs nothing."""
        if not self.state.kv.is_cuda:
            return lambda: self._decode(slots)
        graph, side = torch.cuda.CUDAGraph(), self._stream
        with torch.inference_mode(False):
            # What was copied on the caller's stream must be there before the side stream reads it.
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                # Libraries set themselves up in their first calls, which must not be recorded.
                for _ in range(self.WARM_UP_STEPS):
                    self._decode(slots, write=False)
            # And what it wrote, before the caller's stream goes on.
            torch.cuda.current_stream().wait_stream(side)
            # Other threads, in which environments step, may use the device meanwhile.
            mode = "thread_local"
            with torch.cuda.graph(graph, self._pool, stream=side, capture_error_mode=mode):
                y_NE = self._decode(slots)

        def replay() -> Tensor:
            graph.replay()
            return y_NE

        return replay

    def _decode(self, slots: int, write: bool = True) -> Tensor:
        """Run the step on so many slots; what the model steps by itself goes on as ever."""
        self.state.fixed_slots = slots
        try:
            return self.decode(self._x_NE, self._starts_N, self.state, write)
        finally:
            self.state.fixed_slots = 0
