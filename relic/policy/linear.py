"""Linear layers whose large products run by oneDNN on a CPU.

PyTorch gives float32 products to MKL, which uses half of the vector width of AMD processors with
AVX-512; oneDNN, which PyTorch brings along for convolutions, uses all of it, and is no slower
elsewhere. A call of it costs more, so small products stay with MKL.

Shapes: B inputs (all leading dimensions), I features in, O features out.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALL = 2**20
"""Multiplications from which a product is worth a call of oneDNN."""


class Linear(nn.Linear):
    """An `nn.Linear` with the same parameters, start and results within rounding."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (..., O) of (..., I)."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return x @ weight.T + bias, (..., O); `torch.nn.functional.linear` within rounding."""
    if not pays(x, weight_OI):
        return F.linear(x, weight_OI, bias_O)
    if not torch.is_grad_enabled():
        return _product(x, weight_OI, bias_O)
    out = _Linear.apply(x, weight_OI, bias_O)
    assert isinstance(out, Tensor)
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        return _product(x, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_OI = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        grad = grads[0]
        grad_BO = grad.flatten(0, -2)
        grad_x = _product(grad, weight_OI.t()) if needs_x else None
        grad_weight = _outer(grad_BO, x.flatten(0, -2)) if needs_weight else None
        return grad_x, grad_weight, grad_BO.sum(0) if needs_bias else None


def pays(x: Tensor, weight_OI: Tensor) -> bool:
    """Say whether a product goes to oneDNN, which is faster where there is enough to do."""
    plain = x.device.type == "cpu" and x.dtype is weight_OI.dtype is torch.float32
    outputs = weight_OI.shape[0]
    if not plain or x.ndim < 2 or outputs * x.numel() < _SMALL:
        return False
    return _has_onednn() and not torch.is_autocast_enabled("cpu")


@cache
def _has_onednn() -> bool:
    # The operator is not of PyTorch's public interface: a version without it is no error.
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _product(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return x @ weight.T + bias, (..., O)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")


def _outer(grad_BO: Tensor, x_BI: Tensor) -> Tensor:
    """Return grad.T @ x, (O, I)."""
    # One side is copied to have the inputs' axis last, which costs less for the narrower one.
    if grad_BO.shape[1] > x_BI.shape[1]:
        return _product(x_BI.t(), grad_BO.t()).t()
    return _product(grad_BO.t(), x_BI.t())
