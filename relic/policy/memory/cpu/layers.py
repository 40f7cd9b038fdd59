"""RMSNorm and the gated MLP's activation on many steps, by compiled kernels on a CPU.

Kernels are compiled when they are first used, so they are imported inside functions.

Shapes: N rows, T steps, E width, M hidden width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relic.policy.attention.cpu.compiled import in_threads

_SMALL = 2**14
"""Numbers from which a kernel pays: with fewer, calling it takes longer than the work."""


class RMSNorm(nn.RMSNorm):
    """An `nn.RMSNorm` with the same parameters, and the same results within rounding."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the norm of (..., E)."""
        if not fits(x):
            return super().forward(x)
        assert self.eps is not None
        out = _Norm.apply(x.contiguous(), self.weight, self.eps)
        assert isinstance(out, Tensor)
        return out


def gated(gate_up: Tensor) -> Tensor:
    """Return gelu(gate) * up, (..., M), of gate and up side by side, (..., 2 M)."""
    if not fits(gate_up):
        gate, up = gate_up.chunk(2, dim=-1)
        return F.gelu(gate, approximate="tanh") * up
    out = _Gated.apply(gate_up.contiguous())
    assert isinstance(out, Tensor)
    return out


def fits(x_NTE: Tensor) -> bool:
    """Say whether the kernels take a pass, and are worth calling for it."""
    plain = x_NTE.device.type == "cpu" and x_NTE.dtype is torch.float32
    large = x_NTE.ndim == 3 and x_NTE.numel() >= _SMALL
    return plain and large and not torch.is_autocast_enabled("cpu")


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NTE: Tensor, weight_E: Tensor, eps: float) -> Tensor:
        from relic.policy.memory.cpu.layer_kernels import f4, norm_forward

        weight = weight_E.detach().numpy()
        out_NTE, inverse_NT = torch.empty_like(x_NTE), torch.empty(x_NTE.shape[:2])

        def kernel(x: Any, out: Any, inverse: Any) -> None:
            norm_forward(x, weight, f4(eps), out, inverse)

        in_threads(kernel, [x_NTE, out_NTE, inverse_NT])
        ctx.save_for_backward(x_NTE, weight_E, inverse_NT)
        return out_NTE

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from relic.policy.memory.cpu.layer_kernels import norm_backward

        x_NTE, weight_E, inverse_NT = ctx.saved_tensors
        weight = weight_E.detach().numpy()
        grad_x_NTE = torch.empty_like(x_NTE)
        # Each row's own share: threads would race for a sum over all rows.
        grad_weight_NE = torch.empty(x_NTE.shape[0], x_NTE.shape[2])

        def kernel(x: Any, inverse: Any, grad: Any, grad_x: Any, grad_weight: Any) -> None:
            norm_backward(x, weight, inverse, grad, grad_x, grad_weight)

        known = [x_NTE, inverse_NT, grads[0].contiguous()]
        in_threads(kernel, [*known, grad_x_NTE, grad_weight_NE])
        return grad_x_NTE, grad_weight_NE.sum(0), None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up_NTF: Tensor) -> Tensor:
        from relic.policy.memory.cpu.layer_kernels import gate_forward

        ctx.save_for_backward(gate_up_NTF)
        num_rows, num_steps, both = gate_up_NTF.shape
        out_NTM = torch.empty(num_rows, num_steps, both // 2)
        in_threads(gate_forward, [gate_up_NTF, out_NTM])
        return out_NTM

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        from relic.policy.memory.cpu.layer_kernels import gate_backward

        (gate_up_NTF,) = ctx.saved_tensors
        grad_NTF = torch.empty_like(gate_up_NTF)
        in_threads(gate_backward, [gate_up_NTF, grads[0].contiguous(), grad_NTF])
        return grad_NTF
