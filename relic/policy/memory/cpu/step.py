"""A cached step of a transformer's layers on the CPU: kernels between products of matrices.

Most of what PyTorch takes for a step of few rows is the calling of small operations, and its
attention of one query reads the cache at half the speed of memory. Here a layer is four products
and four kernels. Kernels are compiled when they are first used, so they are imported in functions.

Shapes: N rows, E width, F columns of a product, M hidden width, H heads, S slots, D head dim,
P pairs of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from relic.policy.attention.cpu.compiled import in_threads
from relic.policy.attention.kinds import AttentionBackend
from relic.policy.linear import linear
from relic.policy.memory.blocks import NORM_EPS, Block, look_up, turn_sinks
from relic.policy.memory.config import PositionKind
from relic.policy.memory.kv_cache import KVCache
from relic.policy.memory.positions import rotation

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


class StepWeights(NamedTuple):
    """What a step multiplies with."""

    blocks: Sequence[Block]
    norm: nn.RMSNorm
    """After the last block."""
    step_table: nn.Embedding | None
    """Of positions; None where they are not learned."""
    episode_table: nn.Embedding | None
    """Likewise of episodes."""


class _Place(NamedTuple):
    """Where each row's step stands, int64 (N,) each."""

    in_episode: np.ndarray
    episode: np.ndarray
    before: np.ndarray
    """Steps of its segment before it."""
    slot: np.ndarray
    used: np.ndarray
    """Slots that it reads, from the first one."""


def run_step(
    weights: StepWeights, x_NE: Tensor, episode_starts_N: Tensor, cache: KVCache, *, write: bool
) -> Tensor:
    """Run one step; as `Transformer.decode`."""
    place = _place(episode_starts_N, cache)
    x = _embedded(weights, x_NE, place, cache, write=write)
    y_NE = _layers(weights, x, _turns(place, cache), place, cache, keeps=write)
    if write:
        lengths, segments = cache.lengths.numpy(), cache.segment_steps.numpy()
        lengths += 1
        np.add(place.before, 1, out=segments)
        cache.last.in_episode.numpy()[:] = place.in_episode
        cache.last.episode.numpy()[:] = place.episode
    return y_NE


def _place(episode_starts_N: Tensor, cache: KVCache) -> _Place:
    from relic.policy.memory.cpu.step_kernels import place

    config, out_5N = cache.config, np.empty((5, cache.num_rows), np.int64)
    place(
        np.ascontiguousarray(episode_starts_N.numpy(), bool),
        cache.last.in_episode.numpy(),
        cache.last.episode.numpy(),
        cache.lengths.numpy(),
        cache.segment_steps.numpy(),
        config.inter_episode_attention,
        config.drop_first,
        cache.num_sinks,
        cache.slots,
        out_5N,
    )
    return _Place(*out_5N)


def _embedded(
    weights: StepWeights, x_NE: Tensor, place: _Place, cache: KVCache, *, write: bool
) -> Tensor:
    """Add the learned positions to tokens."""
    config, x = cache.config, x_NE
    if weights.step_table is not None:
        if config.reset_position:
            index = _last_before(place.in_episode, cache.max_episode_steps)
        else:
            index = cache.lengths.numpy()
            # What is only looked at may stand behind the last step of the trial.
            index = index if write else _last_before(index, cache.capacity)
        what = "position in its episode"
        x = x + look_up(weights.step_table, torch.from_numpy(index), what)
    if weights.episode_table is not None:
        index = place.episode if write else _last_before(place.episode, config.max_episodes)
        x = x + look_up(weights.episode_table, torch.from_numpy(index), "episode's index")
    return x.contiguous()


def _last_before(index_N: np.ndarray, end: int) -> np.ndarray:
    """As `positions.last_before`."""
    return np.where(index_N == end, end - 1, index_N)


def _turns(place: _Place, cache: KVCache) -> np.ndarray | None:
    """Return each row's rotary factors (N, P); None where nothing is rotary."""
    config = cache.config
    if config.episode_position is PositionKind.ROPE:
        index = place.episode
    elif config.in_episode_position is PositionKind.ROPE:
        index = place.in_episode if config.reset_position else cache.lengths.numpy()
    else:
        return None
    size = 1 << int(index.max()).bit_length()
    return _rotations(size, config.head_dim, config.rope_base)[index]


@lru_cache(maxsize=8)
def _rotations(size: int, head_dim: int, base: float) -> np.ndarray:
    """Return the factors of the first positions: a table is quicker than sines."""
    with torch.inference_mode(False):
        return rotation(torch.arange(size), head_dim, base).numpy()


def _layers(
    weights: StepWeights,
    x_NE: Tensor,
    turn_NP: np.ndarray | None,
    place: _Place,
    cache: KVCache,
    *,
    keeps: bool,
) -> Tensor:
    """Run all layers and the last norm; writes keys and values."""
    from relic.policy.memory.cpu.step_kernels import gate, join_and_norm

    scale_LN, eps = _layer_factors(cache), np.float32(NORM_EPS)
    stream_NE = np.zeros(x_NE.shape, np.float32)
    normed, attended = torch.empty(2, *x_NE.shape)
    hidden = torch.empty(len(x_NE), cache.config.mlp_width)

    def join(branch_NE: Tensor, scale_N: np.ndarray, then: nn.RMSNorm) -> None:
        weight_E = then.weight.detach().numpy()
        join_and_norm(stream_NE, branch_NE.numpy(), scale_N, weight_E, eps, normed.numpy())

    blocks = weights.blocks
    norms = [*(block.attention_norm for block in blocks[1:]), weights.norm]
    join(x_NE, np.ones(len(x_NE), np.float32), blocks[0].attention_norm)
    for layer, (block, following) in enumerate(zip(blocks, norms, strict=True)):
        own_2NHSD, scale_N = cache.kv[layer], scale_LN[layer]
        if cache.sink_key is not None and turn_NP is not None:
            turn_sinks(own_2NHSD, cache.sink_key[layer], torch.from_numpy(turn_NP))
        qkv = linear(normed, block.qkv.weight)
        attend_step(qkv, turn_NP, own_2NHSD, place.slot, place.used, keeps=keeps, out_NE=attended)
        join(linear(attended, block.out.weight), scale_N, block.mlp_norm)
        gate(linear(normed, block.mlp.gate_up.weight).numpy(), hidden.numpy())
        join(linear(hidden, block.mlp.down.weight), scale_N, following)
    return normed


def _layer_factors(cache: KVCache) -> np.ndarray:
    """Return what each layer's branches count in each row, (L, N)."""
    if cache.depth_mask_NL is None:
        return np.ones((cache.config.num_layers, cache.num_rows), np.float32)
    return np.ascontiguousarray(cache.depth_mask_NL.numpy().T)


def attend_step(
    qkv_NF: Tensor,
    turn_NP: np.ndarray | None,
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
        turn_NP: Rotary factors, complex64, of each pair of a head.
        cache_2NHSD: Keys and values, contiguous, written.
        slot_N: Slot that each row's step is written to, int64.
        used_N: Slots that each row reads, int64.
        keeps: Leave the step in its slot; else what was there is put back.
        out_NE: Written.
    """
    from relic.policy.memory.cpu.step_kernels import attend_kernel

    key_NHSD, value_NHSD = cache_2NHSD.numpy()
    num_rows, num_heads, _, head_dim = key_NHSD.shape
    turn_NP = np.empty((num_rows, 0), np.complex64) if turn_NP is None else turn_NP
    read = 2 * num_heads * head_dim * int(used_N.sum())
    args = [qkv_NF, turn_NP, key_NHSD, value_NHSD, slot_N, used_N, keeps, out_NE]
    in_threads(attend_kernel(head_dim), args, max_pieces=1 + read // _NUMBERS_PER_THREAD)
