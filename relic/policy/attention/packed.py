"""Attention on packed rows: segments of any length side by side, without padding or masks.

For kernels with the interface of flash-attn's `varlen` functions: PyTorch's own on CUDA, and the
flash-attn package (2.1 or newer) where it is installed. Neither has been run on a GPU yet.

Shapes: N rows, H heads, T steps, D head dim, K sinks, P cached steps, B segments.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relic.policy.attention.inputs import AttentionInputs
from relic.policy.attention.segments import Segments

Kernel = Callable[..., Tensor]
"""kernel(q, k, v, cu_q, cu_k, max_q, max_k, *, window, scale): packed (total, H, D) each; causal,
aligned to the bottom right of each segment; `window` counts the keys before a query's own."""

_FLASH_MODULES = ("flash_attn", "flash_attn_interface", "flash_attn.cute")
"""Where versions 2, 3 and 4 of flash-attn keep their functions."""


@dataclass(frozen=True, slots=True)
class _Packing:
    """Where each segment's queries end, and which keys it has, in order."""

    key_index: Tensor
    cu_q: Tensor
    cu_k: Tensor
    max_q: int
    max_k: int


def varlen_attention(inputs: AttentionInputs) -> Tensor:
    """Attend with PyTorch's variable-length attention."""
    _check_device("varlen", inputs.q)
    return packed_attention(_torch_kernel, inputs)


def flash_attention(inputs: AttentionInputs) -> Tensor:
    """Attend with the flash-attn package."""
    kernel = flash_kernel()
    _check_device("flash", inputs.q)
    return packed_attention(kernel, inputs)


def packed_attention(kernel: Kernel, inputs: AttentionInputs) -> Tensor:
    """Gather each segment's keys as [sinks, past, steps] and run a packed kernel on them.

    Raises:
        ValueError: If there are sinks and a window, which they would leave.
    """
    q, past, segments, window = inputs.q, inputs.past, inputs.segments, inputs.window
    sinks = inputs.sinks and inputs.sinks.per_row(q.shape[0])
    if sinks is not None and window is not None:
        raise ValueError(
            "attention_backend: must keep sinks inside a window, which varlen and flash cannot. "
            "Use sdpa."
        )
    num_rows, num_heads, num_steps, head_dim = q.shape
    num_sinks = inputs.num_sinks
    pack = segments.once((_Packing, num_sinks), lambda: _pack(segments, num_sinks))

    def flat(x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(-1, num_heads, x.shape[-1])

    def gathered(*parts: Tensor | None, own: Tensor) -> Tensor:
        before = [flat(part.to(own.dtype)) for part in parts if part is not None]
        return torch.cat([*before, flat(own)])[pack.key_index]

    out = kernel(
        flat(q).contiguous(),
        gathered(sinks and sinks.key, past and past.key, own=inputs.k),
        gathered(sinks and sinks.value, past and past.value, own=inputs.v),
        pack.cu_q,
        pack.cu_k,
        pack.max_q,
        pack.max_k,
        # Kernels count the keys before a query's own, and know no window as -1.
        window=-1 if window is None else window - 1,
        scale=inputs.scale,
    )
    return out.view(num_rows, num_steps, num_heads, head_dim).transpose(1, 2)


def _pack(segments: Segments, num_sinks: int) -> _Packing:
    """Lay out the keys of every segment as indices into [sinks, past, steps], each flattened."""
    num_rows, num_steps = segments.num_rows, segments.num_steps
    slots = segments.past_slots if segments.has_past else 0
    first, length = segments.bounds
    row, step = np.divmod(first, num_steps)
    runs_on = step == 0
    if segments.starts_NT is not None:
        runs_on &= ~segments.starts_NT[:, 0].cpu().numpy()[row]
    cached = np.where(runs_on & (slots > 0), segments.past_counts[row], 0)

    sizes = num_sinks + cached + length
    ends = np.cumsum(sizes)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(ends[-1]) - (ends - sizes)[owner] - num_sinks
    # Sinks have negative places, cached steps come oldest first, then the segment's own: in order
    # of time, as the kernel's causal mask takes it. The ring of the past is so unrolled on the way.
    sink = row[owner] * num_sinks + place + num_sinks
    oldest = segments.past_steps[row[owner]] - cached[owner]
    past = row[owner] * slots + (oldest + place) % max(slots, 1) + num_rows * num_sinks
    own = first[owner] + place - cached[owner] + num_rows * (num_sinks + slots)
    index = np.where(place < 0, sink, np.where(place < cached[owner], past, own))

    device = segments.device

    def cumulative(lengths: np.ndarray) -> Tensor:
        total = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return torch.from_numpy(total).to(device)

    return _Packing(
        key_index=torch.from_numpy(index).to(device),
        cu_q=cumulative(length),
        cu_k=cumulative(sizes),
        max_q=int(length.max()),
        max_k=int(sizes.max()),
    )


def _torch_kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    window: int,
    scale: float,
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(q, k, v, cu_q, cu_k, max_q, max_k, scale=scale, window_size=(window, 0))
    assert isinstance(out, Tensor)
    return out


def flash_kernel() -> Kernel:
    """Return the flash-attn package's kernel, whichever of its versions is there.

    Raises:
        ImportError: If none is.
    """
    attend = _find_flash()

    def kernel(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_q: Tensor,
        cu_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        window: int,
        scale: float,
    ) -> Tensor:
        out = attend(
            q,
            k,
            v,
            cu_seqlens_q=cu_q,
            cu_seqlens_k=cu_k,
            max_seqlen_q=max_q,
            max_seqlen_k=max_k,
            softmax_scale=scale,
            causal=True,
            # Versions disagree on how to say that there is none.
            **({} if window < 0 else {"window_size": (window, 0)}),
        )
        # Some versions return the softmax's logarithms as well.
        return out[0] if isinstance(out, tuple) else out

    return kernel


def _find_flash() -> Callable[..., Any]:
    for name in _FLASH_MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(module, "flash_attn_varlen_func"):
            return module.flash_attn_varlen_func
    raise ImportError(
        "attention_backend: flash needs the flash-attn package. Run "
        "`pip install flash-attn --no-build-isolation`, or choose auto."
    )


def _check_device(backend: str, q: Tensor) -> None:
    if not q.is_cuda or q.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"attention_backend: {backend} must run on CUDA in float16 or bfloat16, got {q.dtype} "
            f"on {q.device.type}. Choose auto, or bf16 precision on a GPU."
        )
