"""Image encoders: pictures to features, in slices of bounded memory.

An `ImageEncoder` is a module of its own, so that it can be trained alone, saved, and plugged into
a policy by path. It takes what the environment hands out (uint8 colours, depth in metres, class
numbers, always height x width x channels), moves it to its device slice by slice, and normalises
it there. Choosing encoders for a whole observation is the job of `relic.policy.encoders.encoders`.

Shapes: B pictures, F features; ``...`` stands for any leading dimensions.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import gymnasium
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from relic.files import write_json
from relic.policy.encoders.backbones import ImpalaCNN, ResNet18, SmallCNN
from relic.policy.encoders.config import EncoderConfig, VisualKind
from relic.policy.encoders.vit import VisionTransformer, read_checkpoint
from relic.policy.linear import Linear
from relic.policy.weights import (
    CheckpointError,
    load_weights,
    naming,
    read_json,
    read_weights,
    write_weights,
)
from relic.schema import build, to_plain
from relic.upgrade import upgrade_section

FORMAT = 1
WEIGHTS_FILE = "encoder.safetensors"
DESCRIPTION_FILE = "encoder.json"

SEMANTIC_WIDTH = 8
"""Channels that a class number is embedded into."""

MAX_CLASSES = 1024

_CACHED_PICTURES = 32
"""Pictures that a CPU encodes at once without gradient: what a layer writes is still in its cache,
and in memory that is not new, when the next one reads it."""

_SMALLEST_SIDE = {VisualKind.SMALL_CNN: 16, VisualKind.IMPALA: 16, VisualKind.RESNET18: 32}
_BASE_CHANNELS = {VisualKind.SMALL_CNN: 16, VisualKind.IMPALA: 16, VisualKind.RESNET18: 32}


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """What a picture of an observation space holds.

    Attributes:
        role: ``colour`` (uint8), ``depth`` (float, scaled from [low, high] to [0, 1]) or
            ``semantic`` (class numbers from 0 to high).
        height: Rows.
        width: Columns.
        channels: Channels; 1 where the space has no channel dimension.
    """

    role: Literal["colour", "depth", "semantic"]
    height: int
    width: int
    channels: int
    low: float = 0.0
    high: float = 255.0


def image_spec(key: str, space: gymnasium.Space, depth_max: float = 10.0) -> ImageSpec | None:
    """Return what the pictures of `space` hold, or None if it is no space of pictures.

    Args:
        key: Name of the observation, for messages.
        space: Its space.
        depth_max: Metres that stand for an unbounded depth.

    Raises:
        ValueError: If the space is one of pictures that no encoder reads.
    """
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) not in (2, 3):
        return None
    height, width, *rest = space.shape
    channels = rest[0] if rest else 1
    if channels > 4:
        raise ValueError(
            f"observation_space[{key!r}]: pictures must be height x width x channels with at "
            f"most 4 channels, got shape {space.shape}. Move the channels last."
        )
    low, high = float(space.low.min()), float(space.high.max())
    if space.dtype == "uint8":
        return ImageSpec("colour", height, width, channels)
    if space.dtype is not None and space.dtype.kind == "f":
        low, high = max(low, 0.0), min(high, depth_max)
        if not low < high:
            raise ValueError(
                f"observation_space[{key!r}]: depth must span a range, got [{low:g}, {high:g}]. "
                "Give its bounds in metres."
            )
        return ImageSpec("depth", height, width, channels, low, high)
    if channels != 1 or low < 0 or high >= MAX_CLASSES:
        raise ValueError(
            f"observation_space[{key!r}]: class pictures must have one channel and bounds within "
            f"[0, {MAX_CLASSES}), got shape {space.shape}, [{low:g}, {high:g}]. "
            "Give its bounds, or leave it out by encoder.keys."
        )
    return ImageSpec("semantic", height, width, 1, 0.0, high)


class ImageEncoder(nn.Module):
    """Pictures to features.

    Args:
        config: Kind, width and slicing; `config.checkpoint` is not read here.
        spec: What the pictures hold.

    Raises:
        ValueError: If the kind does not suit the pictures.
    """

    def __init__(self, config: EncoderConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.kind = resolve_kind(config.visual, spec)
        self.config = config
        self.spec = spec
        channels = spec.channels
        if spec.role == "semantic":
            channels = SEMANTIC_WIDTH
            self.classes = nn.Embedding(int(spec.high) + 1, SEMANTIC_WIDTH)
        self.backbone = _backbone(self.kind, config, spec, channels)
        self.num_features = self.backbone.num_features
        self.compress: nn.Module = nn.Identity()
        if config.feature_width is not None:
            linear = Linear(self.num_features, config.feature_width)
            self.compress = nn.Sequential(linear, nn.ReLU(inplace=True))
            self.num_features = config.feature_width

    def forward(self, images: Tensor) -> Tensor:
        """Return (..., F) of pictures (..., height, width[, channels]) on any device."""
        spec = self.spec
        shape = (spec.height, spec.width, spec.channels)
        bare = spec.channels == 1 and images.shape[-2:] == shape[:2]
        trailing = 2 if bare else 3
        if not bare and images.shape[-3:] != shape:
            raise ValueError(
                f"ImageEncoder.forward: pictures must have shape (..., {shape}), "
                f"got {tuple(images.shape)}. Give what the observation space promises."
            )
        leading = images.shape[: images.ndim - trailing]
        images = images.reshape(-1, *shape)
        # Only what has a backward pass is worth computing again.
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        slices = images.split(self._slice_size(learns=learns))
        if learns and len(slices) > 1:
            parts = [checkpoint(self._encode, s, use_reentrant=False) for s in slices]
        else:
            parts = [self._encode(s) for s in slices]
        features = parts[0] if len(parts) == 1 else torch.cat(parts)
        return features.reshape(*leading, self.num_features)

    def _slice_size(self, *, learns: bool) -> int:
        """Return how many pictures are encoded at once."""
        size = self.config.slice_size
        cached = not learns and next(self.parameters()).device.type == "cpu"
        return min(size, _CACHED_PICTURES) if cached else size

    @torch.no_grad()
    def frozen(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Return features (..., F) of a type, without gradient; on CUDA computed in it, too."""
        device = next(self.parameters()).device
        with torch.autocast(
            device.type, dtype, enabled=device.type == "cuda" and dtype.itemsize < 4
        ):
            return self(images).to(dtype)

    def _encode(self, images: Tensor) -> Tensor:
        """Return (B, F) of pictures (B, height, width, channels), all at once."""
        device = next(self.parameters()).device
        x = self.normalise(images.to(device, non_blocking=True)).movedim(-1, 1)
        # Weights keep their usual layout: the fused Adam silently pairs the wrong entries of a
        # parameter and a gradient whose layouts differ. Layers follow the layout of the pictures.
        if self.kind is VisualKind.VIT:
            x = x.contiguous()
        return self.compress(self.backbone(x))

    def normalise(self, images: Tensor) -> Tensor:
        """Return float pictures (B, height, width, channels)."""
        if self.spec.role == "colour":
            # Two steps, the second in place: a product of uint8 and a number takes twice as long.
            return images.to(torch.float32, copy=True).mul_(1 / 255)
        if self.spec.role == "semantic":
            return self.classes(images[..., 0].long().clamp(0, int(self.spec.high)))
        low, high = self.spec.low, self.spec.high
        return (images.float().clamp(low, high) - low) * (1 / (high - low))


def resolve_kind(kind: VisualKind, spec: ImageSpec) -> VisualKind:
    """Return the kind that ``auto`` stands for, and check that it suits the pictures.

    Raises:
        ValueError: If it does not.
    """
    side = min(spec.height, spec.width)
    if kind is VisualKind.AUTO:
        large = max(spec.height, spec.width) > 128
        kind = VisualKind.RESNET18 if large else VisualKind.SMALL_CNN
    if kind is VisualKind.VIT and (spec.role != "colour" or spec.channels != 3):
        raise ValueError(
            f"encoder.visual: vit must see colour pictures of 3 channels, got {spec.role} of "
            f"{spec.channels}. Leave the others out by encoder.keys, or choose another encoder."
        )
    if side < _SMALLEST_SIDE.get(kind, 1):
        raise ValueError(
            f"encoder.visual: {kind.value} must see pictures of at least "
            f"{_SMALLEST_SIDE[kind]} pixels a side, got {spec.height} x {spec.width}. "
            "Choose another encoder or larger pictures."
        )
    return kind


def _backbone(
    kind: VisualKind, config: EncoderConfig, spec: ImageSpec, channels: int
) -> SmallCNN | ImpalaCNN | ResNet18 | VisionTransformer:
    if kind is VisualKind.VIT:
        vit = config.vit
        return VisionTransformer(
            width=vit.width,
            depth=vit.depth,
            heads=vit.heads,
            patch=vit.patch,
            image_size=vit.image_size,
        )
    classes = {
        VisualKind.SMALL_CNN: SmallCNN,
        VisualKind.IMPALA: ImpalaCNN,
        VisualKind.RESNET18: ResNet18,
    }
    base = config.channels or _BASE_CHANNELS[kind]
    return classes[kind](channels, spec.height, spec.width, base)


def save_image_encoder(directory: Path, encoder: ImageEncoder) -> None:
    """Write an encoder, so that `encoder.checkpoint` can name the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    checksums = write_weights(directory / WEIGHTS_FILE, encoder)
    # `auto` is saved as what it stood for, and the path of older weights means nothing any more.
    config = dataclasses.replace(encoder.config, visual=encoder.kind, checkpoint=None)
    content = {
        "format": FORMAT,
        "config": to_plain(config),
        "spec": dataclasses.asdict(encoder.spec),
        "checksums": checksums,
    }
    write_json(directory / DESCRIPTION_FILE, content)


def load_image_encoder(directory: Path) -> ImageEncoder:
    """Return the encoder that `save_image_encoder` wrote.

    Raises:
        FileNotFoundError: If the directory holds none.
        CheckpointError: If it is damaged.
    """
    content = read_json(directory / DESCRIPTION_FILE, FORMAT)
    with naming(directory / DESCRIPTION_FILE):
        stored = upgrade_section(content["config"], "policy.encoder")
        config = build(EncoderConfig, stored, "config")
        encoder = ImageEncoder(config, build(ImageSpec, content["spec"], "spec"))
        checksums = content["checksums"]
    path = directory / WEIGHTS_FILE
    load_weights(encoder, read_weights(path, checksums), path)
    return encoder


def load_pretrained(encoder: ImageEncoder, path: Path) -> None:
    """Fill an encoder from a directory of `save_image_encoder`, or a ViT from a file of weights.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        CheckpointError: If it is damaged or of another architecture.
    """
    if path.is_dir():
        saved = load_image_encoder(path)
        for name, own, other in (
            ("encoder.visual", encoder.kind.value, saved.kind.value),
            ("pictures", encoder.spec, saved.spec),
        ):
            if own != other:
                raise CheckpointError(
                    f"{path}: {name} must be {own}, got {other}. Use an encoder that was trained "
                    "on such pictures, or leave them out by encoder.keys."
                )
        load_weights(encoder, saved.state_dict(), path / WEIGHTS_FILE)
    elif encoder.kind is VisualKind.VIT:
        load_weights(encoder.backbone, read_checkpoint(path), path)
    else:
        raise FileNotFoundError(
            f"{path}: must be a directory written by save_image_encoder, found "
            f"{'a file' if path.exists() else 'nothing'}. Check encoder.checkpoint."
        )
