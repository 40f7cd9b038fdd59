"""Trains a picture encoder on labelled pictures of train houses, before it is frozen.

The paper does this with VC-1 and a 20-way object-visibility target; here the encoder is small, so
that minutes on a CPU are enough, and the target also says where an object is. Each feature is a
read-out of one label: whether a category shows in a column of the picture, in which direction and
how far it is, or a depth. A policy then need not find out what a picture shows, only what to do.

Shapes: B pictures, K read-outs, G goal categories, Y and X cells, C columns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from relic.policy.encoders.config import VisualKind
from relic.policy.encoders.images import (
    DESCRIPTION_FILE,
    ImageEncoder,
    image_spec,
    resolve_kind,
    save_image_encoder,
)
from relic.policy.encoders.sightings import BEARING_SHIFT, TABLES
from relic.pretraining.pictures import Pictures, label_pictures
from relic.pretraining.read_out_network import FEATURE_WIDTH, NUM_CATEGORIES, ReadOutNetwork
from relic.schema import ConfigError

if TYPE_CHECKING:
    from relic.run.config import PretrainConfig, RunConfig

PART = 8192
"""Pictures that are drawn, and kept in memory, at once."""
HELD_OUT = 2**32 - 1
"""Number of the part that nothing is learned from."""
_VISIBLE_WEIGHT = 3.0
"""How much more an object that is there counts than one that is not."""
_CROSS_ENTROPY_WEIGHT = 20.0
"""Brings the mean over many absent objects to the size of the other losses."""
_SURE = 0.1
"""Errors of distance (as a logarithm) and bearing up to this count by their square."""
_WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""
_SIDES = (32, 64, 128)


class Labels(NamedTuple):
    """Labels of a batch, as the losses take them."""

    cells_BGYX: Tensor
    columns_BGC: Tensor
    """Whether a category shows, then how far it is and in which direction."""
    distance_BGC: Tensor
    bearing_BGC: Tensor
    depth_B2C: Tensor


def pretrain_encoder(config: RunConfig, directory: Path, say: Callable[[str], None]) -> None:
    """Train the run's picture encoder and write it, for `policy.encoder.checkpoint`.

    Args:
        config: The run; its environment must be the embedded houses, seen in colour.
        directory: Where the encoder goes; one that is there already is kept.
        say: Told what happens.

    Raises:
        ConfigError: If the environment or the encoder is another one.
    """
    if (directory / DESCRIPTION_FILE).exists():
        return
    _check(config)
    began = time.perf_counter()
    torch.manual_seed(config.seed)
    held_out = draw_part(config, HELD_OUT)
    encoder = small_cnn_encoder(config, held_out)
    network = ReadOutNetwork(encoder)
    fit(network, config, (draw_part(config, part) for part in range(num_parts(config))))
    recall, precision = recall_and_precision(network, held_out)
    say(
        f"encoder: trained on {config.pretrain.pictures:,} pictures in "
        f"{time.perf_counter() - began:.0f} s; in pictures of other houses it finds "
        f"{100 * recall:.0f} % of the objects in view, and {100 * precision:.0f} % of its finds "
        "are right"
    )
    network.write_into(encoder)
    encoder.calibrate(torch.from_numpy(held_out.rgb_BHW3))
    save_image_encoder(directory, encoder)


def num_parts(config: RunConfig) -> int:
    """Return the parts in which a run's pictures are drawn."""
    return -(-config.pretrain.pictures // PART)


def draw_part(config: RunConfig, part: int) -> Pictures:
    """Draw and label one part of the pictures; parts bound the memory of all of them.

    Args:
        config: The run.
        part: Number of the part, or `HELD_OUT`.
    """
    options, total = config.env.options, config.pretrain.pictures
    left = total if part == HELD_OUT else total - part * PART
    return label_pictures(
        min(left, PART),
        size=options.get("size", "small"),
        scale=options.get("scale"),
        resolution=int(options.get("resolution", 64)),
        seed=[config.seed, part],
    )


@torch.no_grad()
def recall_and_precision(network: ReadOutNetwork, pictures: Pictures) -> tuple[float, float]:
    """Return how well objects are found by column, at a logit of 0."""
    network.eval()
    rgb = torch.from_numpy(pictures.rgb_BHW3)
    logits = torch.cat([network(part)[1] for part in rgb.split(256)])
    found = (logits[:, :NUM_CATEGORIES] > 0).numpy()
    return found_and_right(found, pictures.columns_BGC)


def found_and_right(found: NDArray[np.bool_], there: NDArray[np.bool_]) -> tuple[float, float]:
    """Return recall and precision: the shares of what is there, and of what is found."""
    right = float((found & there).sum())
    return right / max(there.sum(), 1), right / max(found.sum(), 1)


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


def small_cnn_encoder(config: RunConfig, pictures: Pictures) -> ImageEncoder:
    """Build the run's encoder for such pictures, untrained.

    Raises:
        ConfigError: If its backbone is another one than pretraining can fold into.
    """
    spec = image_spec("rgb", spaces.Box(0, 255, pictures.rgb_BHW3.shape[1:], np.uint8), "colour")
    kind = resolve_kind(config.policy.encoder.visual, spec)
    if kind is not VisualKind.SMALL_CNN:
        raise ConfigError(
            f"policy.encoder.visual: must be small_cnn for pretraining, got {kind.value}. "
            "Use small_cnn."
        )
    return ImageEncoder(config.policy.encoder, spec)


def fit(network: ReadOutNetwork, config: RunConfig, parts: Iterable[Pictures]) -> None:
    """Train on pictures, part after part, in batches of which half are mirrored.

    Args:
        network: Who learns.
        config: The run; `pretrain.pictures` sets how long the learning rate takes to fall.
        parts: The pictures.
    """
    settings = config.pretrain
    steps = settings.epochs * settings.pictures // settings.batch
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=steps + 1, pct_start=_WARM_UP
    )
    rng = np.random.default_rng([config.seed, 0xF17])
    network.train()
    for pictures in parts:
        for index_B in _batches(len(pictures), settings, rng):
            rgb, labels = batch(pictures, index_B, mirrored=bool(rng.integers(2)))
            cells_BGYX, columns_BKC = network(rgb)
            loss = _loss(cells_BGYX, columns_BKC, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _batches(
    count: int, settings: PretrainConfig, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield the numbers of the pictures of each batch."""
    for _ in range(settings.epochs):
        order = rng.permutation(count)
        for first in range(0, count - settings.batch + 1, settings.batch):
            yield order[first : first + settings.batch]


def batch(pictures: Pictures, index_B: np.ndarray, *, mirrored: bool) -> tuple[Tensor, Labels]:
    """Return pictures and what the losses compare with, mirrored or not."""
    rgb = torch.from_numpy(pictures.rgb_BHW3[index_B])
    labels = Labels(
        torch.from_numpy(pictures.cells_BGYX[index_B]).float(),
        torch.from_numpy(pictures.columns_BGC[index_B]).float(),
        torch.from_numpy(pictures.distance_BGC[index_B]),
        torch.from_numpy(pictures.bearing_BGC[index_B]),
        torch.from_numpy(pictures.depth_B2C[index_B]),
    )
    if mirrored:
        flipped = Labels(*(label.flip(-1) for label in labels))
        # What was to the left is to the right.
        bearing_BGC = 2 * BEARING_SHIFT - flipped.bearing_BGC
        return rgb.flip(2), flipped._replace(bearing_BGC=bearing_BGC)
    return rgb, labels


def _loss(cells_BGYX: Tensor, columns_BKC: Tensor, labels: Labels) -> Tensor:
    told_BGC, distance_BGC, bearing_BGC = columns_BKC[:, : TABLES * NUM_CATEGORIES].split(
        NUM_CATEGORIES, 1
    )
    shown_BGC = labels.columns_BGC
    offset_BGC = F.smooth_l1_loss(
        distance_BGC, labels.distance_BGC, reduction="none", beta=_SURE
    ) + F.smooth_l1_loss(bearing_BGC, labels.bearing_BGC, reduction="none", beta=_SURE)
    place = (offset_BGC * shown_BGC).sum() / shown_BGC.sum().clamp(min=1)
    depth = F.mse_loss(columns_BKC[:, TABLES * NUM_CATEGORIES :], labels.depth_B2C)
    cells = _detection_loss(cells_BGYX, labels.cells_BGYX)
    return cells + _detection_loss(told_BGC, shown_BGC) + place + depth


def _detection_loss(logits_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Cross-entropy and dice: one says how sure to be, the other does not drown in absence."""
    weight = torch.tensor(_VISIBLE_WEIGHT)
    entropy = F.binary_cross_entropy_with_logits(logits_BK, target_BK, pos_weight=weight)
    return _CROSS_ENTROPY_WEIGHT * entropy + dice_loss(logits_BK, target_BK)


def dice_loss(logits_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Return how little predicted and true visibility overlap, in the mean over labels.

    Args:
        logits_BK: (B, K, ...); all axes but the second are summed over.
        target_BK: the same shape, 0 or 1.
    """
    chance_BK = logits_BK.sigmoid()
    axes = [0, *range(2, logits_BK.ndim)]
    overlap = 2 * (chance_BK * target_BK).sum(axes) + 1
    total = chance_BK.square().sum(axes) + target_BK.sum(axes) + 1
    return (1 - overlap / total).mean()
