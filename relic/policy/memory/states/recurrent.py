"""The memory of RL²: an LSTM or a GRU whose hidden state lives as long as the trial.

The state crosses episodes and is zero only where a trial begins. Whether the reward and the end of
an episode are seen is the encoder's business.

Shapes: N rows, T steps, L layers, E width.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from relic.policy.memory.config import RecurrentConfig
from relic.policy.memory.states.fixed_state import FixedStateModel, Parts


class Recurrent(FixedStateModel):
    """Stacked recurrent layers; `LSTM` and `GRU` say of which kind."""

    Config = RecurrentConfig
    cell: ClassVar[type[nn.RNNBase]]
    remembers: ClassVar[tuple[str, ...]]
    """What a layer's state is made of, as the cell orders it."""

    def __init__(self, config: RecurrentConfig, *, max_episode_steps: int):
        super().__init__(config, max_episode_steps=max_episode_steps)
        self.width = config.width
        make: Any = self.cell
        self.cells = make(config.width, config.width, config.num_layers, batch_first=True)
        self.shapes = dict.fromkeys(self.remembers, (config.num_layers, config.width))

    def read(self, x_NTE: Tensor, episode_starts_NT: Tensor, parts: Parts) -> tuple[Tensor, Parts]:
        """Run the cells; episode starts leave the memory as it is."""
        del episode_starts_NT
        # On CUDA the cells refuse states that are views with gaps.
        before = [parts[k].to(x_NTE.dtype).transpose(0, 1).contiguous() for k in self.remembers]
        y_NTE, after = self.cells(x_NTE, tuple(before) if len(before) > 1 else before[0])
        after_LNE = after if len(before) > 1 else (after,)
        return y_NTE, {k: v.transpose(0, 1) for k, v in zip(self.remembers, after_LNE, strict=True)}


class LSTM(Recurrent):
    """Remembers a hidden and a cell state in each layer."""

    cell = nn.LSTM
    remembers = ("hidden", "cell")


class GRU(Recurrent):
    """Remembers a hidden state in each layer."""

    cell = nn.GRU
    remembers = ("hidden",)
