"""What a pretrained encoder found in a picture, as a token that a memory can find again.

A frozen encoder's features say of each category whether it shows in a column of the picture, how
far it is and in which direction (`relic.pretraining`). With the agent's own position and heading
that gives its place in the trial's frame. A token says where the goal is, if it shows, and names
*one* object in view by the embedding that also names the goal. To recall is then one hop: the
embedding of the goal finds the tokens that named it. The same is done for detections by the
environment (`envs.objectnav.detections`).

Shapes: ``...`` stands for N rows or N rows x T steps; G categories, C columns, E width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relic.policy.encoders.config import SightingsConfig
from relic.policy.encoders.inputs import CategoryEncoder, picked
from relic.policy.goal_location import into_frame

TABLES = 3
"""Tables of G x C features: evidence, distance, bearing."""
EVIDENCE = 2.0
"""Evidence is max(0, logit + this): doubtful objects leave a trace too."""
MIN_DISTANCE = 0.1
"""Metres; distances are logarithms in units of it, so at least 0."""
BEARING_SHIFT = 0.5 * math.pi
"""Bearings in radians are told plus this, so that they are at least 0."""

_STRENGTH = 0.25
"""Evidence is a few units; hyperbolic tangents of a quarter keep it apart."""
_NUMBERS = 5
"""Of an object: metres ahead and to the right, its place, and the evidence."""
_HASH = (73_856_093, 19_349_663, 83_492_791)
"""Large primes that mix whole numbers (Teschner et al. 2003)."""


class Found(NamedTuple):
    """Each category at the column where it shows most."""

    evidence_G: Tensor
    offset_G2: Tensor
    """Metres ahead and to the right."""
    place_G2: Tensor
    """In the frame of the position."""

    def numbers(self, units: tuple[float, float]) -> Tensor:
        """Return what a token says of each category, (..., G, 5), zeros without evidence."""
        parts = [self.offset_G2 / units[0], self.place_G2 / units[1]]
        numbers = torch.cat([*parts, torch.tanh(self.evidence_G * _STRENGTH)[..., None]], -1)
        return numbers * (self.evidence_G > 0)[..., None]


class Sightings(nn.Module):
    """Says where the goal shows, and names one object in view.

    Args:
        config: Of which observations.
        categories: The encoder of the category that is asked for.
        num_source: Features of the source.

    Raises:
        ValueError: If the source has no more features than the tables hold.
    """

    def __init__(
        self, config: SightingsConfig, categories: CategoryEncoder, num_source: int
    ) -> None:
        super().__init__()
        self.config = config
        self.num_categories = categories.table.num_embeddings
        self.num_used = TABLES * self.num_categories * config.columns
        self.num_features = 2 * _NUMBERS + categories.num_features
        if categories.size != 1 or num_source <= self.num_used:
            raise ValueError(
                f"encoder.sightings: {config.source} must have more than 3 x categories x columns "
                f"= {self.num_used} features and {config.category} one dimension, got {num_source} "
                f"and {categories.size}. Use an encoder that `pretrain.pictures` trains."
            )

    def forward(
        self,
        features: Tensor,
        asked: Tensor,
        embeddings_GE: Tensor,
        position_2: Tensor,
        heading_1: Tensor,
    ) -> Tensor:
        """Return the goal's numbers, the named object's, and its embedding, (..., num_features).

        Args:
            features: (..., at least num_used).
            asked: Which category is asked for, int64 (...,).
            embeddings_GE: Of the categories.
            position_2: In metres forward and to the right of the trial's start.
            heading_1: In radians, counter-clockwise.
        """
        config = self.config
        found = self.found(features, position_2, heading_1)
        numbers_G5 = found.numbers(config.units)
        turn_G = self._turns(position_2, heading_1)
        shown_G = found.evidence_G > config.least_evidence
        named = torch.where(shown_G, turn_G, -1).argmax(-1)
        # A row of zeros after the last category's names nothing.
        none = self.num_categories
        named_row = torch.where(shown_G.any(-1), named, none)
        named_5 = picked(numbers_G5, named) * shown_G.any(-1, keepdim=True)
        embedded_E = F.embedding(named_row, F.pad(embeddings_GE, (0, 0, 0, 1)))
        return torch.cat([picked(numbers_G5, asked), named_5, embedded_E], -1)

    def found(self, features: Tensor, position_2: Tensor, heading_1: Tensor) -> Found:
        """Return what features say of each category, and where it is from such a pose."""
        shape = (TABLES, self.num_categories, self.config.columns)
        evidence_GC, distance_GC, bearing_GC = (
            features[..., : self.num_used].unflatten(-1, shape).unbind(-3)
        )
        evidence_G, column_G = evidence_GC.max(-1)
        distance_G = MIN_DISTANCE * distance_GC.gather(-1, column_G[..., None])[..., 0].exp()
        bearing_G = bearing_GC.gather(-1, column_G[..., None])[..., 0] - BEARING_SHIFT
        offset_G2 = distance_G[..., None] * torch.stack([bearing_G.cos(), bearing_G.sin()], -1)
        place_G2 = position_2[..., None, :] + into_frame(offset_G2, heading_1[..., None, :])
        return Found(evidence_G, offset_G2, place_G2)

    def _turns(self, position_2: Tensor, heading_1: Tensor) -> Tensor:
        """Return an order of the categories for each pose, int64 (..., G): all get their turn.

        It follows from whole numbers alone, so acting and learning find the same.
        """
        cell_3 = torch.cat([position_2 * 20, heading_1 * 10], -1).round().long()
        mixed = (cell_3 * torch.tensor(_HASH, device=cell_3.device)).sum(-1, keepdim=True)
        number_G = torch.arange(self.num_categories, device=cell_3.device)
        return ((mixed * (2 * number_G + 1) + number_G * 40_503) * 2_654_435_761) % (1 << 32)
