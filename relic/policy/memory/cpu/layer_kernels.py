"""Kernels of a layer on many steps, between its matrix products, forwards and backwards.

Each kernel does in one pass over memory what would be a handful of PyTorch's operations, each of
which reads and writes all of it. Every row is worked out by itself, so results depend neither on
other rows nor on the number of threads. Only arrays come in here; `layers.py`
joins them to PyTorch.

Shapes: N rows, T steps, E width, M hidden width.
"""

from __future__ import annotations

import numba
import numpy as np

from relic.policy.attention.cpu.arithmetic import FAST, GELU, GELU_CUBE, f4, gelu_share

_NTE = "float32[:,:,::1]"
_NT = "float32[:,::1]"
_OPTIONS = {"fastmath": FAST, "error_model": "numpy", "nogil": True, "cache": True}


@numba.njit(f"void({_NTE}, float32[::1], float32, {_NTE}, {_NT})", **_OPTIONS)
def norm_forward(x_NTE, weight_E, eps, out_NTE, inverse_NT):
    """Write the RMSNorm, and what its rows were multiplied by."""
    num_rows, num_steps, width = x_NTE.shape
    for n in range(num_rows):
        for t in range(num_steps):
            squares = f4(0.0)
            for i in range(width):
                squares += x_NTE[n, t, i] * x_NTE[n, t, i]
            inverse = f4(1.0) / np.sqrt(squares / f4(width) + eps)
            inverse_NT[n, t] = inverse
            for i in range(width):
                out_NTE[n, t, i] = x_NTE[n, t, i] * inverse * weight_E[i]


@numba.njit(
    f"void({_NTE}, float32[::1], {_NT}, {_NTE}, {_NTE}, {_NT})",
    **_OPTIONS,
)
def norm_backward(x_NTE, weight_E, inverse_NT, grad_NTE, grad_x_NTE, grad_weight_NE):
    """Write the gradients of `norm_forward`; that of the weight is each row's own share."""
    num_rows, num_steps, width = x_NTE.shape
    for n in range(num_rows):
        for i in range(width):
            grad_weight_NE[n, i] = f4(0.0)
        for t in range(num_steps):
            inverse, along = inverse_NT[n, t], f4(0.0)
            for i in range(width):
                turned = grad_NTE[n, t, i] * x_NTE[n, t, i]
                along += turned * weight_E[i]
                grad_weight_NE[n, i] += turned * inverse
            # What would only make the row longer has no effect on its norm.
            along *= inverse * inverse / f4(width)
            for i in range(width):
                straight = grad_NTE[n, t, i] * weight_E[i]
                grad_x_NTE[n, t, i] = inverse * (straight - along * x_NTE[n, t, i])


@numba.njit(f"void({_NTE}, {_NTE})", **_OPTIONS)
def gate_forward(gate_up_NTF, out_NTM):
    """Write gelu(gate) * up, where gate and up stand side by side."""
    hidden = out_NTM.shape[2]
    for n in range(out_NTM.shape[0]):
        for t in range(out_NTM.shape[1]):
            for i in range(hidden):
                x = gate_up_NTF[n, t, i]
                out_NTM[n, t, i] = x * gelu_share(x) * gate_up_NTF[n, t, hidden + i]


@numba.njit(f"void({_NTE}, {_NTE}, {_NTE})", **_OPTIONS)
def gate_backward(gate_up_NTF, grad_NTM, grad_gate_up_NTF):
    """Write the gradient of `gate_forward`."""
    # An unsigned index cannot count from the end, which would forbid vector loads; and a loop that
    # writes two places of one array would not become vector code.
    hidden = np.uint64(grad_NTM.shape[2])
    share_M = np.empty(hidden, f4)
    for n in range(grad_NTM.shape[0]):
        for t in range(grad_NTM.shape[1]):
            gate_up, grad, out = gate_up_NTF[n, t], grad_NTM[n, t], grad_gate_up_NTF[n, t]
            for i in range(hidden):
                share_M[i] = gelu_share(gate_up[i])
            for i in range(hidden):
                out[hidden + i] = grad[i] * gate_up[i] * share_M[i]
            for i in range(hidden):
                x, share = gate_up[i], share_M[i]
                slope = GELU * (f4(1.0) + f4(3.0) * GELU_CUBE * x * x)
                gelu_slope = share * (f4(1.0) + x * (f4(1.0) - share) * slope)
                out[i] = grad[i] * gate_up[hidden + i] * gelu_slope
