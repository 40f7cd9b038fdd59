"""The network whose read-outs become a picture encoder's features.

Shapes: B pictures, K read-outs, G goal categories, Y and X cells, C columns, P channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from envs.objectnav.goals import GOAL_CATEGORIES
from relic.policy.encoders.backbones import SmallCNN
from relic.policy.encoders.images import ImageEncoder, multiplies_bfloat16
from relic.policy.encoders.sightings import EVIDENCE, TABLES
from relic.pretraining.pictures import COLUMNS, DEPTHS

NUM_CATEGORIES = len(GOAL_CATEGORIES)
READ_OUTS = TABLES * NUM_CATEGORIES + DEPTHS
"""Of each column: evidence, distance and bearing of each category, and depths."""
FEATURE_WIDTH = READ_OUTS * COLUMNS
"""What `policy.encoder.feature_width` must be."""
_RARE = -4.0
"""Logit of objects before anything is known; most are not in view."""


class ReadOutNetwork(nn.Module):
    """An encoder's layers while they learn: with batch norms, and read out by column and cell.

    `write_into` folds all of it into the encoder's own convolutions and linear layer.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        """Take over the convolutions of a `SmallCNN` encoder."""
        super().__init__()
        assert isinstance(encoder.backbone, SmallCNN)
        convolutions = [m for m in encoder.backbone.layers if isinstance(m, nn.Conv2d)]
        norms = [nn.BatchNorm2d(conv.out_channels) for conv in convolutions]
        self._normalised = list(zip(convolutions, norms, strict=True))
        blocks = [nn.Sequential(conv, norm, nn.ReLU()) for conv, norm in self._normalised]
        self.early = nn.Sequential(*blocks[:-1])
        self.late = blocks[-1]
        self.cells = nn.Conv2d(convolutions[-2].out_channels, NUM_CATEGORIES, 1)
        # The last map has as many columns as there are column labels; a read-out sees one whole.
        self.columns = nn.Conv2d(convolutions[-1].out_channels, READ_OUTS, (COLUMNS, 1))
        assert self.cells.bias is not None
        assert self.columns.bias is not None
        with torch.no_grad():
            self.cells.bias.fill_(_RARE)
            self.columns.bias[:NUM_CATEGORIES].fill_(_RARE)

    def forward(self, rgb_BHW3: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, G, Y, X) of the cells and read-outs (B, K, C) of the columns."""
        x = (rgb_BHW3 * (1 / 255)).movedim(-1, 1)
        # Faster where it is native; the frozen encoder computes so, too.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training and multiplies_bfloat16()):
            early = self.early(x.contiguous(memory_format=torch.channels_last))
            late = self.late(early)
        return self.cells(early.float()), self.columns(late.float())[:, :, 0]

    @torch.no_grad()
    def write_into(self, encoder: ImageEncoder) -> None:
        """Make the encoder's features what the columns say, in evaluation."""
        for conv, norm in self._normalised:
            assert conv.bias is not None
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            conv.weight *= scale[:, None, None, None]
            conv.bias.copy_((conv.bias - norm.running_mean) * scale + norm.bias)
        assert isinstance(encoder.compress, nn.Sequential)
        assert self.columns.bias is not None
        linear = encoder.compress[0]
        assert isinstance(linear, nn.Linear)
        weight_KCPYX = torch.einsum(
            "kpy,cx->kcpyx", self.columns.weight[..., 0], torch.eye(COLUMNS)
        )
        shift = torch.zeros(READ_OUTS)
        shift[:NUM_CATEGORIES] = EVIDENCE
        linear.weight.copy_(weight_KCPYX.flatten(0, 1).flatten(1))
        linear.bias.copy_((self.columns.bias + shift).repeat_interleave(COLUMNS))
