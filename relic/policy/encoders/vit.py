"""Vision transformer (ViT) with the layout and the state-dict names of timm, MAE and VC-1.

Written for use as a feature extractor: the output is the class token behind the last norm.
Dropout, layer scale, relative positions and the MAE decoder are not here. Reading checkpoints
executes no code: safetensors, or `torch.load` with ``weights_only=True``.

Shapes: B pictures, P patches plus the class token, E width, H heads, D head dim.
"""

from __future__ import annotations

import argparse
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relic.policy.linear import Linear
from relic.policy.weights import CheckpointError, read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

RESIZE_RATIO = 256 / 224
"""The shorter side is resized to this many times the crop before the centre is cut out."""

# Parts of published checkpoints that a feature extractor does not have.
_FOREIGN = ("decoder_", "mask_token", "head.", "head_drop.")
_WRAPPERS = ("model", "state_dict", "model_state_dict", "encoder_state_dict")
_ANCHOR = "cls_token"
"""The key that every ViT has; what stands before it stands before all of its keys."""


class Attention(nn.Module):
    """Self-attention over all tokens with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x_BPE: Tensor) -> Tensor:
        """Return (B, P, E)."""
        batch, tokens, width = x_BPE.shape
        qkv = self.qkv(x_BPE).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q_BHPD, k_BHPD, v_BHPD = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y_BHPD = F.scaled_dot_product_attention(q_BHPD, k_BHPD, v_BHPD)
        return self.proj(y_BHPD.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """Two linear maps with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x_BPE: Tensor) -> Tensor:
        """Return (B, P, E)."""
        return self.fc2(F.gelu(self.fc1(x_BPE)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x_BPE: Tensor) -> Tensor:
        """Return (B, P, E)."""
        x_BPE = x_BPE + self.attn(self.norm1(x_BPE))
        return x_BPE + self.mlp(self.norm2(x_BPE))


class PatchEmbed(nn.Module):
    """Pictures to one token per patch, rows of patches from the top."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, patches, E) of pictures (B, 3, side, side)."""
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """RGB pictures of any size to the class token, with the published preprocessing.

    Args:
        width: E; 768 for ViT-B.
        depth: Number of blocks.
        heads: H, a divisor of E.
        patch: Side of a patch in pixels.
        image_size: Side of the square crop, a multiple of `patch`.
    """

    def __init__(
        self,
        *,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        patch: int = 16,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.patch = patch
        self.num_features = width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (image_size // patch) ** 2, width))
        self.patch_embed = PatchEmbed(patch, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        # Constants, which published checkpoints do not hold.
        self.register_buffer("mean", mean.reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.reshape(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def preprocess(self, images: Tensor) -> Tensor:
        """Resize the shorter side, cut out the centre, normalise.

        Args:
            images: (B, 3, height, width), float in [0, 1].
        """
        height, width = images.shape[-2:]
        target = round(self.image_size * RESIZE_RATIO)
        shorter = min(height, width)
        size = (target * height // shorter, target * width // shorter)
        if size != (height, width):
            images = F.interpolate(images, size, mode="bicubic", antialias=True)
            # Cubic interpolation overshoots at edges.
            images = images.clamp(0.0, 1.0)
        top, left = (round((side - self.image_size) / 2) for side in size)
        images = images[..., top : top + self.image_size, left : left + self.image_size]
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Return the class token (B, E) of pictures (B, 3, height, width) in [0, 1]."""
        patches = self.patch_embed(self.preprocess(images))
        cls = self.cls_token.expand(patches.shape[0], -1, -1)
        x_BPE = torch.cat((cls, patches), dim=1) + self.pos_embed
        for block in self.blocks:
            x_BPE = block(x_BPE)
        # A norm looks at one token alone, so the others need none.
        return self.norm(x_BPE[:, 0])


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a ViT checkpoint under timm's names.

    Wrappers such as ``{"model": ...}``, prefixes such as ``module.`` or those of a larger network
    that was fine-tuned, classification heads and the MAE decoder are taken off.

    Raises:
        CheckpointError: If the file is no checkpoint of tensors.
        FileNotFoundError: If it does not exist.
    """
    state = _unwrap(_read(path))
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    anchors = [k for k in tensors if k == _ANCHOR or k.endswith(f".{_ANCHOR}")]
    if len(anchors) != 1:
        found = ", ".join(sorted(map(str, state))[:5]) or "nothing"
        raise CheckpointError(
            f"{path}: must hold one ViT with the key {_ANCHOR!r}, got {len(anchors)} of them among "
            f"{found}. Use a checkpoint with the names of timm, MAE or VC-1."
        )
    prefix = anchors[0].removesuffix(_ANCHOR)
    tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return {k: v for k, v in tensors.items() if not k.startswith(_FOREIGN)}


def _read(path: Path) -> Mapping[Any, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: must be a checkpoint file, found none. Check the path.")
    if path.suffix == ".safetensors":
        return read_weights(path)
    try:
        with torch.serialization.safe_globals(_stand_ins(path)):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        said = str(error).strip()
        reason = said.partition("WeightsUnpickler error:")[2].strip() or said
        reason = reason.splitlines()[0] if reason else type(error).__name__
        raise CheckpointError(
            f"{path}: must load with torch.load(weights_only=True), got {reason!r}. "
            "Fetch it again, or save its state dict alone as safetensors."
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path}: must hold a state dict, got {type(state).__name__}. "
            "Save its state dict alone."
        )
    return state


class _Ignored:
    """Stands in for what a checkpoint holds beside tensors: takes anything, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs

    def __setstate__(self, state: Any) -> None:
        del state


def _stand_ins(path: Path) -> list[Any]:
    """Return what the safe loader may make instead of the classes and functions of a file.

    Published checkpoints keep their command line or their configuration beside the weights.
    """
    if not zipfile.is_zipfile(path):  # before PyTorch 1.6, when files could not be looked into
        return [argparse.Namespace]
    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [(_Ignored, name) for name in foreign]


def _unwrap(state: Mapping[Any, Any]) -> Mapping[Any, Any]:
    for key in _WRAPPERS:
        if isinstance(state.get(key), dict):
            return state[key]
    return state
