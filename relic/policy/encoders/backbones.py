"""Convolutional networks that turn pictures into flat features that keep their places.

Each takes float pictures (B, channels, height, width) of the size that it was built for and says
in `num_features` how many features F it returns.
The vision transformer is in `relic.policy.encoders.vit`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALL_SIDE = 16


class SmallCNN(nn.Module):
    """Strided convolutions down to at most 4 x 4, for pictures of up to 128 pixels.

    In pictures of fewer than 16 pixels each says much: a convolution that keeps all of them comes
    before those that halve the size.

    Attributes:
        ranges: The largest activation that calibration saw after each convolution; zeros before it
            (`calibrate`). With it, frozen features may be computed in bytes
            (`relic.policy.encoders.int8`).
    """

    ranges: Tensor

    def __init__(self, channels: int, height: int, width: int, base: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last, out = channels, base
        if min(height, width) < _SMALL_SIDE:
            layers += [nn.Conv2d(last, out, 3, padding=1), nn.ReLU(inplace=True)]
            last = out
        while max(height, width) > 4:
            kernel = 3 if layers else 5
            # In place: the backward pass of a convolution asks for its input only.
            conv = nn.Conv2d(last, out, kernel, stride=2, padding=kernel // 2)
            layers += [conv, nn.ReLU(inplace=True)]
            height, width = (height + 1) // 2, (width + 1) // 2
            last, out = out, min(2 * out, 4 * base)
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.num_features = last * height * width
        self.register_buffer("ranges", torch.zeros(len(self.convolutions())))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, F)."""
        return self.layers(x)

    def convolutions(self) -> list[nn.Conv2d]:
        """Return the convolutions in their order; each is followed by a rectifier."""
        return [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Raise `ranges` to what such pictures (B, channels, height, width) reach."""
        tops = []
        for convolution in self.convolutions():
            x = F.relu(convolution(x))
            tops.append(x.max())
        self.ranges.copy_(torch.maximum(self.ranges, torch.stack(tops)))


class _ImpalaBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class ImpalaCNN(nn.Module):
    """The residual network of IMPALA: three stages of convolution, pooling and two blocks."""

    def __init__(self, channels: int, height: int, width: int, base: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last = channels
        for out in (base, 2 * base, 2 * base):
            layers += [nn.Conv2d(last, out, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
            layers += [_ImpalaBlock(out), _ImpalaBlock(out)]
            height, width, last = (height + 1) // 2, (width + 1) // 2, out
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
        self.num_features = last * height * width

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, F)."""
        return self.layers(x)


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, out)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            conv = nn.Conv2d(channels, out, 1, stride, bias=False)
            self.skip = nn.Sequential(conv, nn.GroupNorm(groups, out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


class ResNet18(nn.Module):
    """ResNet-18 with group norm, compressed to about 2048 features that keep their places."""

    def __init__(self, channels: int, height: int, width: int, base: int) -> None:
        super().__init__()
        groups = max(1, base // 2)
        layers: list[nn.Module] = [
            nn.Conv2d(channels, base, 7, 2, padding=3, bias=False),
            nn.GroupNorm(groups, base),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
        ]
        last = base
        for stage in range(4):
            out, stride = base * 2**stage, 1 if stage == 0 else 2
            layers += [_ResidualBlock(last, out, stride, groups)]
            layers += [_ResidualBlock(out, out, 1, groups)]
            last = out
        # Five halvings have left this. Places are kept, not averaged: channels make up for few of
        # them.
        height, width = -(-height // 32), -(-width // 32)
        kept = min(2 * last, max(1, round(2048 / (height * width))))
        layers += [nn.Conv2d(last, kept, 3, padding=1, bias=False), nn.GroupNorm(1, kept)]
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
        self.num_features = kept * height * width

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, F)."""
        return self.layers(x)
