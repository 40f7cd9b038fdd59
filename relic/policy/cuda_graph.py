"""A transformer's cached step as one CUDA graph: one launch instead of hundreds.

Everything that the host decides (room, sinks, its own count of the steps) is done around the
replay; see `Transformer.decode` for why the rest can be captured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relic.policy.kv_cache import KVCache
from relic.policy.transformer import Transformer


class GraphedStep:
    """`Transformer.step` of one state, captured; advances the state like it.

    Shapes stay fixed, so each step reads all slots of the cache: pass a state whose capacity is no
    larger than the trials need.

    Args:
        model: On CUDA; its weights may change, but not move.
        state: Of the model. Its `fixed_shape` is switched on.
    """

    WARM_UP_STEPS = 3

    def __init__(self, model: Transformer, state: KVCache):
        if not state.kv.is_cuda:
            raise ValueError(
                f"GraphedStep: state must be on a CUDA device, got {state.kv.device}. Call "
                "model.step there."
            )
        self.model = model
        self.state = state
        state.fixed_shape = True
        device = state.kv.device
        self._x_NE = torch.zeros(state.num_rows, model.width, device=device)
        self._starts_N = torch.zeros(state.num_rows, dtype=torch.bool, device=device)
        self._graph = torch.cuda.CUDAGraph()
        self._y_NE = self._capture()

    @torch.no_grad()
    def _capture(self) -> Tensor:
        """Record one step. Warming up writes nothing that counts, and recording runs nothing."""
        self.model.sync_sinks(self.state)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(self.WARM_UP_STEPS):
                self.model.decode(self._x_NE, self._starts_N, self.state, write=False)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(self._graph):
            return self.model.decode(self._x_NE, self._starts_N, self.state)

    @torch.no_grad()
    def __call__(self, x_NE: Tensor, episode_starts_N: Tensor) -> Tensor:
        """Read the next step of every row; advances the state.

        Returns:
            Tokens (N, E), overwritten by the next call.

        Raises:
            ContextOverflowError: If a row is full; nothing has been written then.
        """
        self.state.make_room(1)
        self.model.sync_sinks(self.state)
        self._x_NE.copy_(x_NE)
        self._starts_N.copy_(episode_starts_N)
        self._graph.replay()
        self.state.note_steps(1)
        return self._y_NE
