"""Linear recurrences: many steps at once, with gradient, and the same numbers step by step.

`scan` is that of single numbers, h[t] = decay[t] h[t-1] + added[t]. `read_matrix` is that of a
matrix per head, S[t] = decay[t] S[t-1] + key[t] write[t], which each step's query reads; it takes
chunks of steps at once, so that most of it is matrix products (Yang et al. 2024, arXiv 2412.06464).
All of it runs in float32, since errors of a recurrence add up.

Shapes: N rows, T steps, E width, H heads, K key size, V value size, C chunks, B steps of a chunk.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

CHUNK = 32
"""Steps that `read_matrix` takes at once."""


def scan(decay_NTE: Tensor, added_NTE: Tensor, before_NE: Tensor) -> Tensor:
    """Return h (N, T, E) of h[t] = decay[t] h[t-1] + added[t], with `before` as h[-1]."""
    parts = (decay_NTE.float(), added_NTE.float(), before_NE.float())
    if not torch.is_grad_enabled():
        return _scan(*parts)
    h_NTE = _Scan.apply(*parts)
    assert isinstance(h_NTE, Tensor)
    return h_NTE


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay_NTE: Tensor, added_NTE: Tensor, before_NE: Tensor) -> Tensor:
        h_NTE = _scan(decay_NTE, added_NTE, before_NE)
        ctx.save_for_backward(decay_NTE, before_NE, h_NTE)
        return h_NTE

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay_NTE, before_NE, h_NTE = ctx.saved_tensors
        # Gradients flow from a step to the one before by that step's own decay: the same
        # recurrence, from the last step to the first.
        onward_NTE = torch.cat([decay_NTE[:, 1:], torch.ones_like(decay_NTE[:, :1])], dim=1)
        zero_NE = torch.zeros_like(before_NE)
        added_NTE = _scan(onward_NTE.flip(1), grads[0].flip(1), zero_NE).flip(1)
        before_NTE = torch.cat([before_NE.unsqueeze(1), h_NTE[:, :-1]], dim=1)
        return added_NTE * before_NTE, added_NTE, added_NTE[:, 0] * decay_NTE[:, 0]


def _scan(decay_NTE: Tensor, added_NTE: Tensor, before_NE: Tensor) -> Tensor:
    """Run the recurrence in about twice the root of T operations, whatever the device."""
    num_steps = added_NTE.shape[1]
    size = math.ceil(math.sqrt(num_steps))
    missing = -num_steps % size
    if missing:
        decay_NTE = torch.nn.functional.pad(decay_NTE, (0, 0, 0, missing), value=1.0)
        added_NTE = torch.nn.functional.pad(added_NTE, (0, 0, 0, missing))
    decay_NCBE, added_NCBE = (x.unflatten(1, (-1, size)) for x in (decay_NTE, added_NTE))
    # Each chunk from zero, all chunks at once; then what reaches each from the chunks before.
    h_NCBE, passed_NCBE = torch.empty_like(added_NCBE), torch.empty_like(decay_NCBE)
    h_NCBE[:, :, 0], passed_NCBE[:, :, 0] = added_NCBE[:, :, 0], decay_NCBE[:, :, 0]
    for b in range(1, size):
        torch.addcmul(
            added_NCBE[:, :, b], decay_NCBE[:, :, b], h_NCBE[:, :, b - 1], out=h_NCBE[:, :, b]
        )
        torch.mul(passed_NCBE[:, :, b - 1], decay_NCBE[:, :, b], out=passed_NCBE[:, :, b])
    h_NE = before_NE
    for c in range(h_NCBE.shape[1]):
        h_NCBE[:, c].addcmul_(passed_NCBE[:, c], h_NE.unsqueeze(1))
        h_NE = h_NCBE[:, c, -1]
    return h_NCBE.flatten(1, 2)[:, :num_steps]


def read_matrix(
    query_NHTK: Tensor,
    key_NHTK: Tensor,
    value_NHTV: Tensor,
    log_decay_NHT: Tensor,
    before_NHKV: Tensor,
    *,
    rate_NHT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what queries read of S[t] = decay[t] S[t-1] + key[t] write[t], and the last S.

    Without rates a step writes its value. With them it writes what brings the value found at its
    key closer to its own, write[t] = rate[t] (value[t] - decay[t] S[t-1]^T key[t]): the delta rule.

    Args:
        query_NHTK: What each step asks for; H may be 1, for all heads alike.
        key_NHTK: Where each step writes; H may be 1.
        value_NHTV: What each step writes, or how it should read there.
        log_decay_NHT: Logarithm of the decay, at most 0.
        before_NHKV: S before the first step.
        rate_NHT: In [0, 1], for keys of length one.

    Returns:
        (N, H, T, V) and (N, H, K, V).
    """
    seen: list[Tensor] = [x.float() for x in (query_NHTK, key_NHTK, value_NHTV, log_decay_NHT)]
    rate = None if rate_NHT is None else rate_NHT.float()
    matrix_NHKV, outputs = before_NHKV.float(), []
    # Autocast would take the products in half precision.
    with torch.autocast(value_NHTV.device.type, enabled=False):
        for first in range(0, value_NHTV.shape[2], CHUNK):
            query, key, value, log_decay = (x[:, :, first : first + CHUNK] for x in seen)
            own = None if rate is None else rate[:, :, first : first + CHUNK]
            output, matrix_NHKV = _read_chunk(query, key, value, log_decay, matrix_NHKV, own)
            outputs.append(output)
    return torch.cat(outputs, dim=2), matrix_NHKV


def _read_chunk(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    matrix: Tensor,
    rate: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Read up to B steps; their writes follow from one triangular system."""
    steps = value.shape[2]
    if steps == 1:
        return _read_step(query, key, value, log_decay, matrix, rate)
    total_NHB = log_decay.cumsum(2)
    decay_NHB1 = total_NHB.exp().unsqueeze(-1)
    # Row t, column i: what is left at step t of what step i wrote.
    later = torch.ones(steps, steps, dtype=torch.bool, device=key.device).triu(1)
    span_NHBB = total_NHB.unsqueeze(-1) - total_NHB.unsqueeze(-2)
    left_NHBB = span_NHBB.masked_fill(later, float("-inf")).exp()
    write_NHBV = value
    if rate is not None:
        rate_NHB1 = rate.unsqueeze(-1)
        # What a step finds at its key was written before the chunk, and by each earlier step of it.
        found_NHBV = value - decay_NHB1 * (key @ matrix)
        mutual_NHBB = (rate_NHB1 * left_NHBB * (key @ key.mT)).tril(-1)
        # The diagonal counts as ones.
        write_NHBV = torch.linalg.solve_triangular(
            mutual_NHBB, rate_NHB1 * found_NHBV, upper=False, unitriangular=True
        )
    output = decay_NHB1 * (query @ matrix) + (left_NHBB * (query @ key.mT)) @ write_NHBV
    kept_NHB1 = (total_NHB[:, :, -1:] - total_NHB).exp().unsqueeze(-1)
    after = decay_NHB1[:, :, -1:] * matrix + (kept_NHB1 * key).mT @ write_NHBV
    return output, after


def _read_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    matrix: Tensor,
    rate: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Read one step as the recurrence says it, which is what acting does."""
    faded = log_decay.exp().unsqueeze(-1) * matrix
    write = value if rate is None else rate.unsqueeze(-1) * (value - key @ faded)
    after = faded + key.mT * write
    return query @ after, after
