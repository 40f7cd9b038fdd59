"""The critic: the value from the memory's output and, optionally, privileged observations.

A critic is used in training only, so it may look at what the actor must not know, such as the way
to the goal (asymmetric actor-critic, Pinto et al. 2017, arXiv 1710.06542). Acting needs neither
those observations nor the value.

Shapes: ``...`` stands for N rows or N rows x T steps; E model dim.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from relic.policy.config import CriticConfig
from relic.policy.encoders.config import EncoderConfig
from relic.policy.encoders.encoders import module_names
from relic.policy.encoders.inputs import VectorEncoder
from relic.policy.heads import ValueHead
from relic.policy.linear import Linear
from relic.schema import nearest


class PrivilegedCritic(nn.Module):
    """Features and privileged vectors, through one hidden layer, to the value of the state.

    Args:
        config: Which observations, and the layer's width.
        encoder: How vectors are scaled.
        space: Of one row's observation.
        width: E.

    Raises:
        ValueError: If an observation is missing or no flat vector.
    """

    def __init__(
        self, config: CriticConfig, encoder: EncoderConfig, space: spaces.Dict, width: int
    ) -> None:
        super().__init__()
        self.keys = tuple(dict.fromkeys(config.privileged))
        names = module_names(self.keys)
        vectors: dict[str, VectorEncoder] = {}
        for key in self.keys:
            part = space.spaces.get(key)
            if not isinstance(part, spaces.Box) or len(part.shape) != 1:
                found = "nothing" if part is None else str(part)
                raise ValueError(
                    f"policy.critic.privileged: must name observed vectors, got {key!r}, which is "
                    f"{found}. {nearest(key, space.spaces)}"
                )
            units, scaled = encoder.vector_units.get(key), encoder.scale_vectors
            vectors[names[key]] = VectorEncoder(part, None, scaled=scaled, units=units)
        self.vectors = nn.ModuleDict(vectors)
        told = sum(vector.num_features for vector in vectors.values())
        self.hidden = Linear(width + told, config.hidden)
        self.value = ValueHead(config.hidden)

    def forward(self, features_E: Tensor, observation: Mapping[str, Tensor | np.ndarray]) -> Tensor:
        """Return the value (...,), float32; NaN where a privileged observation is missing."""
        if any(key not in observation for key in self.keys):
            # Acting outside of training has no use for a value, and nothing to make one of.
            return features_E.new_full(features_E.shape[:-1], torch.nan, dtype=torch.float32)
        leading = features_E.shape[:-1]
        told = [
            vector(
                torch.as_tensor(observation[key], device=features_E.device).reshape(*leading, -1)
            )
            for key, vector in zip(self.keys, self.vectors.values(), strict=True)
        ]
        x = torch.cat([features_E, *(t.to(features_E.dtype) for t in told)], dim=-1)
        return self.value(F.relu(self.hidden(x)))
