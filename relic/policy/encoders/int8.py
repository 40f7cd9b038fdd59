"""The small CNN in whole numbers: frozen features of pictures at twice the speed of bfloat16.

Processors with VNNI multiply bytes four times as fast as float32. Pictures are bytes already.
Weights are rounded to int8 by output channel, activations to uint8 by layer, after training, as
Jacob et al. 2018 (https://arxiv.org/abs/1712.05877) do it. What 255 stands for in each layer is
the largest activation that calibration saw, so a picture's features depend on no other picture.

oneDNN's operators for compiled graphs do the work. Where this PyTorch lacks them, or they say
something else than whole numbers do, `multiplies_bytes` is False, and nobody comes here.

Shapes: B pictures, P channels.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from relic.policy.encoders.backbones import SmallCNN

_WEIGHT_TOP, _BYTE_TOP = 127, 255
_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")


class _Layer(NamedTuple):
    """A convolution with a rectifier, as oneDNN takes it."""

    weight: Tensor
    """Packed for the processor."""
    scale_P: Tensor
    zero_P: Tensor
    bias_P: Tensor
    stride: list[int]
    padding: list[int]

    def __call__(self, x: Tensor, unit: float, unit_out: float | None) -> Tensor:
        """Return the next bytes, or float32 where their unit is None."""
        return torch.ops.onednn.qconv2d_pointwise(
            x, unit, 0, self.weight, self.scale_P, self.zero_P, self.bias_P,
            self.stride, self.padding, [1, 1], 1,
            unit_out or 1.0, 0, torch.float32 if unit_out is None else torch.uint8, "relu", [], "",
        )  # fmt: skip


class ByteCNN:
    """A calibrated `SmallCNN` whose products are of bytes.

    Args:
        backbone: The network; later changes of its weights are not seen.
    """

    def __init__(self, backbone: SmallCNN) -> None:
        tops = backbone.ranges.tolist()
        self._units = [1 / _BYTE_TOP, *(top / _BYTE_TOP for top in tops[:-1])]
        self._layers = [
            _packed(conv, unit)
            for conv, unit in zip(backbone.convolutions(), self._units, strict=True)
        ]

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Return float32 (B, F) of uint8 pictures (B, height, width, channels)."""
        x = pictures.movedim(-1, 1)
        # The last layer rounds no more: a linear layer follows, which takes any numbers.
        after: Sequence[float | None] = [*self._units[1:], None]
        for layer, unit, unit_out in zip(self._layers, self._units, after, strict=True):
            x = layer(x, unit, unit_out)
        return x.flatten(1)


def _packed(conv: nn.Conv2d, unit: float) -> _Layer:
    weight = conv.weight.detach()
    scale_P = weight.abs().amax((1, 2, 3)) / _WEIGHT_TOP
    scale_P[scale_P == 0] = 1.0  # Channels whose weights are all zero have any scale.
    rounded = (weight / scale_P[:, None, None, None]).round().to(torch.int8)
    stride, padding = list(conv.stride), [int(n) for n in conv.padding]
    packed = torch.ops.onednn.qconv_prepack(
        rounded, scale_P, unit, 0, stride, padding, [1, 1], 1, None
    )
    bias_P = torch.zeros_like(scale_P) if conv.bias is None else conv.bias.detach().clone()
    zero_P = torch.zeros(len(scale_P), dtype=torch.int32)
    return _Layer(packed, scale_P, zero_P, bias_P, stride, padding)


_PACKED: weakref.WeakKeyDictionary[SmallCNN, tuple[tuple[int, ...], ByteCNN]] = (
    weakref.WeakKeyDictionary()
)
"""Packed weights can be neither copied nor pickled, so they are not kept in the module."""


def byte_cnn(backbone: SmallCNN) -> ByteCNN:
    """Return a network in bytes, packed anew only after its weights have changed."""
    tensors = [*backbone.parameters(), backbone.ranges]
    # Tensors of inference mode cannot be changed, and count no versions.
    versions = [0 if t.is_inference() else t._version for t in tensors]
    state = (*(t.data_ptr() for t in tensors), *versions)
    packed = _PACKED.get(backbone)
    if packed is None or packed[0] != state:
        packed = state, ByteCNN(backbone)
        _PACKED[backbone] = packed
    return packed[1]


@cache
def multiplies_bytes() -> bool:
    """Return whether this CPU multiplies bytes natively, and this PyTorch does it right."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    if not any(capabilities.get(name, False) for name in _INSTRUCTIONS):
        return False
    try:
        return _is_right()
    except (AttributeError, RuntimeError, TypeError):
        return False  # These operators are no promise of PyTorch's.


def _is_right() -> bool:
    """Compare a layer with what whole numbers say: without VNNI sums of products overflow."""
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    numbers = torch.arange(8 * 3 * 9, dtype=torch.float32)
    with torch.no_grad():
        conv.weight.copy_(((numbers * 37) % 255 - 127).view_as(conv.weight))
        conv.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    pictures = (255 - torch.arange(4 * 8 * 8 * 3) % 64).to(torch.uint8).view(4, 8, 8, 3)
    layer = _packed(conv, 1.0)
    exact = (
        nn.functional.conv2d(
            pictures.movedim(-1, 1).double(),
            (conv.weight.detach() / layer.scale_P[:, None, None, None]).round().double(),
            stride=2,
            padding=1,
        )
        * layer.scale_P.double()[:, None, None]
    )
    found = layer(pictures.movedim(-1, 1), 1.0, None)
    return torch.allclose(found.double(), exact.clamp(min=0), rtol=1e-5, atol=1.0)
