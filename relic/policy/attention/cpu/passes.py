"""Attention on the CPU by compiled kernels: what `AUTO` takes there for plain float32 passes.

Sinks, past and own steps go in side by side, so nothing is joined or padded, and the mask is in
the loops' bounds. Heads are independent of each other, so results do not depend on the number of
threads. Windows, segments and rows with unequal pasts are left to SDPA.

Shapes: N rows, H heads, T steps, D head dim, K sinks, P cached steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from relic.policy.attention.attend import Past, Sinks, per_row
from relic.policy.attention.cpu.common import in_threads
from relic.policy.attention.segments import Segments


def fits(q: Tensor, segments: Segments, window: int | None) -> bool:
    """Say whether the kernels can do a pass."""
    whole = window is None and segments.starts_NT is None
    past = segments.past_steps
    alike = bool((past == past[0]).all()) and past[0] <= max(segments.past_slots, 0)
    plain = q.device.type == "cpu" and q.dtype is torch.float32 and q.shape[-1] % 4 == 0
    return whole and alike and plain and not torch.is_autocast_enabled("cpu")


def scratch_bytes(steps: int, head_dim: int) -> int:
    """Return what the kernels' threads hold of a head in a backward pass over so many steps.

    Keys, values and their gradients side by side, and two times four rows of scores, in float32.
    """
    return 4 * (4 * head_dim + 8) * steps * torch.get_num_threads()


def compiled_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    sinks: Sinks | None,
    past: Past | None,
    segments: Segments,
    window: int | None,
    scale: float,
) -> Tensor:
    """Attend as `attention.attend` says.

    Raises:
        ValueError: If the kernels cannot do this pass.
    """
    if not fits(q, segments, window):
        raise ValueError(
            "attention_backend: compiled must be given float32 on the CPU, head sizes that are "
            "multiples of 4, no window and no segments, got another pass. Use auto or sdpa."
        )
    num_rows, num_heads, _, head_dim = q.shape
    nothing = q.new_zeros(num_rows, num_heads, 0, head_dim)
    sink_k = sink_v = past_k = past_v = nothing
    if sinks is not None:
        sink_k, sink_v = per_row(sinks.key, num_rows), per_row(sinks.value, num_rows)
    if past is not None:
        used = int(segments.past_steps[0])
        past_k, past_v = (x[:, :, :used].detach().float() for x in past)
    out = _Attend.apply(q, k, v, past_k, past_v, sink_k, sink_v, np.float32(scale))
    assert isinstance(out, Tensor)
    return out


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        from relic.policy.attention.cpu.pass_kernels import attend_forward

        *tensors, scale = args
        q = tensors[0]
        # Heads of one step side by side, as the projection after this wants them.
        out = _steps_first(q)
        log_total = torch.empty(q.shape[:3])
        in_threads(attend_forward, [*tensors, scale, out, log_total], axis=_split(q))
        ctx.save_for_backward(*tensors, out, log_total)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from relic.policy.attention.cpu.pass_kernels import attend_backward

        *tensors, out, log_total = ctx.saved_tensors
        q, sink_k = tensors[0], tensors[5]
        grad_own = [_steps_first(q) for _ in range(3)]
        grad_sinks = [torch.empty(sink_k.shape) for _ in range(2)]
        known = [*tensors, out, log_total, grads[0], ctx.scale]
        in_threads(attend_backward, [*known, *grad_own, *grad_sinks], axis=_split(q))
        return (*grad_own, None, None, *grad_sinks, None)


def _steps_first(q: Tensor) -> Tensor:
    num_rows, num_heads, num_steps, head_dim = q.shape
    return torch.empty(num_rows, num_steps, num_heads, head_dim).transpose(1, 2)


def _split(q: Tensor) -> int:
    """Return the axis that threads share out: rows, or heads where rows are few."""
    return 0 if q.shape[0] >= torch.get_num_threads() else 1
