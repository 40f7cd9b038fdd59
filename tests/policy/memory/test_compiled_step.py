from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from relic.policy.attention.kinds import AttentionBackend, SinkKind
from relic.policy.memory.config import PositionKind, TransformerConfig
from relic.policy.memory.cpu.step import attend_step, fits_step
from relic.policy.memory.cpu.step_layer_kernel import multiply_columns
from relic.policy.memory.positions import rotate, rotation
from relic.policy.memory.transformer import Transformer

HEAD_DIMS = [4, 8, 12, 16, 20, 24, 32, 64, 80]
SLOTS = 3000
USED = np.array([SLOTS, 1, 4, 1717, 30])
SLOT = np.array([70, 0, 3, 1716, 11])


def made(heads=3, head_dim=32, dtype=torch.float32):
    """Return a step of rows of very different lengths; NaN stands beyond them."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(5, 3 * heads * head_dim, generator=generator)
    cache = torch.randn(2, 5, heads, SLOTS, head_dim, generator=generator)
    for row, end in enumerate(USED):
        cache[:, row, :, end:] = float("nan")
    return qkv, cache.to(dtype)


def attended(qkv, cache, factor=None, *, rows=slice(None), keeps=True):
    out = torch.empty(len(qkv[rows]), qkv.shape[1] // 3)
    cache = cache[:, rows]
    turn = None if factor is None else factor[rows].numpy()
    attend_step(qkv[rows], turn, cache, SLOT[rows], USED[rows], keeps=keeps, out_NE=out)
    return out


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_each_row_writes_its_slot_and_reads_its_own(head_dim, rotary, dtype):
    qkv, cache = made(head_dim=head_dim, dtype=dtype)
    factor = rotation(torch.tensor([0, 3, 900, 17, 2]), head_dim, 100.0) if rotary else None
    q, k, v = qkv.unflatten(1, (3, 3, head_dim)).unbind(1)
    if factor is not None:
        q, k = (rotate(x, factor[:, None]) for x in (q, k))
    expected = cache.clone()
    for row, slot in enumerate(SLOT):
        expected[0, row, :, slot], expected[1, row, :, slot] = k[row], v[row]
    out = attended(qkv, cache, factor)
    near = 1e-6 if dtype is torch.float32 else 2**-8  # a rotation may round to the next number
    torch.testing.assert_close(cache, expected, equal_nan=True, atol=1e-6, rtol=near)
    if factor is None:
        assert torch.equal(cache.nan_to_num(9.0), expected.nan_to_num(9.0))
    for row, end in enumerate(USED):
        key, value = cache[:, row, :, :end].float()
        seen = F.scaled_dot_product_attention(q[row, :, None], key, value)
        torch.testing.assert_close(out[row], seen.flatten(), atol=1e-5, rtol=1e-5)


def test_half_precision_is_rounded_as_pytorch_rounds():
    infinite = [float("inf"), -float("inf"), float("nan")]
    special = [0.0, -0.0, *infinite, 3.4e38, 1e-45, 1.00390625, -1.01171875]
    number = torch.cat([torch.tensor(special), torch.randn(87)])
    qkv = torch.cat([torch.zeros(96), number, number]).expand(2, -1).contiguous()
    cache = torch.zeros(2, 2, 3, 5, 32, dtype=torch.bfloat16)
    slot = np.array([1, 3])
    attend_step(qkv, None, cache, slot, slot + 1, keeps=True, out_NE=torch.empty(2, 96))
    expected = number.bfloat16().view(3, 32)
    for kept in (cache[:, 0, :, 1], cache[:, 1, :, 3]):
        for part in kept:
            # NaNs may differ in their bits.
            assert torch.equal(part.isnan(), expected.isnan())
            bits, wanted = (
                x.nan_to_num(0.5, 9.0, -9.0).view(torch.int16) for x in (part, expected)
            )
            assert torch.equal(bits, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_that_is_only_looked_at_leaves_the_cache_as_it_was(dtype):
    qkv, cache = made(dtype=dtype)
    before = cache.clone()
    looked = attended(qkv, cache, keeps=False)
    assert torch.equal(cache.nan_to_num(9.0), before.nan_to_num(9.0))
    assert torch.equal(looked, attended(qkv, cache))


def test_large_scores_do_not_overflow():
    qkv, cache = made()
    out = attended(1000 * qkv, cache)
    score = (1000 * qkv[0, :96].view(3, 1, 32) * cache[0, 0]).sum(-1)
    expected = cache[1, 0][torch.arange(3), score.argmax(-1)]
    torch.testing.assert_close(out[0], expected.flatten(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_results_depend_neither_on_threads_nor_on_other_rows(threads, count):
    qkv, cache = made()
    threads(1)
    alone = [attended(qkv, cache, rows=slice(n, n + 1)) for n in range(5)]
    threads(count)
    assert torch.equal(attended(qkv, cache), torch.cat(alone))


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (8, 3), (21, 24), (96, 64)])
def test_products_of_rows_that_lie_side_by_side(outputs, inputs):
    weight, x, out = torch.randn(outputs, inputs), torch.randn(inputs, 16), torch.empty(outputs, 16)
    multiply_columns(weight.numpy(), x.numpy(), out.numpy())
    torch.testing.assert_close(out.double(), weight.double() @ x.double(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("sizes", [{"width": 24, "mlp_width": 21}, {"width": 512}])
@torch.no_grad()
def test_many_rows_in_small_layers_and_large_ones(threads, sizes, count):
    threads(count)
    model = Transformer(TransformerConfig(num_layers=2, num_heads=2, **sizes), max_episode_steps=9)
    x, starts = torch.randn(37, 3, model.width), torch.rand(37, 3) < 0.3
    expected, state = model(x, starts), model.initial_state(37, 9)
    for t in range(3):
        y = model.step(x[:, t], starts[:, t], state)
        torch.testing.assert_close(y, expected[:, t], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [SinkKind.NONE, SinkKind.TOKEN, SinkKind.KV])
@pytest.mark.parametrize("limit", [{}, {"attention_window": 7}, {"inter_episode_attention": False}])
@pytest.mark.parametrize("head_dim", [16, 24, 32])
def test_every_cached_way_equals_the_full_pass(check_memory, kind, limit, head_dim):
    sizes = {"num_layers": 2, "num_heads": 2, "width": 2 * head_dim, "mlp_width": 24}
    check_memory(Transformer(TransformerConfig(**sizes, sink=kind, **limit), max_episode_steps=60))


VARIANTS = [
    {"rotate_sink_query": False},
    {"drop_first": 11},
    {"attention_window": 7, "num_sinks": 3},
    {"episode_position": PositionKind.LEARNED},
    {"reset_position": False, "max_positions": 50},
    {"in_episode_position": PositionKind.ROPE, "episode_position": PositionKind.NONE},
    {
        "in_episode_position": PositionKind.ROPE,
        "episode_position": PositionKind.LEARNED,
        "reset_position": False,
        "inter_episode_attention": False,
    },
    {"in_episode_position": PositionKind.NONE, "episode_position": PositionKind.NONE},
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_steps_equal_those_of_pytorch(variant, masked):
    config = TransformerConfig(num_layers=3, num_heads=2, width=24, mlp_width=21, **variant)
    ours = Transformer(config, max_episode_steps=60)
    for parameter in ours.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    sdpa = replace(config, attention_backend=AttentionBackend.SDPA)
    theirs = Transformer(sdpa, max_episode_steps=60)
    theirs.load_state_dict(ours.state_dict())
    states = [model.initial_state(4, 40) for model in (ours, theirs)]
    mask = torch.tensor([[1.0, 0.0, 2.0], [1, 1, 1], [0, 0, 0], [2, 1, 0]]) if masked else None
    for state in states:
        state.set_depth_mask(mask)
    for t in range(40):
        x, starts = torch.randn(4, 24), torch.rand(4) < 0.15
        given = x.clone()
        assert fits_step(x, states[0])
        assert not fits_step(x, states[1])
        for write in (False, True):
            y, expected = (
                model.step(x, starts, state, write=write)
                for model, state in zip((ours, theirs), states, strict=True)
            )
            torch.testing.assert_close(y, expected, atol=2e-5, rtol=2e-5, msg=f"step {t}")
        assert torch.equal(x, given), "a step must not write what it was given"
        mine, other = (state.state_dict() for state in states)
        for fact in ("lengths", "segment_steps", "in_episode", "episode"):
            assert torch.equal(mine[fact], other[fact])


def test_what_fits():
    config = TransformerConfig(num_heads=2, width=16, num_layers=1, mlp_width=8)
    x = torch.zeros(1, 16)

    def state_of(config, dtype=torch.float32):
        return Transformer(config, max_episode_steps=9).initial_state(1, 9, dtype=dtype)

    assert fits_step(x, state_of(config))
    assert not fits_step(x, state_of(replace(config, width=12)))
    assert fits_step(x, state_of(config, torch.bfloat16))
    assert not fits_step(x, state_of(config, torch.float16))
    assert not fits_step(x.double(), state_of(config))
    fixed = state_of(config)
    fixed.fixed_slots = 4
    assert not fits_step(x, fixed)
