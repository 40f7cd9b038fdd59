from dataclasses import replace

import numpy as np
import pytest
import torch

from relic.policy.attention.attend import attend
from relic.policy.attention.cpu.compiled import fits
from relic.policy.attention.inputs import AttentionInputs, Past, Sinks
from relic.policy.attention.kinds import AttentionBackend
from relic.policy.attention.segments import Segments

COMPILED, REFERENCE = AttentionBackend.COMPILED, AttentionBackend.REFERENCE


def inputs(num_steps, *, num_past=0, num_sinks=1, per_row=False, heads=2, head_dim=8, rows=3):
    generator = torch.Generator().manual_seed(num_steps)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    # As the transformer makes them: heads of one step side by side.
    own = [draw(rows, num_steps, heads, head_dim).transpose(1, 2) for _ in range(3)]
    sink_shape = (rows,) if per_row else ()
    sinks = [draw(*sink_shape, heads, num_sinks, head_dim) for _ in range(2)]
    past = [draw(rows, heads, num_past + 2, head_dim) for _ in range(2)]
    for slots in past:
        slots[:, :, num_past:] = float("nan")
    return own, sinks, past


def run(backend, own, sinks, past, num_past=0, sink_query=None):
    """Attend and return the output and all gradients."""
    leaves = [x.detach().clone().requires_grad_() for x in (*own, *sinks)]
    q, k, v, sink_k, sink_v = leaves
    segments = Segments(
        q.shape[0],
        q.shape[2],
        past_steps=np.full(q.shape[0], num_past),
        past_slots=num_past + 2 if num_past else 0,
    )
    out = attend(
        q,
        k,
        v,
        sinks=Sinks(sink_k, sink_v) if sink_k.shape[-2] else None,
        sink_query=sink_query,
        past=Past(*past),
        segments=segments,
        backend=backend,
    )
    weight = torch.linspace(-1, 1, out.numel()).view(out.shape)
    (out * weight).sum().backward()
    return [out.detach(), *(x.grad for x in leaves if x.grad is not None)]


@pytest.mark.parametrize("num_steps", [1, 3, 4, 21])
@pytest.mark.parametrize("num_past", [0, 5, 30])
@pytest.mark.parametrize(("num_sinks", "per_row"), [(0, False), (1, False), (3, True)])
def test_values_and_gradients_equal_the_written_out_form(num_steps, num_past, num_sinks, per_row):
    made = inputs(num_steps, num_past=num_past, num_sinks=num_sinks, per_row=per_row)
    got = run(COMPILED, *made, num_past)
    for a, b in zip(got, run(REFERENCE, *made, num_past), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 4), (3, 12), (2, 64)])
def test_any_head_size_that_is_a_multiple_of_four(heads, head_dim):
    made = inputs(37, heads=heads, head_dim=head_dim)
    for a, b in zip(run(COMPILED, *made), run(REFERENCE, *made), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


def test_sinks_scored_by_queries_of_their_own():
    made = inputs(9, num_past=4)
    query = torch.randn(made[0][0].shape)
    got = run(COMPILED, *made, 4, sink_query=query)
    for a, b in zip(got, run(REFERENCE, *made, 4, sink_query=query), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_scores_of_any_size():
    own, sinks, past = inputs(12)
    own[0] = 300 * own[0]
    for a, b in zip(run(COMPILED, own, sinks, past), run(REFERENCE, own, sinks, past), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_the_future_never_changes_the_past():
    own, sinks, past = inputs(16)
    before = run(COMPILED, own, sinks, past)[0]
    for changed in own[1:]:
        changed[:, :, 9:] = 1e4
    after = run(COMPILED, own, sinks, past)[0]
    assert torch.equal(before[:, :, :9], after[:, :, :9])


@pytest.mark.parametrize("rows", [1, 5])
def test_threads_change_nothing(rows):
    made = inputs(50, num_past=6, rows=rows, heads=4)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run(COMPILED, *made, 6)
        torch.set_num_threads(3)
        together = run(COMPILED, *made, 6)
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a, b)


def test_what_the_kernels_cannot_do_is_left_to_others():
    q = torch.zeros(2, 1, 6, 8)
    plain = AttentionInputs(q, q, q, Segments(2, 6))
    assert fits(plain)
    assert not fits(replace(plain, q=q.double()))
    assert not fits(replace(plain, q=q[..., :6]))
    assert not fits(replace(plain, window=3))
    starts = torch.zeros(2, 6, dtype=torch.bool)
    starts[:, 2] = True
    assert not fits(replace(plain, segments=Segments(2, 6, starts_NT=starts)))
    unequal = Segments(2, 6, past_steps=np.array([1, 2]), past_slots=4)
    assert not fits(replace(plain, segments=unequal))
    with pytest.raises(ValueError, match="compiled must be given float32"):
        attend(q.double(), q.double(), q.double(), backend=COMPILED)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", range(3))
def test_a_nan_is_not_hidden(bad, which):
    tensors = [torch.randn(1, 1, 40, 8) for _ in range(3)]
    tensors[which][0, 0, 20, 3] = bad
    leaves = [x.requires_grad_() for x in tensors]
    out = attend(*leaves, backend=COMPILED)
    hit = (~out.isfinite()).any(dim=-1).flatten().nonzero().flatten().tolist()
    assert hit
    # A vector of 16 keys is read as a whole: no weight times NaN is NaN, from query 16 on.
    assert hit == [20] if which == 0 else set(hit) <= set(range(16, 40))
    gradients = torch.autograd.grad(out.sum(), leaves)
    assert not all(x.isfinite().all() for x in gradients)
