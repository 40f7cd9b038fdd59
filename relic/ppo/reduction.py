"""All communication between ranks while they learn.

A loss is a sum over tokens divided by the global count, so gradients and metrics of ranks are
summed, never averaged. One process has nobody to talk to: its `Reduction` returns what it gets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Reduction:
    """One process on its own."""

    rank: int = 0
    world_size: int = 1

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum over ranks; may overwrite `x`."""
        return x

    def max(self, x: Tensor) -> Tensor:
        """Return the elementwise maximum over ranks; may overwrite `x`."""
        return x

    def broadcast(self, module: nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0."""
        del module

    def gather(self, item: Any) -> list[Any]:
        """Return what all ranks bring, plain data, in their order."""
        return [item]

    def barrier(self) -> None:
        """Wait for all ranks."""


class RankReduction(Reduction):
    """The ranks of an initialised `torch.distributed` process group."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """Take part in a group; None is the default group of all ranks."""
        self._group = group
        # NCCL sums on the GPU alone, also what a rollout on the host has.
        self._device = torch.device("cuda") if dist.get_backend(group) == "nccl" else None
        self.rank = dist.get_rank(group)
        self.world_size = dist.get_world_size(group)

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum over ranks; may overwrite `x`."""
        return self._reduce(x, dist.ReduceOp.SUM)

    def max(self, x: Tensor) -> Tensor:
        """Return the elementwise maximum over ranks; may overwrite `x`."""
        return self._reduce(x, dist.ReduceOp.MAX)

    def _reduce(self, x: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        there = x if self._device is None else x.to(self._device)
        dist.all_reduce(there, how, group=self._group)
        return there.to(x.device)

    def broadcast(self, module: nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0."""
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.data, 0, group=self._group)

    def gather(self, item: Any) -> list[Any]:
        """Return what all ranks bring, plain data, in their order."""
        items: list[Any] = [None] * self.world_size
        dist.all_gather_object(items, item, group=self._group)
        return items

    def barrier(self) -> None:
        """Wait for all ranks."""
        dist.barrier(self._group)


_ROOM = 64
"""Numbers that may travel with the gradients."""


class GradientBuffer:
    """The gradients of all parameters as views of one flat tensor.

    Zeroing, summing over ranks and clipping are then one operation each, whatever the number of
    parameters.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        """Attach to the parameters that are learned; they must share device and type."""
        self.parameters = [p for p in parameters if p.requires_grad]
        first = self.parameters[0]
        size = sum(p.numel() for p in self.parameters)
        self._whole = torch.zeros(size + _ROOM, dtype=first.dtype, device=first.device)
        self.flat = self._whole[:size]
        self._attach()

    def _attach(self) -> None:
        begin = 0
        for parameter in self.parameters:
            end = begin + parameter.numel()
            # Backward passes add to a gradient that is there, and so write into the flat tensor.
            parameter.grad = self.flat[begin:end].view_as(parameter)
            begin = end

    def zero(self) -> None:
        """Forget all gradients."""
        # In place: gradients that are set to None would no longer be its views.
        self.flat.zero_()

    def sum_over(self, reduction: Reduction, numbers: Tensor) -> Tensor:
        """Sum the gradients over ranks, and with them in one exchange a few numbers.

        Args:
            reduction: How ranks talk.
            numbers: Up to 64.

        Returns:
            The sums of the numbers.
        """
        begin, end = len(self.flat), len(self.flat) + len(numbers)
        self._whole[begin:end] = numbers
        reduction.sum(self._whole[:end])
        return self._whole[begin:end]

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradient down to `max_norm` if it is longer; return its length before."""
        norm = torch.linalg.vector_norm(self.flat)
        # Scaled also where it is short enough, by 1: asking which is the case would wait for CUDA.
        self.flat.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Check an Adam's restored state: PyTorch takes over any, and fails at the next step.

    Raises:
        ValueError: If moments of a parameter are missing or of another shape.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            own = optimizer.state.get(parameter, {})
            shapes = {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
            found = {name: getattr(value, "shape", None) for name, value in own.items()}
            if own and found != shapes:
                raise ValueError(
                    f"optimizer: moments of a parameter must have the shapes {shapes}, got {found}."
                )


def forget_unmoved(optimizer: torch.optim.Optimizer) -> None:
    """Let an Adam begin anew with each parameter that had no gradient yet.

    Its moments are scaled up by what they lack after so many steps. Those of a parameter that was
    left out at first, such as the actor's while only lessons are taught, lack as much as after the
    first step, and the second moment far more than the first: without this, its next hundred steps
    would be three to six times too large.
    """
    stepped = [p for p, own in optimizer.state.items() if own]
    if not stepped:
        return
    had_gradient = torch.stack([optimizer.state[p]["exp_avg_sq"].any() for p in stepped])
    for parameter, had in zip(stepped, had_gradient.tolist(), strict=True):
        if not had:
            del optimizer.state[parameter]
