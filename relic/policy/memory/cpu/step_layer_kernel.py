"""One layer of a cached step as one kernel, for layers whose weights fit a processor's cache.

Sixteen rows at a time go through all of the layer. They lie side by side in vectors, which is what
makes products of so few rows fast: PyTorch's need as long to be called, and half of a processor's
vectors is idle in them. The weights are used as they are stored.

Shapes: N rows, E width, F columns of a product, M hidden width, H heads, S slots, P pairs of a
head, B = 16 rows side by side, I inputs and O outputs of a product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba
import numpy as np

from relic.policy.attention.cpu.arithmetic import FAST, f4, gelu_share
from relic.policy.attention.cpu.vectors import BLOCK, multiply
from relic.policy.memory.cpu.step_kernels import CACHES, attend_rows

_ROWS = "float32[:,::1]"
_OPTIONS = {"fastmath": FAST, "error_model": "numpy", "nogil": True, "cache": True}
_OUTPUTS = 8
"""Of a product, whose sums are in registers at a time."""


@numba.njit(inline="always")
def _columns(height):
    """Return zeros (height, B) whose rows are lines of the processor's cache."""
    flat = np.zeros(height * BLOCK + BLOCK, f4)
    begin = (64 - flat.ctypes.data % 64) // 4
    return flat[begin : begin + height * BLOCK].reshape((height, BLOCK))


@numba.njit(f"void({_ROWS}, {_ROWS}, {_ROWS})", **_OPTIONS)
def multiply_columns(weight_OI, x_IB, out_OB):
    """Write weight @ x of 16 rows that lie side by side."""
    num_outputs = weight_OI.shape[0]
    whole = num_outputs // _OUTPUTS * _OUTPUTS
    for first in range(0, whole, _OUTPUTS):
        multiply(weight_OI, x_IB, first, out_OB, _OUTPUTS)
    for first in range(whole, num_outputs):
        multiply(weight_OI, x_IB, first, out_OB, 1)


@numba.njit(f"void({_ROWS}, float32[::1], float32, {_ROWS})", **_OPTIONS)
def _norm(x_EB, weight_E, eps, out_EB):
    """Write the RMSNorm of 16 rows that lie side by side."""
    width = x_EB.shape[0]
    factor_B = np.zeros(BLOCK, f4)
    for i in range(width):
        for b in range(BLOCK):
            factor_B[b] += x_EB[i, b] * x_EB[i, b]
    for b in range(BLOCK):
        factor_B[b] = f4(1.0) / np.sqrt(factor_B[b] / f4(width) + eps)
    for i in range(width):
        for b in range(BLOCK):
            out_EB[i, b] = x_EB[i, b] * factor_B[b] * weight_E[i]


@numba.njit(f"void({_ROWS}, float32[::1], float32, {_ROWS})", **_OPTIONS)
def norm_rows(x_NE, weight_E, eps, out_NE):
    """Write the RMSNorm of rows, one after the other."""
    width = x_NE.shape[1]
    for n in range(x_NE.shape[0]):
        squares = f4(0.0)
        for i in range(width):
            squares += x_NE[n, i] * x_NE[n, i]
        factor = f4(1.0) / np.sqrt(squares / f4(width) + eps)
        for i in range(width):
            out_NE[n, i] = x_NE[n, i] * factor * weight_E[i]


@numba.njit(f"void({_ROWS}, {_ROWS})", **_OPTIONS)
def _gate(gate_up_FB, out_MB):
    """Write gelu(gate) * up, where gate and up stand one after the other."""
    hidden = out_MB.shape[0]
    for i in range(hidden):
        for b in range(BLOCK):
            x = gate_up_FB[i, b]
            out_MB[i, b] = x * gelu_share(x) * gate_up_FB[hidden + i, b]


@numba.njit(inline="always")
def _add(x_EB, branch_EB, scale_B):
    """Add a branch to the stream."""
    for i in range(x_EB.shape[0]):
        for b in range(BLOCK):
            x_EB[i, b] += scale_B[b] * branch_EB[i, b]


@numba.njit(inline="always")
def _lay(rows_NE, out_EB):
    """Lay rows side by side."""
    for n in range(rows_NE.shape[0]):
        for i in range(rows_NE.shape[1]):
            out_EB[i, n] = rows_NE[n, i]


@numba.njit(inline="always")
def _pick_up(x_EB, out_NE):
    """Undo `_lay`."""
    for n in range(out_NE.shape[0]):
        for i in range(out_NE.shape[1]):
            out_NE[n, i] = x_EB[i, n]


@cache
def layer_kernel(dim: int, half: bool) -> Callable[..., None]:
    """Return the kernel for heads of so many numbers, a multiple of 4; `half` as in `CACHES`."""

    @numba.njit(
        f"void({_ROWS}, UniTuple({_ROWS}, 4), UniTuple(float32[::1], 2), float32, float32[::1], "
        f"complex64[:,::1], {CACHES[half]}, {CACHES[half]}, int64[::1], int64[::1], boolean)",
        **_OPTIONS,
    )
    def layer(
        h_NE, matrices, norms, eps, scale_N, turn_NP, key_NHSD, value_NHSD, slot_N, used_N, keeps
    ):
        """Run a layer.

        Args:
            h_NE: The stream, written.
            matrices: Weights of queries, keys and values, of the output, of gate and up, of down.
            norms: Weights of the norms before attention and before the MLP.
            eps: Added to the norms' mean squares.
            scale_N: Factor of each row's branches.
            turn_NP: As those after it: see `attend_rows`.
            key_NHSD: Written.
            value_NHSD: Written.
            slot_N: Likewise.
            used_N: Likewise.
            keeps: Likewise.
        """
        width, hidden = h_NE.shape[1], matrices[3].shape[1]
        x, normed, branch = _columns(width), _columns(width), _columns(width)
        qkv, gate_up, inner = _columns(3 * width), _columns(2 * hidden), _columns(hidden)
        qkv_rows, attended = np.empty((BLOCK, 3 * width), f4), np.empty((BLOCK, width), f4)
        scale = np.zeros(BLOCK, f4)
        for first in range(0, h_NE.shape[0], BLOCK):
            end = min(first + BLOCK, h_NE.shape[0])
            rows = end - first
            for b in range(rows):
                scale[b] = scale_N[first + b]
            _lay(h_NE[first:end], x)
            _norm(x, norms[0], eps, normed)
            multiply_columns(matrices[0], normed, qkv)
            _pick_up(qkv, qkv_rows[:rows])
            cache_2NHSD = key_NHSD[first:end], value_NHSD[first:end]
            attend_rows(
                qkv_rows[:rows],
                turn_NP[first:end],
                cache_2NHSD,
                slot_N[first:end],
                used_N[first:end],
                keeps,
                attended,
                dim,
            )
            _lay(attended[:rows], normed)
            multiply_columns(matrices[1], normed, branch)
            _add(x, branch, scale)
            _norm(x, norms[1], eps, normed)
            multiply_columns(matrices[2], normed, gate_up)
            _gate(gate_up, inner)
            multiply_columns(matrices[3], inner, branch)
            _add(x, branch, scale)
            _pick_up(x, h_NE[first:end])

    return layer
