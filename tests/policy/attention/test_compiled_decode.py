import numpy as np
import pytest
import torch
import torch.nn.functional as F

from relic.policy.attention.cpu.compiled import compiled_decode, fits_decode
from relic.policy.attention.kinds import SinkKind
from relic.policy.memory.config import TransformerConfig
from relic.policy.memory.transformer import Transformer

HEAD_DIMS = [4, 8, 12, 16, 20, 24, 32, 64, 80]


def made(rows=5, heads=3, slots=3000, head_dim=32):
    """Return rows of very different lengths; NaN stands beyond them."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(rows, heads, head_dim, generator=generator)
    key, value = torch.randn(2, rows, heads, slots, head_dim, generator=generator)
    used = np.array([slots, 1, 4, 1717, 30])
    for row, end in enumerate(used):
        key[row, :, end:] = float("nan")
        value[row, :, end:] = float("nan")
    return q, key, value, used


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_each_row_reads_its_own_slots(head_dim):
    q, key, value, used = made(head_dim=head_dim)
    out = compiled_decode(q, key, value, used)
    for row, end in enumerate(used):
        expected = F.scaled_dot_product_attention(
            q[row, :, None], key[row, :, :end], value[row, :, :end]
        )
        torch.testing.assert_close(out[row], expected[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [1, 2])
def test_queries_may_lie_among_keys_and_values(heads):
    _, key, value, used = made(heads=heads)
    qkv = torch.randn(5, 3, heads, 32)
    out = compiled_decode(qkv[:, 0], key, value, used)
    assert torch.equal(out, compiled_decode(qkv[:, 0].clone(), key, value, used))


def test_large_scores_do_not_overflow():
    q, key, value, used = made()
    out = compiled_decode(1000 * q, key, value, used)
    score = (1000 * q[0, :, None] * key[0]).sum(-1)
    expected = value[0][torch.arange(3), score.argmax(-1)]
    torch.testing.assert_close(out[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_results_depend_neither_on_threads_nor_on_other_rows(threads, count):
    q, key, value, used = made()
    threads(1)
    rows = [slice(n, n + 1) for n in range(5)]
    alone = [compiled_decode(q[n], key[n], value[n], used[n]) for n in rows]
    threads(count)
    together = compiled_decode(q, key, value, used)
    assert torch.equal(together, torch.cat(alone))


def test_what_fits_decode():
    assert all(fits_decode(torch.zeros(3, head_dim)) for head_dim in HEAD_DIMS)
    assert not fits_decode(torch.zeros(3, 6))
    assert not fits_decode(torch.zeros(3, 32, dtype=torch.bfloat16))


@pytest.mark.parametrize("kind", [SinkKind.NONE, SinkKind.TOKEN, SinkKind.KV])
@pytest.mark.parametrize("limit", [{}, {"attention_window": 7}, {"inter_episode_attention": False}])
@pytest.mark.parametrize("head_dim", [16, 24, 32])
def test_every_cached_way_equals_the_full_pass(check_memory, kind, limit, head_dim):
    sizes = {"num_layers": 2, "num_heads": 2, "width": 2 * head_dim, "mlp_width": 24}
    check_memory(Transformer(TransformerConfig(**sizes, sink=kind, **limit), max_episode_steps=60))
