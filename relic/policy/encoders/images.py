"""Image encoders: pictures to features, in slices of bounded memory.

An `ImageEncoder` is a module of its own, so that it can be trained alone, saved, and plugged into
a policy by path. It takes what the environment hands out (colours, depth in metres, class numbers
or other numbers, always height x width x channels), moves it to its device slice by slice, and
normalises it there. `relic.policy.encoders.encoders` chooses encoders for a whole observation.

Shapes: B pictures, F features; ``...`` stands for any leading dimensions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from relic.files import write_sealed
from relic.policy.encoders.backbones import ImpalaCNN, ResNet18, SmallCNN
from relic.policy.encoders.config import EncoderConfig, VisualKind
from relic.policy.encoders.inputs import UNBOUNDED
from relic.policy.encoders.int8 import byte_cnn, multiplies_bytes
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
from relic.upgrade import upgrade_section, upgrade_spec, upgrade_weights

Role = Literal["colour", "depth", "classes", "numbers"]
"""What pictures hold."""

FORMAT = 1
WEIGHTS_FILE = "encoder.safetensors"
DESCRIPTION_FILE = "encoder.json"

CLASS_WIDTH = 8
"""Channels that a class number is embedded into."""

MAX_CLASS_ROWS = 1 << 16
"""Embeddings that the class numbers of one observation may have."""

_CACHED_PICTURES = 32
"""Pictures that a CPU encodes at once without gradient: what a layer writes is still in its cache,
and in memory that is not new, when the next one reads it."""

SMALLEST_SIDE = 3
"""Fewest rows and columns of what is a picture."""
_SMALLEST_SIDE = {VisualKind.IMPALA: 16, VisualKind.RESNET18: 32}
_BASE_CHANNELS = {VisualKind.SMALL_CNN: 16, VisualKind.IMPALA: 16, VisualKind.RESNET18: 32}


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """What a picture of an observation space holds.

    Attributes:
        role: ``colour`` (whole numbers up to 255), ``depth`` (scaled from [low, high] to [0, 1]),
            ``classes`` (class numbers from low to high) or ``numbers`` (any others).
        height: Rows.
        width: Columns.
        channels: Channels; 1 where the space has no channel dimension.
        scale: Of ``numbers``: what stands for 0 and how much for 1, of each channel.
    """

    role: Role
    height: int
    width: int
    channels: int
    low: float = 0.0
    high: float = 255.0
    scale: tuple[tuple[float, float], ...] = ()

    @property
    def num_classes(self) -> int:
        """Class numbers that a channel may hold."""
        return int(self.high) - int(self.low) + 1


def image_spec(
    key: str, space: spaces.Box, role: Role, *, depth_max: float = math.inf
) -> ImageSpec:
    """Return what the pictures of a space hold.

    Args:
        key: Name of the observation, for messages.
        space: Its space: height x width, or height x width x channels.
        role: Of the pictures.
        depth_max: Metres that stand for all that is farther.

    Raises:
        ValueError: If what they hold cannot be that.
    """
    height, width, *rest = space.shape
    size = (height, width, rest[0] if rest else 1)
    low, high = float(space.low.min()), float(space.high.max())
    if role == "numbers":
        return ImageSpec(role, *size, scale=_channel_scales(space))
    if role == "depth":
        low, high = max(low, 0.0), min(high, depth_max)
        if not low < high < math.inf:
            raise _no_such(key, "depth must span a range", space, "Give its bounds in metres")
        return ImageSpec(role, *size, low, high)
    if space.dtype is None or space.dtype.kind not in "iub":
        raise _no_such(key, f"{role} must be whole numbers", space, "Call them numbers")
    if role == "colour":
        if low < 0 or high > 255:
            raise _no_such(key, "colours must lie in [0, 255]", space, "Call them numbers")
        return ImageSpec(role, *size)
    spec = ImageSpec(role, *size, min(low, 0.0), high)
    if not math.isfinite(high - low) or spec.num_classes * spec.channels > MAX_CLASS_ROWS:
        raise _no_such(
            key,
            f"classes must have at most {MAX_CLASS_ROWS:,} embeddings",
            space,
            "Give its bounds, or call them numbers",
        )
    return spec


def _no_such(key: str, rule: str, space: spaces.Box, advice: str) -> ValueError:
    return ValueError(
        f"observation_space[{key!r}]: {rule}, got {space}. {advice}, by the space or by "
        f"encoder.kinds.{key}, or leave it out by encoder.keys."
    )


def _channel_scales(space: spaces.Box) -> tuple[tuple[float, float], ...]:
    """Return centre and half range of each channel; 0 and 1 where its bounds are none."""
    channels = space.shape[2] if len(space.shape) == 3 else 1
    low_C = space.low.astype(np.float64).reshape(-1, channels).min(0)
    high_C = space.high.astype(np.float64).reshape(-1, channels).max(0)
    bounded_C = (low_C >= -UNBOUNDED) & (high_C <= UNBOUNDED) & (high_C > low_C)
    return tuple(
        ((low + high) / 2, (high - low) / 2) if bounded else (0.0, 1.0)
        for low, high, bounded in zip(
            low_C.tolist(), high_C.tolist(), bounded_C.tolist(), strict=True
        )
    )


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
        if spec.role == "classes":
            # Channel after channel has its rows in one table.
            self.classes = nn.Embedding(channels * spec.num_classes, CLASS_WIDTH)
            channels *= CLASS_WIDTH
        # They follow from what the pictures hold, which is saved with the policy.
        centres, halves = zip(*(spec.scale or ((0.0, 1.0),)), strict=True)
        self.register_buffer("centre_C", torch.tensor(centres), persistent=False)
        self.register_buffer("half_C", torch.tensor(halves), persistent=False)
        self.centre_C: Tensor
        self.half_C: Tensor
        self.base = config.channels or _BASE_CHANNELS.get(self.kind, 0)
        self.backbone = _backbone(self.kind, config, spec, channels, self.base)
        self.num_features = self.backbone.num_features
        self.compress: nn.Module = nn.Identity()
        if config.feature_width is not None:
            linear = Linear(self.num_features, config.feature_width)
            self.compress = nn.Sequential(linear, nn.ReLU(inplace=True))
            self.num_features = config.feature_width

    def forward(self, images: Tensor) -> Tensor:
        """Return (..., F) of pictures (..., height, width[, channels]) on any device."""
        return self._in_slices(images, self._encode)

    def _in_slices(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return (..., F) by a function of (B, height, width, channels)."""
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
            parts = [checkpoint(encode, s, use_reentrant=False) for s in slices]
        else:
            parts = [encode(s) for s in slices]
        features = parts[0] if len(parts) == 1 else torch.cat(parts)
        return features.reshape(*leading, self.num_features)

    def _slice_size(self, *, learns: bool) -> int:
        """Return how many pictures are encoded at once."""
        size = self.config.slice_size
        cached = not learns and next(self.parameters()).device.type == "cpu"
        return min(size, _CACHED_PICTURES) if cached else size

    @torch.no_grad()
    def frozen(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Return features (..., F) of a type, without gradient.

        Where the type is a half-precision one, they are computed in `lean_dtype` too, and the
        convolutions in bytes where `in_bytes` says so.
        """
        lean = lean_dtype(dtype, next(self.parameters()).device.type)
        encode = self._encode_bytes if self.in_bytes(dtype) else self._encode
        with torch.autocast(*lean) if lean else nullcontext():
            return self._in_slices(images, encode).to(dtype)

    def in_bytes(self, dtype: torch.dtype) -> bool:
        """Return whether frozen features of a type are computed in bytes.

        They are where the type is a half-precision one, the network a calibrated small CNN on
        colours, and the device a CPU that multiplies bytes natively.
        """
        backbone = self.backbone
        calibrated = isinstance(backbone, SmallCNN) and bool(backbone.ranges.all())
        on_cpu = next(self.parameters()).device.type == "cpu"
        lean = dtype.itemsize < 4 and self.spec.role == "colour"
        return lean and calibrated and on_cpu and multiplies_bytes()

    def _encode(self, images: Tensor) -> Tensor:
        """Return (B, F) of pictures (B, height, width, channels), all at once."""
        device = next(self.parameters()).device
        x = self.normalise(images.to(device, non_blocking=True)).movedim(-1, 1)
        # Weights keep their usual layout: the fused Adam silently pairs the wrong entries of a
        # parameter and a gradient whose layouts differ. Layers follow the layout of the pictures.
        if self.kind is VisualKind.VIT:
            x = x.contiguous()
        return self.compress(self.backbone(x))

    def _encode_bytes(self, images: Tensor) -> Tensor:
        """Return (B, F) of colours (B, height, width, channels) by convolutions in bytes."""
        assert isinstance(self.backbone, SmallCNN)
        return self.compress(byte_cnn(self.backbone)(images.to("cpu", torch.uint8)))

    def calibrate(self, images: Tensor) -> None:
        """Let frozen features be computed in bytes: see what such pictures (B, ...) reach.

        Only small CNNs on colours can; others stay as they are.
        """
        if isinstance(self.backbone, SmallCNN) and self.spec.role == "colour":
            for part in images.split(_CACHED_PICTURES):
                self.backbone.calibrate(self.normalise(part).movedim(-1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Return float pictures (B, height, width, channels)."""
        if self.spec.role == "colour":
            # Two steps, the second in place: a product of uint8 and a number takes twice as long.
            return images.to(torch.float32, copy=True).mul_(1 / 255)
        if self.spec.role == "classes":
            return self._embed(images.long())
        if self.spec.role == "numbers":
            return (images.float() - self.centre_C) / self.half_C
        low, high = self.spec.low, self.spec.high
        return (images.float().clamp(low, high) - low) * (1 / (high - low))

    def _embed(self, classes: Tensor) -> Tensor:
        """Return embeddings (B, height, width, channels x `CLASS_WIDTH`) of class numbers."""
        low, count, channels = int(self.spec.low), self.spec.num_classes, self.spec.channels
        rows = (classes - low).clamp(0, count - 1)
        rows = rows + count * torch.arange(channels, device=rows.device)
        return self.classes(rows).flatten(-2)


def lean_dtype(dtype: torch.dtype, device_type: str) -> tuple[str, torch.dtype] | None:
    """Return what `torch.autocast` takes to compute such features fast, or None.

    CUDA computes in the type itself. A CPU computes in bfloat16 if it multiplies that
    natively, which takes less time; others would only emulate it.

    Args:
        dtype: Of the features.
        device_type: ``cpu`` or ``cuda``.
    """
    if dtype.itemsize >= 4:
        return None
    if device_type == "cuda":
        return device_type, dtype
    return ("cpu", torch.bfloat16) if multiplies_bfloat16() else None


@cache
def multiplies_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 natively."""
    # Not every PyTorch says; float32 is right everywhere.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


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
            "Choose small_cnn, or encoder.kinds.KEY=flat to let them enter as a vector."
        )
    return kind


def _backbone(
    kind: VisualKind, config: EncoderConfig, spec: ImageSpec, channels: int, base: int
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
    write_sealed(directory / DESCRIPTION_FILE, content)


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
        encoder = ImageEncoder(config, build(ImageSpec, upgrade_spec(content["spec"]), "spec"))
        checksums = content["checksums"]
    path = directory / WEIGHTS_FILE
    load_weights(encoder, upgrade_weights(read_weights(path, checksums)), path)
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
            ("encoder.channels", encoder.base, saved.base),
            ("encoder.feature_width", encoder.config.feature_width, saved.config.feature_width),
        ):
            if own != other:
                raise CheckpointError(
                    f"{path}: {name} must be {own}, as the policy has it, got {other}. Change the "
                    "policy, or name an encoder that was trained for such pictures."
                )
        load_weights(encoder, saved.state_dict(), path / WEIGHTS_FILE)
    elif encoder.kind is VisualKind.VIT:
        load_weights(encoder.backbone, read_checkpoint(path), path)
    else:
        raise FileNotFoundError(
            f"{path}: must be a directory written by save_image_encoder, found "
            f"{'a file' if path.exists() else 'nothing'}. Check encoder.checkpoint."
        )
