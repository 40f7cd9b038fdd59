"""Many steps at once equal the recurrences, one step at a time in double precision."""

import pytest
import torch

from relic.policy.memory.states import scan as module
from relic.policy.memory.states.scan import read_matrix, scan


def slow_scan(decay, added, h):
    steps = []
    for t in range(added.shape[1]):
        h = decay[:, t] * h + added[:, t]
        steps.append(h)
    return torch.stack(steps, dim=1)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 17, 36])
def test_a_scan_is_its_recurrence_and_so_are_its_gradients(num_steps):
    parts = [torch.rand(3, num_steps, 4), torch.randn(3, num_steps, 4), torch.randn(3, 4)]
    fast = [x.clone().requires_grad_() for x in parts]
    slow = [x.double().requires_grad_() for x in parts]
    got, want = scan(*fast), slow_scan(*slow)
    torch.testing.assert_close(got, want.float())
    weight = torch.randn_like(got)
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    for one, other in zip(fast, slow, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad.float(), rtol=1e-4, atol=1e-5)


def slow_matrix(query, key, value, log_decay, matrix, rate):
    outputs = []
    for t in range(value.shape[2]):
        k, v = key[:, :, t, :, None], value[:, :, t, None, :]
        matrix = log_decay[:, :, t, None, None].exp() * matrix
        if rate is None:
            write = v
        else:
            write = rate[:, :, t, None, None] * (v - (k * matrix).sum(2, keepdim=True))
        matrix = matrix + k * write
        outputs.append((query[:, :, t, :, None] * matrix).sum(2))
    return torch.stack(outputs, dim=2), matrix


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("num_steps", [1, 7, 29])
def test_a_matrix_is_its_recurrence_and_so_are_its_gradients(delta, num_steps, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)
    heads = 2 if delta else 1  # one for all heads
    parts = [
        torch.nn.functional.normalize(torch.randn(3, heads, num_steps, 4), dim=-1),
        torch.nn.functional.normalize(torch.randn(3, heads, num_steps, 4), dim=-1),
        torch.randn(3, 2, num_steps, 5),
        -torch.rand(3, 2, num_steps),
        torch.randn(3, 2, 4, 5),
        torch.rand(3, 2, num_steps),
    ]
    fast = [x.clone().requires_grad_() for x in parts]
    slow = [x.double().requires_grad_() for x in parts]
    got = read_matrix(*fast[:5], rate_NHT=fast[5] if delta else None)
    want = slow_matrix(*slow[:5], slow[5] if delta else None)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-5)
    weights = [torch.randn_like(x) for x in got]
    sum((x * w).sum() for x, w in zip(got, weights, strict=True)).backward()  # pyright: ignore
    sum((x * w).sum() for x, w in zip(want, weights, strict=True)).backward()  # pyright: ignore
    for one, other in zip(fast[: 5 + delta], slow, strict=False):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad.float(), rtol=1e-4, atol=1e-4)


def test_a_matrix_stays_in_float32_under_autocast():
    parts = [torch.randn(1, 2, 40, 4) for _ in range(3)]
    rest = (-torch.rand(1, 2, 40), torch.randn(1, 2, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        got = read_matrix(*parts, *rest)
    for one, other in zip(got, read_matrix(*parts, *rest), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_what_has_faded_to_nothing_harms_nothing():
    """Decays whose product is below all floats give no infinities, forward or backward."""
    parts = [torch.randn(1, 1, 40, 4).requires_grad_() for _ in range(3)]
    log_decay = torch.full((1, 1, 40), -60.0).requires_grad_()
    read, matrix = read_matrix(*parts, log_decay, torch.randn(1, 1, 4, 4))
    (read.sum() + matrix.sum()).backward()
    assert read.isfinite().all()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (*parts, log_decay))
