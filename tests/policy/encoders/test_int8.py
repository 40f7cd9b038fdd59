"""Frozen features from products of bytes."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from relic.policy.encoders import images, int8
from relic.policy.encoders.config import EncoderConfig, VisualKind
from relic.policy.encoders.images import (
    ImageEncoder,
    ImageSpec,
    load_image_encoder,
    load_pretrained,
    save_image_encoder,
)
from relic.policy.weights import read_weights

COLOUR = ImageSpec("colour", 32, 32, 3)
HALF = torch.float16
native = pytest.mark.skipif(
    not int8.multiplies_bytes(), reason="this processor does not multiply bytes natively"
)


def _pictures(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)


def _encoder(*, calibrated: bool = True) -> ImageEncoder:
    torch.manual_seed(0)
    config = EncoderConfig(visual=VisualKind.SMALL_CNN, feature_width=10, frozen=True)
    encoder = ImageEncoder(config, COLOUR)
    if calibrated:
        encoder.calibrate(_pictures(70))
    return encoder


def _by_whole_numbers(encoder: ImageEncoder, pictures: torch.Tensor) -> torch.Tensor:
    """Return what the convolutions say, in float64: patches times weights, all rounded."""
    x, unit = pictures.double().movedim(-1, 1), 1 / 255
    convolutions = encoder.backbone.convolutions()
    for number, conv in enumerate(convolutions):
        weight_PK = conv.weight.double().flatten(1)
        scale_P1 = weight_PK.abs().amax(1, keepdim=True) / 127
        patches = F.unfold(x, conv.kernel_size, padding=conv.padding, stride=2)
        product = (weight_PK / scale_P1).round() @ patches * scale_P1 * unit
        side = (x.shape[-1] + 1) // 2
        x = (product + conv.bias.double()[:, None]).clamp(min=0).unflatten(-1, (side, side))
        if number < len(convolutions) - 1:
            unit = float(encoder.backbone.ranges[number]) / 255
            x = (x / unit).round().clamp(max=255)
    return x.flatten(1)


def test_calibration_sees_the_largest_activation_of_each_layer():
    encoder, pictures = _encoder(), _pictures(70)
    x, tops = pictures.float().movedim(-1, 1) / 255, []
    for conv in encoder.backbone.convolutions():
        x = conv(x).clamp(min=0).detach()
        tops.append(float(x.max()))
    torch.testing.assert_close(encoder.backbone.ranges, torch.tensor(tops))


@native
@pytest.mark.parametrize("count", [1, 5, 40])
def test_convolutions_in_bytes_are_those_of_whole_numbers(count):
    encoder, pictures = _encoder(), _pictures(count)
    found = int8.byte_cnn(encoder.backbone)(pictures)
    wanted = _by_whole_numbers(encoder, pictures).detach()
    # Where a number lies between two bytes, float32 may take the other one.
    unit = float(encoder.backbone.ranges[-1]) / 255
    assert float((found - wanted).abs().max()) < unit
    assert float((found - wanted).abs().mean()) < 0.01 * unit


@native
def test_features_are_near_the_full_ones_and_the_same_in_any_company():
    encoder, pictures = _encoder(), _pictures(70)
    assert encoder.in_bytes(HALF)
    full, half = encoder.frozen(pictures, torch.float32), encoder.frozen(pictures, HALF)
    assert half.dtype == HALF
    torch.testing.assert_close(half.float(), full, atol=0.05 * full.max().item(), rtol=0.05)
    for size in (1, 7, 32):
        parts = [encoder.frozen(part, HALF) for part in pictures.split(size)]
        assert torch.equal(torch.cat(parts), half)


def test_only_calibrated_networks_and_half_precision_use_bytes(monkeypatch):
    monkeypatch.setattr(images, "multiplies_bytes", lambda: True)
    assert _encoder().in_bytes(HALF)
    assert not _encoder().in_bytes(torch.float32)
    assert not _encoder(calibrated=False).in_bytes(HALF)
    monkeypatch.setattr(images, "multiplies_bytes", lambda: False)
    assert not _encoder().in_bytes(HALF)


@pytest.mark.parametrize("fails", ["raises", "wrong", "absent"])
def test_operators_that_are_absent_or_wrong_are_not_used(monkeypatch, fails):
    capable = {"avx512_vnni": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable, raising=False)

    def call(self, x, unit, unit_out):
        if fails == "raises":
            raise RuntimeError("Could not run 'onednn::qconv2d_pointwise'")
        if fails == "absent":
            raise AttributeError("'_OpNamespace' 'onednn' object has no attribute")
        return torch.zeros(len(x), 8, 4, 4)

    monkeypatch.setattr(int8._Layer, "__call__", call)
    monkeypatch.setattr(int8, "_packed", _unpacked)
    assert not int8.multiplies_bytes.__wrapped__()


def _unpacked(conv, unit):
    scale_P = conv.weight.detach().abs().amax((1, 2, 3)) / 127
    nothing = torch.zeros(8)
    return int8._Layer(conv.weight, scale_P, nothing, nothing, [2, 2], [1, 1])


@native
def test_changed_weights_and_ranges_are_packed_anew():
    encoder, pictures = _encoder(), _pictures(3)
    before = encoder.frozen(pictures, HALF)
    assert int8.byte_cnn(encoder.backbone) is int8.byte_cnn(encoder.backbone)
    with torch.no_grad():
        encoder.backbone.convolutions()[0].weight.mul_(0.5)
    assert not torch.equal(encoder.frozen(pictures, HALF), before)


@native
def test_copies_and_pickles_compute_the_same():
    encoder, pictures = _encoder(), _pictures(3)
    wanted = encoder.frozen(pictures, HALF)
    with torch.inference_mode():
        made_for_inference = copy.deepcopy(encoder)
    copies = (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder)), made_for_inference)
    for other in copies:
        assert torch.equal(other.frozen(pictures, HALF), wanted)


def test_ranges_are_saved_and_older_files_without_them_stay_as_they_were(tmp_path):
    encoder = _encoder()
    save_image_encoder(tmp_path, encoder)
    policy_own = _encoder(calibrated=False)
    load_pretrained(policy_own, tmp_path)
    assert torch.equal(policy_own.backbone.ranges, encoder.backbone.ranges)
    tensors = read_weights(tmp_path / "encoder.safetensors")
    tensors.pop("backbone.ranges")
    save_file(tensors, tmp_path / "encoder.safetensors")
    older = load_image_encoder(tmp_path)
    assert torch.equal(older.backbone.ranges, torch.zeros_like(encoder.backbone.ranges))
    assert not older.in_bytes(HALF)
    pictures = _pictures(2)
    assert torch.equal(
        older.frozen(pictures, torch.float32), encoder.frozen(pictures, torch.float32)
    )
