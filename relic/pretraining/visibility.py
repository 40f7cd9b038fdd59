"""Tells which goal categories are in view of a picture: labelled pictures, a network, its score.

Shape suffixes: B pictures, G goal categories, E width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.houses.scene import GOAL_CATEGORIES
from relic.policy.encoders.vit import VisionTransformer
from relic.pretraining.pictures import label_pictures
from relic.pretraining.pretrain import dice_loss, found_and_right

_PART = 512
"""Pictures that are drawn at once."""


class Labelled(NamedTuple):
    """Pictures and what is in view."""

    rgb_BHW3: NDArray[np.uint8]
    visible_BG: NDArray[np.bool_]


class VisibilityNetwork(nn.Module):
    """A ViT with a linear head that says what is in view."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        self.head = nn.Linear(vit.num_features, len(GOAL_CATEGORIES))

    def features(self, rgb_BHW3: Tensor) -> Tensor:
        """Return the class token (B, E) of uint8 pictures on any device."""
        device = self.head.weight.device
        images = rgb_BHW3.to(device, non_blocking=True).movedim(-1, 1) * (1 / 255)
        # Not float16, whose gradients would need a scale of their own.
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return self.vit(images).float()

    def forward(self, rgb_BHW3: Tensor) -> Tensor:
        """Return logits (B, G)."""
        return self.head(self.features(rgb_BHW3))


class Score(NamedTuple):
    """How well visibility is told, at a logit of 0."""

    loss: float
    accuracy: float
    """Share of all labels."""
    recall: float
    precision: float

    def __str__(self) -> str:
        return (
            f"held-out loss {self.loss:.3f}, accuracy {self.accuracy:.3f}; finds "
            f"{100 * self.recall:.0f} % of what is in view, {100 * self.precision:.0f} % of its "
            "finds are right"
        )


def draw_labelled(
    count: int, *, size: str, scale: str | None, resolution: int, seed: tuple[int, ...]
) -> Labelled:
    """Draw pictures of train houses; see `relic.pretraining.pictures.label_pictures`."""
    rgb_BHW3 = np.empty((count, resolution, resolution, 3), np.uint8)
    visible_BG = np.empty((count, len(GOAL_CATEGORIES)), bool)
    for first in range(0, count, _PART):
        drawn = label_pictures(
            min(_PART, count - first),
            size=size,
            scale=scale,
            resolution=resolution,
            seed=[*seed, first],
        )
        rgb_BHW3[first : first + _PART] = drawn.rgb_BHW3
        visible_BG[first : first + _PART] = drawn.visible_BG
    return Labelled(rgb_BHW3, visible_BG)


def batches(
    labelled: Labelled, batch: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all pictures once, in random order."""
    order = rng.permutation(len(labelled.rgb_BHW3))
    for first in range(0, len(order), batch):
        index_B = order[first : first + batch]
        rgb_BHW3 = torch.from_numpy(labelled.rgb_BHW3[index_B])
        yield rgb_BHW3, torch.from_numpy(labelled.visible_BG[index_B]).float()


@torch.no_grad()
def score(network: VisibilityNetwork, labelled: Labelled, batch: int) -> Score:
    """Say how well a network tells what is in view."""
    network.eval()
    parts = torch.from_numpy(labelled.rgb_BHW3).split(batch)
    logits_BG = torch.cat([network(part).cpu() for part in parts])
    visible_BG = torch.from_numpy(labelled.visible_BG)
    found_BG = logits_BG > 0
    recall, precision = found_and_right(found_BG.numpy(), labelled.visible_BG)
    return Score(
        loss=float(dice_loss(logits_BG, visible_BG.float())),
        accuracy=float((found_BG == visible_BG).float().mean()),
        recall=recall,
        precision=precision,
    )
