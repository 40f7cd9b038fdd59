"""What the heads of one layer attend to: attention weights, recomputed for plots and tests.

Shapes: N rows, T steps, Q some of them, H heads, D head dim, K sinks, J = K + T keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relic.policy.attention.inputs import Sinks
from relic.policy.attention.segments import Segments


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """One layer's attention in a pass over whole trials."""

    query_NHTD: Tensor
    """Rotated as the keys are."""
    sink_query_NHTD: Tensor
    """What the sinks are scored with."""
    key_NHTD: Tensor
    value_NHTD: Tensor
    sinks: Sinks | None
    segments: Segments
    window: int | None
    output_NHTD: Tensor
    """What the layer's attention returned."""

    @property
    def num_sinks(self) -> int:
        """K."""
        return 0 if self.sinks is None else self.sinks.key.shape[-2]

    @property
    def joined_value_NHJD(self) -> Tensor:
        """Values of the sinks, then of the steps."""
        if self.sinks is None:
            return self.value_NHTD
        sink_value = self.sinks.per_row(len(self.value_NHTD)).value
        return torch.cat([sink_value.to(self.value_NHTD.dtype), self.value_NHTD], dim=2)

    def weights(self, steps: slice = slice(None)) -> Tensor:
        """Return how much some queries attend to each key, (N, H, Q, J); rows sum to one.

        Scaled dot products under the mask of the pass, through a softmax: the formula that all
        backends compute. Sinks come first.
        """
        scale = self.query_NHTD.shape[-1] ** -0.5
        score = self.query_NHTD[:, :, steps] @ self.key_NHTD.mT
        if self.sinks is not None:
            sink_key = self.sinks.per_row(len(score)).key
            sink_score = self.sink_query_NHTD[:, :, steps] @ sink_key.mT
            score = torch.cat([sink_score, score], dim=-1)
        seen_NQJ = self.segments.mask(self.num_sinks, self.window, steps=steps)
        return (score * scale).masked_fill(~seen_NQJ[:, None], float("-inf")).softmax(-1)
