"""Trains a picture encoder on labelled pictures of train houses, before it is frozen.

The paper does this with VC-1 and a 20-way object-presence target; here the encoder is small, so
that minutes on a CPU are enough, and the target also says where and how near an object is. Each
feature is a read-out of one label: a category in a column of the picture, a category near enough
to stop at, or a depth. A policy then need not find out what a picture shows, only what to do.

Shape suffixes: B pictures, K read-outs, G goal categories, Y and X cells, C columns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from envs.houses.scene import GOAL_CATEGORIES
from relic.policy.backbones import SmallCNN
from relic.policy.encoder_config import VisualKind
from relic.policy.images import ImageEncoder, image_spec, resolve_kind, save_image_encoder
from relic.run.config import RunConfig
from relic.run.distributed import Ranks
from relic.run.pictures import COLUMNS, DEPTHS, Pictures, label_pictures
from relic.run.progress import tell
from relic.run.run_directory import RunDirectory
from relic.schema import ConfigError

NUM_CATEGORIES = len(GOAL_CATEGORIES)
READ_OUTS = 2 * NUM_CATEGORIES + DEPTHS
"""Of each column: presence and nearness of each category, and depths."""
FEATURE_WIDTH = READ_OUTS * COLUMNS
"""What `policy.encoder.feature_width` must be."""
_HELD_OUT = 0.1
_RARE = -4.0
"""Logit of objects before anything is known; most are not in view."""
_PRESENCE_WEIGHT = 3.0
"""How much more an object that is there counts than one that is not."""
_CROSS_ENTROPY_WEIGHT = 20.0
"""Brings the mean over many absent objects to the size of the other losses."""
_EVIDENCE = 2.0
"""Features are max(0, logit + this): doubtful objects leave a trace too."""
_SIDES = (32, 64, 128)


class Labels(NamedTuple):
    """Labels of a batch, as the losses take them."""

    cells_BGYX: Tensor
    columns_BKC: Tensor
    """Presence, then nearness, of every category."""
    depth_B2C: Tensor


def with_encoder(config: RunConfig, directory: RunDirectory, ranks: Ranks) -> RunConfig:
    """Pretrain the run's encoder where that is asked for, and let the policy start from it.

    An encoder that the configuration names already is used instead.
    """
    if config.pretrain.pictures > 0 and config.policy.encoder.checkpoint is None:
        if ranks.is_first:
            say = tell if config.logging.progress else _keep_quiet
            pretrain_encoder(config, directory.encoder, say)
        ranks.barrier()
    return name_encoder(config, directory)


def name_encoder(config: RunConfig, directory: RunDirectory) -> RunConfig:
    """Return the configuration with the run's pretrained encoder, if it has one."""
    if config.pretrain.pictures == 0 or config.policy.encoder.checkpoint is not None:
        return config
    encoder = replace(config.policy.encoder, checkpoint=str(directory.encoder))
    return replace(config, policy=replace(config.policy, encoder=encoder))


def pretrain_encoder(config: RunConfig, directory: Path, say: Callable[[str], None]) -> None:
    """Train the run's picture encoder and write it, for `policy.encoder.checkpoint`.

    Args:
        config: The run; its environment must be the embedded houses, seen in colour.
        directory: Where the encoder goes; one that is there already is kept.
        say: Told what happens.

    Raises:
        ConfigError: If the environment or the encoder is another one.
    """
    if (directory / "encoder.json").exists():
        return
    _check(config)
    began = time.perf_counter()
    options = config.env.options
    pictures = label_pictures(
        config.pretrain.pictures,
        size=options.get("size", "small"),
        scale=options.get("scale"),
        resolution=int(options.get("resolution", 64)),
        seed=config.seed,
    )
    say(f"encoder: {len(pictures):,} labelled pictures in {time.perf_counter() - began:.0f} s")
    began = time.perf_counter()
    torch.manual_seed(config.seed)
    encoder = _make_encoder(config, pictures)
    network = ReadOutNetwork(encoder)
    held_out = max(1, int(_HELD_OUT * len(pictures)))
    _fit(network, pictures, config=config, begin=held_out)
    recall, precision = recall_and_precision(network, pictures, end=held_out)
    say(
        f"encoder: trained in {time.perf_counter() - began:.0f} s; in held-out pictures it finds "
        f"{100 * recall:.0f} % of the objects in view, and {100 * precision:.0f} % of its finds "
        "are right"
    )
    network.write_into(encoder)
    save_image_encoder(directory, encoder)


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
            self.columns.bias[: 2 * NUM_CATEGORIES].fill_(_RARE)

    def forward(self, rgb_BHW3: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, G, Y, X) of the cells and read-outs (B, K, C) of the columns."""
        x = (rgb_BHW3 * (1 / 255)).movedim(-1, 1)
        early = self.early(x.contiguous(memory_format=torch.channels_last))
        return self.cells(early), self.columns(self.late(early))[:, :, 0]

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
        shift[: 2 * NUM_CATEGORIES] = _EVIDENCE
        linear.weight.copy_(weight_KCPYX.flatten(0, 1).flatten(1))
        linear.bias.copy_((self.columns.bias + shift).repeat_interleave(COLUMNS))


@torch.no_grad()
def recall_and_precision(
    network: ReadOutNetwork, pictures: Pictures, *, end: int
) -> tuple[float, float]:
    """Return how well the first `end` pictures' objects are found by column, at a logit of 0."""
    network.eval()
    rgb = torch.from_numpy(pictures.rgb_BHW3[:end])
    logits = torch.cat([network(part)[1] for part in rgb.split(256)])
    found = (logits[:, :NUM_CATEGORIES] > 0).numpy()
    there = pictures.columns_BGC[:end]
    right = float((found & there).sum())
    return right / max(there.sum(), 1), right / max(found.sum(), 1)


def _keep_quiet(text: str) -> None:
    del text


def _check(config: RunConfig) -> None:
    options, encoder = config.env.options, config.policy.encoder
    if config.env.id != "relic/Houses-v0" or "rgb" not in options.get("sensors", ["rgb"]):
        raise ConfigError(
            f"pretrain.pictures: must be 0 where the environment is not relic/Houses-v0 with the "
            f"sensor rgb, got {config.pretrain.pictures} for {config.env.id}. Set it to 0."
        )
    if options.get("resolution", 64) not in _SIDES:
        raise ConfigError(
            f"env.options.resolution: must be one of {_SIDES} for pretraining, got "
            f"{options['resolution']}. Use 64."
        )
    if encoder.feature_width != FEATURE_WIDTH or not encoder.is_frozen:
        raise ConfigError(
            f"policy.encoder: must have feature_width={FEATURE_WIDTH} and frozen=true for "
            f"pretraining, got feature_width={encoder.feature_width}, frozen={encoder.frozen}. "
            "Set both."
        )


def _make_encoder(config: RunConfig, pictures: Pictures) -> ImageEncoder:
    spec = image_spec("rgb", spaces.Box(0, 255, pictures.rgb_BHW3.shape[1:], np.uint8))
    assert spec is not None
    kind = resolve_kind(config.policy.encoder.visual, spec)
    if kind is not VisualKind.SMALL_CNN:
        raise ConfigError(
            f"policy.encoder.visual: must be small_cnn for pretraining, got {kind.value}. "
            "Use small_cnn."
        )
    return ImageEncoder(config.policy.encoder, spec)


def _fit(network: ReadOutNetwork, pictures: Pictures, *, config: RunConfig, begin: int) -> None:
    """Train on the pictures from `begin` on, in batches of which half are mirrored."""
    part = config.pretrain
    steps = part.epochs * ((len(pictures) - begin) // part.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=part.lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, part.lr, total_steps=steps + 1)
    rng = np.random.default_rng([config.seed, 0xF17])
    network.train()
    for _ in range(part.epochs):
        order = begin + rng.permutation(len(pictures) - begin)
        for first in range(0, len(order) - part.batch + 1, part.batch):
            rgb, labels = _batch(
                pictures, order[first : first + part.batch], mirrored=bool(rng.integers(2))
            )
            cells_BGYX, columns_BKC = network(rgb)
            loss = _loss(cells_BGYX, columns_BKC, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _batch(pictures: Pictures, index_B: np.ndarray, *, mirrored: bool) -> tuple[Tensor, Labels]:
    rgb = torch.from_numpy(pictures.rgb_BHW3[index_B])
    columns = np.concatenate([pictures.columns_BGC[index_B], pictures.near_BGC[index_B]], axis=1)
    labels = Labels(
        torch.from_numpy(pictures.cells_BGYX[index_B]).float(),
        torch.from_numpy(columns).float(),
        torch.from_numpy(pictures.depth_B2C[index_B]),
    )
    if mirrored:
        cells_BGYX, columns_BKC, depth_B2C = (label.flip(-1) for label in labels)
        return rgb.flip(2), Labels(cells_BGYX, columns_BKC, depth_B2C)
    return rgb, labels


def _loss(cells_BGYX: Tensor, columns_BKC: Tensor, labels: Labels) -> Tensor:
    known = 2 * NUM_CATEGORIES
    depth = F.mse_loss(columns_BKC[:, known:], labels.depth_B2C)
    cells = _detection_loss(cells_BGYX, labels.cells_BGYX)
    return cells + _detection_loss(columns_BKC[:, :known], labels.columns_BKC) + depth


def _detection_loss(logits_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Cross-entropy and dice: one says how sure to be, the other does not drown in absence."""
    weight = torch.tensor(_PRESENCE_WEIGHT)
    entropy = F.binary_cross_entropy_with_logits(logits_BK, target_BK, pos_weight=weight)
    chance_BK = logits_BK.sigmoid()
    axes = [0, *range(2, logits_BK.ndim)]
    overlap = 2 * (chance_BK * target_BK).sum(axes) + 1
    total = chance_BK.square().sum(axes) + target_BK.sum(axes) + 1
    return _CROSS_ENTROPY_WEIGHT * entropy + (1 - overlap / total).mean()
