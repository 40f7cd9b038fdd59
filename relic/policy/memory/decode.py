"""Attention of one query per row to a cache, without masks or loops on the host.

Plain float32 steps on a CPU run in `cpu/step.py`; here is what serves all others. Rows of one
length take one call on a slice of the cache. On a CPU, rows of different lengths go run by run,
each on exactly its own slots. On CUDA a packed kernel is told the lengths; where its dtypes do not
fit, a mask hides what lies beyond them, which is why the cache holds zeros there.

A step never asks the device for a value: the host would wait for the kernels under way, and the
device then for the host's next ones. Lengths that decide shapes are known to the host
(`KVCache.host_lengths`); others stay tensors.

Shapes: N rows, H heads, D head dim, K sinks, C slots of steps.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from relic.policy.attention.kinds import AttentionBackend
from relic.policy.memory.kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """Where one step is written and what it reads; the same for all layers."""

    slot: int | Tensor
    """Slot of the step, counted from the row's first sink; per row where they differ."""
    runs: list[tuple[slice, int]]
    """Neighbouring rows and the slots they read; empty where `used_N` says it."""
    used_N: Tensor | None = None
    """Slots that each row reads, int32."""
    packed: bool = False
    """Whether a packed kernel takes the lengths; else a mask does."""
    read: int | None = None
    """Slots that are looked at where a mask says which of them count; None: all."""


def plan_decode(state: KVCache, segment_steps_N: Tensor, backend: AttentionBackend) -> DecodePlan:
    """Lay out one step.

    Args:
        state: The cache, before the step.
        segment_steps_N: Steps that each row's query sees of its segment before itself.
        backend: As configured; the reference backend takes the masked path.
    """
    sinks, slots = state.num_sinks, state.slots
    lengths = state.host_lengths
    if not (state.has_segments or state.fixed_slots) and (lengths == lengths[0]).all():
        # A full ring is seen whole: the new step has just taken the place of the oldest.
        steps = int(lengths[0])
        used = sinks + min(steps + 1, slots)
        return DecodePlan(sinks + steps % slots, [(slice(None), used)])
    # Rows differ. On a device only tensors may say how, since the host would have to ask for them.
    slot_N = segment_steps_N % slots + sinks
    used_N = (segment_steps_N + 1).clamp(max=slots) + sinks
    if state.fixed_slots or not state.kv.device.type == "cpu":
        packed = takes_lengths(state, backend)
        read = sinks + state.fixed_slots if state.fixed_slots else None
        return DecodePlan(slot=slot_N, runs=[], used_N=used_N.int(), packed=packed, read=read)
    return DecodePlan(slot=slot_N, runs=_runs(used_N.tolist()))


def _runs(used: list[int]) -> list[tuple[slice, int]]:
    runs: list[tuple[slice, int]] = []
    begin = 0
    for row in range(1, len(used) + 1):
        if row == len(used) or used[row] != used[begin]:
            runs.append((slice(begin, row), used[begin]))
            begin = row
    return runs


def write_step(cache_2NHSD: Tensor, plan: DecodePlan, kv_N2HD: Tensor) -> None:
    """Write the step's keys and values into one layer of the cache."""
    if isinstance(plan.slot, int):
        cache_2NHSD[:, :, :, plan.slot] = kv_N2HD.transpose(0, 1)
        return
    rows_N = torch.arange(kv_N2HD.shape[0], device=kv_N2HD.device)
    cache_2NHSD[:, rows_N, :, plan.slot] = kv_N2HD.to(cache_2NHSD.dtype)


def read_slot(cache_2NHSD: Tensor, plan: DecodePlan) -> Tensor:
    """Return a copy of what the step's slot holds, (N, 2, H, D)."""
    if isinstance(plan.slot, int):
        return cache_2NHSD[:, :, :, plan.slot].transpose(0, 1).clone()
    rows_N = torch.arange(cache_2NHSD.shape[1], device=cache_2NHSD.device)
    return cache_2NHSD[:, rows_N, :, plan.slot]


def decode_attend(q_NHD: Tensor, cache_2NHSD: Tensor, plan: DecodePlan) -> Tensor:
    """Let one query per row attend to its slots; returns (N, H, D) in the dtype of the cache."""
    key, value = cache_2NHSD[0], cache_2NHSD[1]
    q = q_NHD.to(key.dtype)
    if plan.packed:
        return _packed(q, key, value, plan)
    q = q.unsqueeze(2)
    if plan.used_N is not None:
        key, value = key[:, :, : plan.read], value[:, :, : plan.read]
        slot_S = torch.arange(key.shape[2], device=key.device)
        # A hidden slot has weight 0, but 0 times NaN is NaN: the cache is cleared by zeros for
        # this.
        mask = (slot_S < plan.used_N[:, None])[:, None, None, :]
        return F.scaled_dot_product_attention(q, key, value, attn_mask=mask).squeeze(2)
    outputs = [
        F.scaled_dot_product_attention(q[rows], key[rows, :, :end], value[rows, :, :end])
        for rows, end in plan.runs
    ]
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).squeeze(2)


def takes_lengths(state: KVCache, backend: AttentionBackend) -> bool:
    """Say whether a packed kernel reads exactly what each row sees, without a mask."""
    half = state.kv.dtype in (torch.float16, torch.bfloat16)
    may = state.kv.is_cuda and half and backend is not AttentionBackend.REFERENCE
    return may and _varlen_takes_lengths()


@cache
def _varlen_takes_lengths() -> bool:
    """Say whether PyTorch's packed kernel can be told how much of each row to read (from 2.12)."""
    from torch.nn.attention.varlen import varlen_attn

    return "seqused_k" in inspect.signature(varlen_attn).parameters


def _packed(q_NHD: Tensor, key: Tensor, value: Tensor, plan: DecodePlan) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    num_rows, _, slots, _ = key.shape
    # Each row is a segment of one query and all its slots; `seqused_k` says how many of them count.
    row = torch.arange(num_rows + 1, device=q_NHD.device, dtype=torch.int32)
    keys, values = (x.transpose(1, 2).flatten(0, 1) for x in (key, value))
    out = varlen_attn(
        q_NHD, keys, values, row, row * slots, max_q=1, max_k=slots, seqused_k=plan.used_N
    )
    assert isinstance(out, Tensor)
    return out
