"""A cached step of a transformer on the CPU, by compiled kernels.

Most of what PyTorch takes for a step of few rows is the calling of small operations, and its
attention of one query reads the cache at half the speed of memory. Here a small layer is one
kernel, and a large one has attention compiled. Kernels are compiled when they are first used, so
they are imported in functions.

Shapes: N rows, E width, F columns of a product, M hidden width, H heads, S slots, D head dim,
P pairs of a head.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from relic.policy.attention.cpu.compiled import in_threads
from relic.policy.attention.cpu.vectors import BLOCK
from relic.policy.attention.kinds import AttentionBackend
from relic.policy.memory.blocks import NORM_EPS, Block, check_rows, turn_sinks
from relic.policy.memory.config import PositionKind
from relic.policy.memory.kv_cache import KVCache
from relic.policy.memory.positions import rotation

_SMALL_LAYER = 2**20 + 2**19
"""Weights of a layer that the middle caches of a processor hold; those of larger ones are better
read once for all rows."""
_EPS = np.float32(NORM_EPS)
_NUMBERS_PER_THREAD = 2**18
"""Below this, waking a thread takes longer than the work."""


def fits_step(x_NE: Tensor, cache: KVCache) -> bool:
    """Say whether compiled code can do a step of these tokens on a cache."""
    config, kv = cache.config, cache.kv
    ours = config.attention_backend in (AttentionBackend.AUTO, AttentionBackend.COMPILED)
    plain = x_NE.dtype is torch.float32 and kv.dtype in (torch.float32, torch.bfloat16)
    plain = plain and x_NE.device.type == kv.device.type == "cpu"
    # Captured steps, which read a fixed number of slots, run by what they were captured from.
    free = not (cache.fixed_slots or torch.is_autocast_enabled("cpu"))
    return ours and plain and free and config.head_dim % 4 == 0


class StepModel(Protocol):
    """The transformer, as far as a step needs it."""

    blocks: nn.ModuleList
    step_embedding: nn.Embedding | None
    """Of positions; None where they are not learned."""
    episode_embedding: nn.Embedding | None
    """Likewise of episodes."""

    @property
    def norm(self) -> nn.RMSNorm:
        """After the last block."""
        ...


class _Layer(NamedTuple):
    """A small layer's arrays, as its kernel takes them."""

    matrices: tuple[np.ndarray, ...]
    norms: tuple[np.ndarray, ...]
    key_NHSD: np.ndarray
    value_NHSD: np.ndarray


class _Views(NamedTuple):
    """Arrays that are the memory of tensors: making them anew takes longer than using them."""

    kv: Tensor
    weight: nn.Parameter
    """The last norm's: weights are replaced together or not at all."""
    address: int
    """Of that weight's numbers."""
    state: tuple[np.ndarray, ...]
    """Facts of each row's last step, its steps in the trial and in its segment."""
    layers: list[_Layer]
    """Empty where layers are large."""
    step_table: np.ndarray | None
    episode_table: np.ndarray | None
    norm_E: np.ndarray


class Place(NamedTuple):
    """Where each row's step stands, int64 (N,) each."""

    in_episode: np.ndarray
    episode: np.ndarray
    before: np.ndarray
    """Steps of its segment before it."""
    slot: np.ndarray
    used: np.ndarray
    """Slots that it reads, from the first one."""


def run_step(
    model: StepModel, x_NE: Tensor, episode_starts_N: Tensor, cache: KVCache, *, write: bool
) -> Tensor:
    """Run one step; as `Transformer.decode`."""
    from relic.policy.memory.cpu.step_layer_kernel import norm_rows

    views = _views(model, cache)
    place = _place(episode_starts_N, views, cache)
    h_NE = _embedded(x_NE, views, place, cache, write=write)
    turn_NP, scale_LN = _turns(place, cache), _layer_factors(cache)
    if views.layers:
        _run_small(views, h_NE, turn_NP, scale_LN, place, cache, keeps=write)
    else:
        h_NE = _run_large(model, h_NE, turn_NP, scale_LN, place, cache, keeps=write)
    y_NE = np.empty_like(h_NE)
    norm_rows(h_NE, views.norm_E, _EPS, y_NE)
    if write:
        in_episode_N, episode_N, lengths_N, segment_N = views.state
        in_episode_N[:], episode_N[:] = place.in_episode, place.episode
        lengths_N += 1
        np.add(place.before, 1, out=segment_N)
    return torch.from_numpy(y_NE)


def _views(model: StepModel, cache: KVCache) -> _Views:
    """Return the arrays of a cache and of the weights; kept until either is replaced."""
    known, weight = cache.step_views, model.norm.weight
    if isinstance(known, _Views) and known.kv is cache.kv and known.weight is weight:
        if known.address == weight.data_ptr():
            return known
    state = (*cache.last, cache.lengths, cache.segment_steps)
    blocks = _blocks(model)
    small = blocks[0].num_weights <= _SMALL_LAYER
    views = _Views(
        cache.kv,
        weight,
        weight.data_ptr(),
        tuple(fact.numpy() for fact in state),
        [_layer(block, cache.kv[i]) for i, block in enumerate(blocks) if small],
        _table(model.step_embedding),
        _table(model.episode_embedding),
        weight.detach().numpy(),
    )
    cache.step_views = views
    return views


def _table(embedding: nn.Embedding | None) -> np.ndarray | None:
    return None if embedding is None else embedding.weight.detach().numpy()


def _blocks(model: StepModel) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]


def _layer(block: Block, cache_2NHSD: Tensor) -> _Layer:
    linears = (block.qkv, block.out, block.mlp.gate_up, block.mlp.down)
    norms = (block.attention_norm, block.mlp_norm)
    return _Layer(
        tuple(linear.weight.detach().numpy() for linear in linears),
        tuple(norm.weight.detach().numpy() for norm in norms),
        *_numbers(cache_2NHSD),
    )


def _numbers(cache_2NHSD: Tensor) -> np.ndarray:
    """Return a layer's cache as kernels take it; NumPy has no bfloat16."""
    half = cache_2NHSD.dtype is torch.bfloat16
    return (cache_2NHSD.view(torch.uint16) if half else cache_2NHSD).numpy()


def _place(episode_starts_N: Tensor, views: _Views, cache: KVCache) -> Place:
    from relic.policy.memory.cpu.step_kernels import place

    config, out_5N = cache.config, np.empty((5, cache.num_rows), np.int64)
    in_episode_N, episode_N, lengths_N, segment_N = views.state
    place(
        np.ascontiguousarray(episode_starts_N.numpy(), bool),
        in_episode_N,
        episode_N,
        lengths_N,
        segment_N,
        config.inter_episode_attention,
        config.drop_first,
        cache.num_sinks,
        cache.slots,
        out_5N,
    )
    return Place(*out_5N)


def _embedded(
    x_NE: Tensor, views: _Views, place: Place, cache: KVCache, *, write: bool
) -> np.ndarray:
    """Return a copy of the tokens with the learned positions added."""
    config, h_NE = cache.config, x_NE.numpy().copy()
    if views.step_table is not None:
        if config.reset_position:
            index = _last_before(place.in_episode, cache.max_episode_steps)
        else:
            # What is only looked at may stand behind the last step of the trial.
            index = views.state[2] if write else _last_before(views.state[2], cache.capacity)
        check_rows(int(index.max()), len(views.step_table), "position in its episode")
        h_NE += views.step_table[index]
    if views.episode_table is not None:
        index = place.episode if write else _last_before(place.episode, config.max_episodes)
        check_rows(int(index.max()), len(views.episode_table), "episode's index")
        h_NE += views.episode_table[index]
    return h_NE


def _last_before(index_N: np.ndarray, end: int) -> np.ndarray:
    """As `positions.last_before`."""
    return np.where(index_N == end, end - 1, index_N)


def _turns(place: Place, cache: KVCache) -> np.ndarray | None:
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


def _run_small(
    views: _Views,
    h_NE: np.ndarray,
    turn_NP: np.ndarray | None,
    scale_LN: np.ndarray,
    place: Place,
    cache: KVCache,
    *,
    keeps: bool,
) -> None:
    """Run all layers by one kernel each; writes the stream, keys and values."""
    from relic.policy.memory.cpu.step_layer_kernel import layer_kernel

    kernel = layer_kernel(cache.config.head_dim, cache.kv.dtype is torch.bfloat16)
    factors_NP = _factors(turn_NP, len(h_NE))
    # Sixteen rows take as long as one.
    pieces = -(-len(h_NE) // BLOCK)
    for i, layer in enumerate(views.layers):
        _turn_sinks(cache, i, turn_NP)
        caches = (layer.key_NHSD, layer.value_NHSD)
        args = [h_NE, layer.matrices, layer.norms, _EPS, scale_LN[i], factors_NP, *caches]
        in_threads(kernel, [*args, place.slot, place.used, keeps], max_pieces=pieces)


def _run_large(
    model: StepModel,
    h_NE: np.ndarray,
    turn_NP: np.ndarray | None,
    scale_LN: np.ndarray,
    place: Place,
    cache: KVCache,
    *,
    keeps: bool,
) -> np.ndarray:
    """Run all layers, of which attention is compiled; writes keys and values."""
    h = torch.from_numpy(h_NE)
    for i, block in enumerate(_blocks(model)):
        _turn_sinks(cache, i, turn_NP)
        qkv, attended = block.qkv(block.attention_norm(h)), torch.empty_like(h)
        attend_step(qkv, turn_NP, cache.kv[i], place.slot, place.used, keeps=keeps, out_NE=attended)
        h = block.finish(h, attended, torch.from_numpy(scale_LN[i, :, None]))
    return h.numpy()


def _turn_sinks(cache: KVCache, layer: int, turn_NP: np.ndarray | None) -> None:
    """Turn a layer's sinks where they are scored with queries before their rotation."""
    if cache.sink_key is not None and turn_NP is not None:
        turn_sinks(cache.kv[layer], cache.sink_key[layer], torch.from_numpy(turn_NP))


def _factors(turn_NP: np.ndarray | None, num_rows: int) -> np.ndarray:
    return np.empty((num_rows, 0), np.complex64) if turn_NP is None else turn_NP


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
        cache_2NHSD: Keys and values, contiguous, float32 or bfloat16, written.
        slot_N: Slot that each row's step is written to, int64.
        used_N: Slots that each row reads, int64.
        keeps: Leave the step in its slot; else what was there is put back.
        out_NE: Written.
    """
    from relic.policy.memory.cpu.step_kernels import attend_kernel

    key_NHSD, value_NHSD = _numbers(cache_2NHSD)
    num_rows, num_heads, _, head_dim = key_NHSD.shape
    read = 2 * num_heads * head_dim * int(used_N.sum())
    turn_NP = _factors(turn_NP, num_rows)
    args = [qkv_NF, turn_NP, key_NHSD, value_NHSD, slot_N, used_N, keeps, out_NE]
    kernel = attend_kernel(head_dim, cache_2NHSD.dtype is torch.bfloat16)
    in_threads(kernel, args, max_pieces=1 + read // _NUMBERS_PER_THREAD)
