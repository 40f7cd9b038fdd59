"""A cached step of a transformer's layers on the CPU: kernels between products of matrices.

Most of what PyTorch takes for a step of few rows is the calling of small operations, and its
attention of one query reads the cache at half the speed of memory. Here a layer is four products
and four kernels. Kernels are compiled when they are first used, so they are imported in functions.

Shapes: N rows, E width, F columns of a product, M hidden width, H heads, S slots, D head dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from relic.policy.attention.cpu.compiled import in_threads
from relic.policy.attention.kinds import AttentionBackend
from relic.policy.memory.blocks import NORM_EPS, Block, turn_sinks
from relic.policy.memory.kv_cache import KVCache

_NUMBERS_PER_THREAD = 2**18
"""Below this, waking a thread takes longer than the work."""


def fits_step(x_NE: Tensor, cache: KVCache) -> bool:
    """Say whether compiled code can do a step of these tokens on a cache."""
    config, kv = cache.config, cache.kv
    ours = config.attention_backend in (AttentionBackend.AUTO, AttentionBackend.COMPILED)
    plain = all(x.device.type == "cpu" and x.dtype is torch.float32 for x in (x_NE, kv))
    # Captured steps, which read a fixed number of slots, run by what they were captured from.
    free = not (cache.fixed_slots or torch.is_autocast_enabled("cpu"))
    return ours and plain and free and config.head_dim % 4 == 0


def step_layers(
    blocks: Sequence[Block],
    norm: nn.RMSNorm,
    x_NE: Tensor,
    factor: Tensor | None,
    cache: KVCache,
    before_N: Tensor,
    *,
    keeps: bool,
) -> Tensor:
    """Run one step through all layers and the last norm.

    Args:
        blocks: The layers.
        norm: What follows them.
        x_NE: Tokens with their learned positions.
        factor: Rotary factors (N, D / 2).
        cache: Its keys and values are written; nothing else of it.
        before_N: Steps that each row's query sees of its segment before itself.
        keeps: Leave the step in the cache.

    Returns:
        Tokens (N, E).
    """
    from relic.policy.memory.cpu.step_kernels import gate, join_and_norm

    num_rows, width = x_NE.shape
    before, slots = before_N.numpy(), cache.slots
    # A full ring is seen whole: the new step has just taken the place of the oldest.
    slot_N, used_N = before % slots + cache.num_sinks, np.minimum(before + 1, slots)
    used_N += cache.num_sinks
    scale_LN = _layer_factors(cache)
    stream, normed, branch = torch.zeros(num_rows, width), *torch.empty(2, num_rows, width)
    qkv = torch.empty(num_rows, 3 * width)
    gate_up = torch.empty(num_rows, 2 * cache.config.mlp_width)
    hidden = torch.empty(num_rows, cache.config.mlp_width)

    def join(added_NE: Tensor, scale_N: np.ndarray, then: nn.RMSNorm) -> None:
        weight_E, eps = then.weight.detach().numpy(), np.float32(NORM_EPS)
        join_and_norm(stream.numpy(), added_NE.numpy(), scale_N, weight_E, eps, normed.numpy())

    norms = [*(block.attention_norm for block in blocks[1:]), norm]
    join(x_NE.contiguous(), np.ones(num_rows, np.float32), blocks[0].attention_norm)
    for layer, (block, following) in enumerate(zip(blocks, norms, strict=True)):
        own_2NHSD, scale_N = cache.kv[layer], scale_LN[layer]
        if cache.sink_key is not None and factor is not None:
            turn_sinks(own_2NHSD, cache.sink_key[layer], factor)
        torch.mm(normed, block.qkv.weight.t(), out=qkv)
        attend_step(qkv, factor, own_2NHSD, slot_N, used_N, keeps=keeps, out_NE=normed)
        torch.mm(normed, block.out.weight.t(), out=branch)
        join(branch, scale_N, block.mlp_norm)
        torch.mm(normed, block.mlp.gate_up.weight.t(), out=gate_up)
        gate(gate_up.numpy(), hidden.numpy())
        torch.mm(hidden, block.mlp.down.weight.t(), out=branch)
        join(branch, scale_N, following)
    return normed


def _layer_factors(cache: KVCache) -> np.ndarray:
    """Return what each layer's branches count in each row, (L, N)."""
    if cache.depth_mask_NL is None:
        return np.ones((cache.config.num_layers, cache.num_rows), np.float32)
    return np.ascontiguousarray(cache.depth_mask_NL.numpy().T)


def attend_step(
    qkv_NF: Tensor,
    factor: Tensor | None,
    cache_2NHSD: Tensor,
    slot_N: np.ndarray,
    used_N: np.ndarray,
    *,
    keeps: bool,
    out_NE: Tensor,
) -> None:
    """Write a step into a layer's cache, and let each row's query attend to its first slots.

    Args:
        qkv_NF: Queries of all heads, their keys, their values, none of them rotated.
        factor: Rotary factors (N, D / 2).
        cache_2NHSD: Keys and values, contiguous, written.
        slot_N: Slot that each row's step is written to, int64.
        used_N: Slots that each row reads, int64.
        keeps: Leave the step in its slot; else what was there is put back.
        out_NE: Written.
    """
    from relic.policy.memory.cpu.step_kernels import attend_kernel

    key_NHSD, value_NHSD = cache_2NHSD.numpy()
    num_rows, num_heads, _, head_dim = key_NHSD.shape
    if factor is None:
        turn_NP2 = np.empty((num_rows, 0, 2), np.float32)
    else:
        turn_NP2 = torch.view_as_real(factor).contiguous().numpy()
    read = 2 * num_heads * head_dim * int(used_N.sum())
    args = [qkv_NF, turn_NP2, key_NHSD, value_NHSD, slot_N, used_N, keeps, out_NE]
    in_threads(attend_kernel(head_dim), args, max_pieces=1 + read // _NUMBERS_PER_THREAD)
