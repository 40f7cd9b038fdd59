import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces

from relic.policy.encoders.config import EncoderConfig, VisualKind, VitConfig
from relic.policy.encoders.images import (
    ImageEncoder,
    ImageSpec,
    image_spec,
    lean_dtype,
    load_image_encoder,
    load_pretrained,
    multiplies_bfloat16,
    save_image_encoder,
)
from relic.policy.weights import CheckpointError

COLOUR = ImageSpec("colour", 32, 32, 3)
TINY_VIT = VitConfig(width=24, depth=2, heads=3, patch=8, image_size=32)
KINDS = ["small_cnn", "impala", "resnet18", "vit"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _config(kind, **fields):
    return EncoderConfig(visual=VisualKind(kind), vit=TINY_VIT, channels=8, **fields)


def _pictures(*shape, spec=COLOUR):
    return torch.randint(0, 256, (*shape, spec.height, spec.width, spec.channels)).byte()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (128, 128), (48, 64)])
def test_features_have_the_promised_shape(kind, size):
    spec = ImageSpec("colour", *size, 3)
    encoder = ImageEncoder(_config(kind), spec)
    with torch.no_grad():
        features = encoder(_pictures(2, 1, spec=spec))
    assert features.shape == (2, 1, encoder.num_features)
    assert features.dtype == torch.float32
    compressed = ImageEncoder(_config(kind, feature_width=10), spec)
    with torch.no_grad():
        assert compressed(_pictures(2, spec=spec)).shape == (2, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_slices_equal_one_pass_in_values_and_gradients(kind):
    whole = ImageEncoder(_config(kind, slice_size=64), COLOUR)
    pictures, weight = _pictures(5, 2), torch.randn(5, 2, whole.num_features)
    sliced = ImageEncoder(_config(kind, slice_size=3), COLOUR)
    sliced.load_state_dict(whole.state_dict())
    features = [encoder(pictures) for encoder in (sliced, whole)]
    torch.testing.assert_close(*features, atol=1e-5, rtol=1e-5)
    for part in features:
        (part * weight).sum().backward()
    for ours, theirs in zip(sliced.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 5, 70])
def test_frozen_features_are_those_of_convolutions_written_as_products(count):
    """With more pictures than are encoded at once, too; each layer is patches times weights."""
    encoder = ImageEncoder(_config("small_cnn", feature_width=10), COLOUR)
    pictures = _pictures(count)
    x = pictures.double().movedim(-1, 1) / 255
    for conv in (m for m in encoder.backbone.modules() if isinstance(m, torch.nn.Conv2d)):
        patches = F.unfold(x, conv.kernel_size, padding=conv.padding, stride=2)
        product = conv.weight.double().flatten(1) @ patches + conv.bias.double()[:, None]
        side = (x.shape[-1] + 1) // 2
        x = product.clamp(min=0).unflatten(-1, (side, side))
    linear = encoder.compress[0]
    expected = (x.flatten(1) @ linear.weight.double().T + linear.bias.double()).clamp(min=0)
    features = encoder.frozen(pictures, torch.float32)
    torch.testing.assert_close(features.double(), expected, atol=1e-5, rtol=1e-5)


def test_features_in_half_precision_are_near_the_full_ones_and_the_same_in_any_company():
    encoder = ImageEncoder(_config("small_cnn", feature_width=10), COLOUR)
    pictures = _pictures(70)
    full = encoder.frozen(pictures, torch.float32)
    half = encoder.frozen(pictures, torch.float16)
    assert half.dtype == torch.float16
    # A bfloat16 keeps 8 bits; several layers round.
    torch.testing.assert_close(half.float(), full, atol=0.02 * full.max().item(), rtol=0.02)
    for size in (1, 7, 32):
        parts = [encoder.frozen(part, torch.float16) for part in pictures.split(size)]
        assert torch.equal(torch.cat(parts), half)


def test_only_what_is_kept_in_half_precision_is_computed_so():
    assert lean_dtype(torch.float32, "cpu") is None
    assert lean_dtype(torch.float32, "cuda") is None
    assert lean_dtype(torch.float16, "cuda") == ("cuda", torch.float16)
    lean = ("cpu", torch.bfloat16) if multiplies_bfloat16() else None
    assert lean_dtype(torch.float16, "cpu") == lean


def test_recomputing_slices_keeps_one_slice_of_activations():
    """Bytes saved for the backward pass, counted by the hook that sees every saved tensor."""
    kept = {}
    for size in (4, 32):
        encoder = ImageEncoder(_config("small_cnn", slice_size=size), COLOUR)
        parameters = {p.data_ptr() for p in encoder.parameters()}
        total = 0

        def count(tensor, parameters=parameters):
            nonlocal total
            total += 0 if tensor.data_ptr() in parameters else tensor.nbytes
            return tensor

        pictures = _pictures(32)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            encoder(pictures)
        kept[size] = total
    # What is left of slices are the uint8 pictures themselves.
    assert kept[4] <= 2 * 32 * 32 * 32 * 3
    assert kept[32] > 5 * kept[4]


@pytest.mark.parametrize("kind", ["small_cnn", "impala", "resnet18"])
def test_the_fused_optimiser_learns_as_the_plain_one(kind):
    """The fused Adam reads memory as it lies, so layouts of weight and gradient must agree."""
    learned = []
    for fused in (False, True):
        torch.manual_seed(0)
        encoder = ImageEncoder(_config(kind), COLOUR)
        for parameter in encoder.parameters():
            # Gradients that are views of one flat buffer, as a learner keeps them.
            parameter.grad = torch.zeros(parameter.numel()).view_as(parameter)
        optimiser = torch.optim.Adam(encoder.parameters(), lr=0.01, fused=fused)
        pictures = _pictures(4)
        for _ in range(2):
            optimiser.zero_grad(set_to_none=False)
            encoder(pictures).square().mean().backward()
            optimiser.step()
        learned.append(encoder(pictures))
    torch.testing.assert_close(learned[0], learned[1], atol=1e-3, rtol=1e-3)


def test_pictures_are_left_as_they_are():
    encoder = ImageEncoder(_config("small_cnn"), ImageSpec("depth", 32, 32, 1, 0.0, 10.0))
    depth = torch.rand(3, 32, 32) * 20
    before = depth.clone()
    encoder(depth)
    assert torch.equal(depth, before)


def test_colour_and_depth_are_normalised():
    colour = ImageEncoder(_config("small_cnn"), COLOUR)
    pictures = _pictures(2)
    torch.testing.assert_close(colour.normalise(pictures), pictures / 255)
    depth = ImageEncoder(_config("small_cnn"), ImageSpec("depth", 32, 32, 1, 0.5, 4.5))
    metres = torch.tensor([0.0, 0.5, 2.5, 4.5, float("inf")]).reshape(5, 1, 1, 1)
    scaled = depth.normalise(metres.expand(5, 32, 32, 1))
    assert scaled[:, 0, 0, 0].tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_class_pictures_are_embedded():
    spec = ImageSpec("classes", 32, 32, 1, 0.0, 5.0)
    encoder = ImageEncoder(_config("small_cnn"), spec)
    classes = torch.randint(0, 6, (2, 32, 32)).short()
    renamed = torch.tensor([1, 0, 2, 3, 4, 5])[classes.long()].short()
    first, second = encoder(classes), encoder(renamed)
    assert not torch.allclose(first, second)
    with torch.no_grad():
        encoder.classes.weight[[0, 1]] = encoder.classes.weight[[1, 0]]
    torch.testing.assert_close(encoder(renamed), first)


def test_auto_follows_the_size():
    assert ImageEncoder(EncoderConfig(), ImageSpec("colour", 64, 64, 3)).kind.value == "small_cnn"
    assert ImageEncoder(EncoderConfig(), ImageSpec("colour", 256, 256, 3)).kind.value == "resnet18"


@pytest.mark.parametrize(
    ("space", "role", "expected"),
    [
        (spaces.Box(0, 255, (64, 48, 3), np.uint8), "colour", ImageSpec("colour", 64, 48, 3)),
        (spaces.Box(0, 255, (64, 48), np.uint8), "colour", ImageSpec("colour", 64, 48, 1)),
        (spaces.Box(0, np.inf, (64, 48, 1)), "depth", ImageSpec("depth", 64, 48, 1, 0.0, 10.0)),
        (spaces.Box(0.5, 5.0, (64, 48)), "depth", ImageSpec("depth", 64, 48, 1, 0.5, 5.0)),
        (
            spaces.Box(0, 40, (64, 48), np.int16),
            "classes",
            ImageSpec("classes", 64, 48, 1, 0.0, 40.0),
        ),
        (
            spaces.Box(0, 255, (7, 7, 3), np.uint8),
            "classes",
            ImageSpec("classes", 7, 7, 3, 0.0, 255.0),
        ),
        (
            spaces.Box(-3.0, 5.0, (64, 48)),
            "numbers",
            ImageSpec("numbers", 64, 48, 1, scale=((1.0, 4.0),)),
        ),
        (
            spaces.Box(-np.inf, 5.0, (64, 48)),
            "numbers",
            ImageSpec("numbers", 64, 48, 1, scale=((0.0, 1.0),)),
        ),
    ],
)
def test_spaces_and_roles_say_what_pictures_hold(space, role, expected):
    assert image_spec("camera", space, role, depth_max=10.0) == expected


@pytest.mark.parametrize(
    ("space", "role"),
    [
        (spaces.Box(0, 300, (64, 64), np.int16), "colour"),
        (spaces.Box(0.0, 1.0, (64, 64)), "colour"),
        (spaces.Box(0.0, 1.0, (64, 64)), "classes"),
        (spaces.Box(-32768, 32767, (64, 64, 2), np.int16), "classes"),
        (spaces.Box(11.0, 12.0, (64, 64)), "depth"),
    ],
)
def test_roles_that_pictures_cannot_have_are_named(space, role):
    with pytest.raises(ValueError, match=r"observation_space\['camera'\]: .* must .*kinds.camera"):
        image_spec("camera", space, role, depth_max=10.0)


def test_kinds_that_do_not_suit_are_named():
    with pytest.raises(ValueError, match=r"encoder.visual: vit must see colour.*depth of 1"):
        ImageEncoder(_config("vit"), ImageSpec("depth", 64, 64, 1, 0, 10))
    with pytest.raises(ValueError, match=r"encoder.visual: resnet18 .*32 pixels.*got 16 x 64"):
        ImageEncoder(_config("resnet18"), ImageSpec("colour", 16, 64, 3))
    with pytest.raises(ValueError, match=r"ImageEncoder.forward: .*\(32, 32, 3\).*got \(2, 64"):
        ImageEncoder(_config("small_cnn"), COLOUR)(torch.zeros(2, 64, 64, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_is_saved_and_plugged_in(kind, tmp_path):
    encoder = ImageEncoder(_config(kind, feature_width=7), COLOUR)
    save_image_encoder(tmp_path / "encoder", encoder)
    loaded = load_image_encoder(tmp_path / "encoder")
    pictures = _pictures(2)
    assert torch.equal(loaded(pictures), encoder(pictures))
    other = ImageEncoder(_config(kind, feature_width=7), COLOUR)
    load_pretrained(other, tmp_path / "encoder")
    assert torch.equal(other(pictures), encoder(pictures))


def test_encoders_that_cannot_be_plugged_in_are_named(tmp_path):
    directory = tmp_path / "encoder"
    encoder = ImageEncoder(_config("small_cnn"), COLOUR)
    with pytest.raises(FileNotFoundError, match=r"encoder: must be a directory.*found nothing"):
        load_pretrained(encoder, directory)
    save_image_encoder(directory, encoder)
    with pytest.raises(CheckpointError, match=r"encoder.visual must be impala,.*got small"):
        load_pretrained(ImageEncoder(_config("impala"), COLOUR), directory)
    larger = ImageEncoder(_config("small_cnn"), ImageSpec("colour", 64, 64, 3))
    with pytest.raises(CheckpointError, match=r"pictures must be .*64.*got .*32"):
        load_pretrained(larger, directory)
    narrow = ImageEncoder(_config("small_cnn", feature_width=3), COLOUR)
    with pytest.raises(CheckpointError, match=r"encoder.feature_width must be 3,.*got None"):
        load_pretrained(narrow, directory)
    description = json.loads((directory / "encoder.json").read_text())
    del description["sha256"]
    description["config"]["visual_kind"] = "vit"
    (directory / "encoder.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"encoder.json: config.visual_kind.*visual"):
        load_image_encoder(directory)
