"""Compiled norms and gates of many steps against their formulas in float64."""

import pytest
import torch
import torch.nn.functional as F

from relic.policy.memory.blocks import NORM_EPS
from relic.policy.memory.cpu import layers
from relic.policy.memory.cpu.layers import RMSNorm, gated

SHAPES = [(2, 120, 96), (1, 600, 64), (3, 77, 100)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _close(ours, theirs):
    torch.testing.assert_close(ours.double(), theirs, atol=3e-6 * theirs.abs().max().item(), rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_norm_and_its_gradients(shape, size):
    norm = RMSNorm(shape[-1], eps=NORM_EPS)
    torch.nn.init.normal_(norm.weight, 1.0, 0.3)
    x = (size * torch.randn(shape)).requires_grad_()
    grad = torch.randn(shape)
    assert layers.fits(x)
    out = norm(x)
    out.backward(grad)
    x64 = x.detach().double().requires_grad_()
    weight64 = norm.weight.detach().double().requires_grad_()
    expected = x64 / (x64.square().mean(-1, keepdim=True) + NORM_EPS).sqrt() * weight64
    expected.backward(grad.double())
    _close(out.detach(), expected.detach())
    _close(x.grad, x64.grad)
    _close(norm.weight.grad, weight64.grad)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_gate_and_its_gradient(shape, size):
    x = (size * torch.randn(*shape[:2], 2 * shape[2])).requires_grad_()
    grad = torch.randn(shape)
    assert layers.fits(x)
    out = gated(x)
    out.backward(grad)
    x64 = x.detach().double().requires_grad_()
    gate, up = x64.chunk(2, dim=-1)
    expected = F.gelu(gate, approximate="tanh") * up
    expected.backward(grad.double())
    _close(out.detach(), expected.detach())
    _close(x.grad, x64.grad)


def test_inputs_of_any_strides_give_the_same():
    norm = RMSNorm(64, eps=NORM_EPS)
    wide, turned = torch.randn(2, 200, 130), torch.randn(200, 2, 64).transpose(0, 1)
    for x in (wide[..., 2:66], turned):
        _close(norm(x).detach(), torch.nn.RMSNorm(64, eps=NORM_EPS)(x).detach().double())
    _close(gated(wide[..., 1:129]), gated(wide[..., 1:129].contiguous()).double())


def test_threads_change_nothing():
    norm, x = RMSNorm(64, eps=NORM_EPS), torch.randn(5, 200, 64)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            norm.weight.grad = None
            own = x.clone().requires_grad_()
            (gated(norm(own)) * x[..., :32]).sum().backward()
            results.append((own.grad, norm.weight.grad))
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_nan_is_not_hidden():
    x = torch.randn(2, 200, 64)
    x[1, 7, 3] = float("nan")
    for function in (RMSNorm(64, eps=NORM_EPS), gated):
        out = function(x)
        assert out[1, 7].isnan().any()
        assert out[0].isfinite().all()


@pytest.mark.parametrize("shape", [(64,), (4, 64), (2, 3, 64)])
def test_few_numbers_stay_with_pytorch(shape):
    x = torch.randn(shape)
    assert not layers.fits(x)
    _close(gated(x), (F.gelu(x[..., :32].double(), approximate="tanh") * x[..., 32:].double()))
    assert not layers.fits(torch.randn(2, 600, 64).double())
