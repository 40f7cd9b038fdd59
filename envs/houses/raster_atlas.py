"""The pattern tiles as the kernels read them: packed bytes, and each tile's mean."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.houses.scene import FloatArray


class Atlas(NamedTuple):
    """Square tiles as the kernels read them, lowest row first."""

    mean: FloatArray
    """Mean colour in [0, 1], three per tile."""
    texel: NDArray[np.int32]
    """Colours in bytes: red, green << 8, blue << 16."""
    shift: np.int32
    """Binary logarithm of the texels along a tile's edge."""


def pack_atlas(tile_KYX3: NDArray[np.floating[Any]]) -> Atlas:
    """Return tiles of factors in [0, 1] as the kernels read them, rounded to bytes.

    Raises:
        ValueError: Tiles must be squares whose edge is a power of two.
    """
    shape = tile_KYX3.shape
    size = shape[1] if len(shape) == 4 else 0
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or size & (size - 1):
        raise ValueError(
            "BatchRenderer.atlas: tiles must have the shape (tiles, 2^k, 2^k, 3), "
            f"got {shape}. Use envs.houses.textures.atlas()."
        )
    byte_KYX3 = np.round(np.clip(tile_KYX3, 0.0, 1.0) * 255.0).astype(np.int32)[:, ::-1]
    mean_K3 = byte_KYX3.mean(axis=(1, 2)) / 255.0
    packed = byte_KYX3[..., 0] | byte_KYX3[..., 1] << 8 | byte_KYX3[..., 2] << 16
    return Atlas(
        mean=mean_K3.astype(np.float32).reshape(-1),
        texel=np.ascontiguousarray(packed, np.int32).reshape(-1),
        shift=np.int32(size.bit_length() - 1),
    )
