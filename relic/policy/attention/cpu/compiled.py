"""Full passes of attention on the CPU by compiled kernels, joined to PyTorch.

`AUTO` takes them for plain float32 passes. Sinks, past and own steps go in side by side, so nothing
is joined or padded, and the mask is in the loops' bounds. Windows, segments and rows with unequal
pasts are left to SDPA. Single steps are in `memory/cpu/step.py`.

Every head of every row is worked out by itself, so results depend neither on other rows nor on the
number of threads. Kernels are compiled when they are first used, which is why they are imported
inside functions.

Shapes: N rows, H heads, T steps, D head dim, K sinks, P cached steps.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relic.policy.attention.inputs import AttentionInputs


def fits(inputs: AttentionInputs) -> bool:
    """Say whether the kernels can do a pass."""
    q, segments = inputs.q, inputs.segments
    whole = inputs.window is None and segments.starts_NT is None
    past = segments.past_steps
    # Kernels have one length of the past for all rows.
    alike = bool((past == past[0]).all()) and past[0] <= max(segments.past_slots, 0)
    plain = q.device.type == "cpu" and q.dtype is torch.float32 and q.shape[-1] % 4 == 0
    return whole and alike and plain and not torch.is_autocast_enabled("cpu")


def scratch_bytes(steps: int, head_dim: int) -> int:
    """Return what the kernels' threads hold of a head in a backward pass over so many steps.

    Keys, values and their gradients side by side, and two times four rows of scores, in float32.
    """
    return 4 * (4 * head_dim + 8) * steps * torch.get_num_threads()


def compiled_attention(inputs: AttentionInputs) -> Tensor:
    """Attend with the kernels of passes.

    Raises:
        ValueError: If the kernels cannot do this pass.
    """
    if not fits(inputs):
        raise ValueError(
            "attention_backend: compiled must be given float32 on the CPU, head sizes that are "
            "multiples of 4, no window and no segments, got another pass. Use auto or sdpa."
        )
    q = inputs.q
    # The kernels have one signature: what a pass lacks comes with no steps.
    nothing = q.new_zeros(*q.shape[:2], 0, q.shape[3])
    sink_k = sink_v = past_k = past_v = nothing
    if inputs.sinks is not None:
        sink_k, sink_v = inputs.sinks.per_row(q.shape[0])
    if inputs.past is not None:
        used = int(inputs.segments.past_steps[0])
        # The cache may be of half precision, and the past is constant.
        past_k, past_v = (x[:, :, :used].detach().float() for x in inputs.past)
    scale = np.float32(inputs.scale)
    out = _Attend.apply(q, inputs.k, inputs.v, past_k, past_v, sink_k, sink_v, scale)
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
        # Each row's own share: the threads would race for a sum that all rows share.
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


def in_threads(
    kernel: Callable[..., None], args: list[Any], *, axis: int = 0, max_pieces: int | None = None
) -> None:
    """Run a kernel on slices of its arrays along one axis, one per thread.

    Args:
        kernel: Writes into some of its arrays; slices must not depend on each other.
        args: Tensors and arrays, which are sliced, and scalars, which are not. The first one
            says how long the axis is.
        axis: Along which to cut.
        max_pieces: Most threads that the work is worth; None: as many as PyTorch has.
    """
    arrays = [a.detach().numpy() if isinstance(a, Tensor) else a for a in args]
    length = arrays[0].shape[axis]
    pieces = min(torch.get_num_threads(), length, max_pieces or length)
    if pieces <= 1:
        kernel(*arrays)
        return
    bounds = np.linspace(0, length, pieces + 1).astype(int)
    before = (slice(None),) * axis

    def run(piece: slice) -> None:
        kernel(*[a[(*before, piece)] if isinstance(a, np.ndarray) else a for a in arrays])

    slices = [slice(a, b) for a, b in itertools.pairwise(bounds)]
    # The last piece runs here, where waiting would be idle time.
    futures = [_pool(os.getpid(), pieces - 1).submit(run, piece) for piece in slices[:-1]]
    run(slices[-1])
    # A thread's error is raised here.
    for future in futures:
        future.result()


@cache
def _pool(process: int, size: int) -> ThreadPoolExecutor:
    # The threads of a parent do not survive a fork.
    del process
    return ThreadPoolExecutor(size, thread_name_prefix="kernels")
