"""Linear layers by oneDNN against PyTorch's own, and against float64."""

import pytest
import torch
import torch.nn.functional as F

from relic.policy import linear as module
from relic.policy.linear import Linear, linear


def _layer(inputs, outputs, *, bias):
    torch.manual_seed(0)
    return Linear(inputs, outputs, bias=bias)


@pytest.mark.parametrize("leading", [(2048,), (4, 700), (1, 3, 800)])
@pytest.mark.parametrize(("inputs", "outputs"), [(96, 288), (192, 96), (96, 96)])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_products_in_float64(leading, inputs, outputs, bias):
    layer = _layer(inputs, outputs, bias=bias)
    x = torch.randn(*leading, inputs, requires_grad=True)
    weight = torch.randn(*leading, outputs)
    assert module.pays(x, layer.weight), "the case is too small to meet oneDNN"
    out = layer(x)
    (out * weight).sum().backward()
    x64, w64 = x.detach().double(), layer.weight.detach().double()
    expected = torch.einsum("...i,oi->...o", x64, w64)
    grads = [
        (x.grad, torch.einsum("...o,oi->...i", weight.double(), w64)),
        (layer.weight.grad, torch.einsum("...o,...i->oi", weight.double(), x64)),
    ]
    if bias:
        expected += layer.bias.detach().double()
        grads.append((layer.bias.grad, weight.double().flatten(0, -2).sum(0)))
    for ours, theirs in [(out.detach(), expected), *grads]:
        scale = theirs.abs().max()
        torch.testing.assert_close(ours.double() / scale, theirs / scale, atol=3e-6, rtol=0)


def test_inputs_of_any_strides_give_the_same():
    layer = _layer(96, 288, bias=True)
    x = torch.randn(2, 96, 1024).transpose(1, 2)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    wide = torch.randn(2, 1024, 200)[..., :96].requires_grad_()
    layer(wide).square().sum().backward()
    assert layer.weight.grad is not None
    ours = layer.weight.grad.clone()
    layer.weight.grad = None
    F.linear(wide, layer.weight, layer.bias).square().sum().backward()
    torch.testing.assert_close(ours, layer.weight.grad, rtol=1e-4, atol=1e-3)


def test_gradients_are_made_only_where_they_are_asked_for():
    layer = _layer(96, 288, bias=True).requires_grad_(False)
    x = torch.randn(2048, 96, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None
    x = torch.randn(2048, 96)
    layer.requires_grad_(True)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert x.grad is None


@pytest.mark.parametrize("shape", [(0, 96), (1, 96), (96,)])
def test_few_or_no_inputs_stay_with_pytorch(shape):
    layer = _layer(96, 288, bias=True)
    x = torch.randn(shape)
    assert not module.pays(x, layer.weight)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_other_types_and_autocast_stay_with_pytorch():
    x, weight = torch.randn(2048, 96), torch.randn(288, 96)
    assert not module.pays(x.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype is torch.bfloat16
