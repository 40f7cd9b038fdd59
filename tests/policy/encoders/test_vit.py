import argparse
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from relic.policy.encoders.vit import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VisionTransformer,
    read_checkpoint,
)
from relic.policy.weights import CheckpointError, load_weights

SIZES = {"width": 24, "depth": 2, "heads": 3, "patch": 8, "image_size": 32}


@pytest.fixture
def vit():
    torch.manual_seed(0)
    model = VisionTransformer(**SIZES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def _norm(x, weight, bias):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * weight + bias


def _naive(state, pixels):
    """The published forward pass of one normalised picture (side, side, 3), written with loops."""
    s = {k: v.double().numpy() for k, v in state.items()}
    width, patch, heads = SIZES["width"], SIZES["patch"], SIZES["heads"]
    tokens = [s["cls_token"][0, 0]]
    for top in range(0, SIZES["image_size"], patch):
        for left in range(0, SIZES["image_size"], patch):
            square = pixels[top : top + patch, left : left + patch].transpose(2, 0, 1)
            kernel = s["patch_embed.proj.weight"].reshape(width, -1)
            tokens.append(kernel @ square.reshape(-1) + s["patch_embed.proj.bias"])
    x = np.array(tokens) + s["pos_embed"][0]
    size = width // heads
    for block in range(SIZES["depth"]):
        p = f"blocks.{block}."
        y = _norm(x, s[p + "norm1.weight"], s[p + "norm1.bias"])
        qkv = y @ s[p + "attn.qkv.weight"].T + s[p + "attn.qkv.bias"]
        q, k, v = qkv[:, :width], qkv[:, width : 2 * width], qkv[:, 2 * width :]
        out = np.zeros_like(x)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(len(x)):
                score = np.exp([q[i, part] @ k[j, part] / math.sqrt(size) for j in range(len(x))])
                out[i, part] = (score / score.sum()) @ v[:, part]
        x = x + out @ s[p + "attn.proj.weight"].T + s[p + "attn.proj.bias"]
        y = _norm(x, s[p + "norm2.weight"], s[p + "norm2.bias"])
        y = y @ s[p + "mlp.fc1.weight"].T + s[p + "mlp.fc1.bias"]
        y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        x = x + y @ s[p + "mlp.fc2.weight"].T + s[p + "mlp.fc2.bias"]
    return _norm(x, s["norm.weight"], s["norm.bias"])[0]


def _prepare(picture):
    """Resize the shorter side with Pillow, cut out the centre, normalise: (side, side, 3)."""
    side = SIZES["image_size"]
    target = round(side * 256 / 224)
    height, width, _ = picture.shape
    scale = target / min(height, width)
    size = (int(width * scale), int(height * scale))
    channels = [
        np.asarray(Image.fromarray(picture[..., c]).resize(size, Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    resized = np.stack(channels, -1).clip(0, 1)
    top, left = round((resized.shape[0] - side) / 2), round((resized.shape[1] - side) / 2)
    crop = resized[top : top + side, left : left + side]
    return (crop - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)


@pytest.mark.parametrize("shape", [(48, 48), (24, 24), (40, 64)])
def test_forward_agrees_with_a_naive_one(vit, shape):
    pictures = torch.rand(2, 3, *shape)
    with torch.no_grad():
        ours = vit(pictures)
    for picture, cls in zip(pictures, ours, strict=True):
        pixels = _prepare(picture.movedim(0, -1).numpy())
        expected = torch.from_numpy(_naive(vit.state_dict(), pixels)).float()
        torch.testing.assert_close(cls, expected, atol=2e-4, rtol=1e-4)


def test_position_embeddings_tell_places_apart(vit):
    pictures = torch.rand(1, 3, 37, 37)
    swapped = pictures.flip(-1)
    with torch.no_grad():
        assert (vit(pictures) - vit(swapped)).abs().max() > 1e-3
        vit.pos_embed[:, 1:] = vit.pos_embed[:, 1:2]
        # Without positions, attention takes patches as a set: turning whole rows of them about
        # must not matter.
        vit.preprocess = lambda images: images
        squares = torch.rand(1, 3, 4, 8, 32)
        stacked = squares.reshape(1, 3, 32, 32)
        turned = squares.flip(2).reshape(1, 3, 32, 32)
        torch.testing.assert_close(vit(stacked), vit(turned), atol=1e-5, rtol=0)


def test_the_default_size_is_vit_b16():
    with torch.device("meta"):
        model = VisionTransformer()
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    assert shapes["pos_embed"] == (1, 197, 768)
    assert shapes["patch_embed.proj.weight"] == (768, 3, 16, 16)
    assert shapes["blocks.11.attn.qkv.weight"] == (2304, 768)
    assert shapes["blocks.11.mlp.fc1.weight"] == (3072, 768)
    assert len(shapes) == 4 + 12 * 12 + 2


class _Harmful:
    def __reduce__(self):
        return (print, ("executed",))


class _Settings:
    """What a checkpoint of a training program keeps beside its weights."""

    def __init__(self, lr):
        self.lr = lr


@pytest.mark.parametrize(
    "wrap", ["plain", "model", "module", "safetensors", "finetuned", "settings", "legacy"]
)
def test_published_layouts_load(vit, tmp_path, capsys, wrap):
    state = vit.state_dict()
    extra = {"decoder_embed.weight": torch.zeros(2, 2), "mask_token": torch.zeros(1, 1, 2)}
    path = tmp_path / ("vit.safetensors" if wrap == "safetensors" else "vit.pth")
    if wrap == "plain":
        torch.save({**state, **extra}, path)
    elif wrap == "model":
        # MAE keeps its command line beside the weights.
        torch.save({"model": {**state, **extra}, "args": argparse.Namespace(lr=1)}, path)
    elif wrap == "module":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    elif wrap == "finetuned":
        # A network around the ViT, with a head of its own.
        inner = {f"module.net.backbone.{k}": v for k, v in state.items()}
        head = {"module.net.classifier.weight": torch.zeros(20, 24)}
        torch.save({"epoch": 19, "state_dict": {**inner, **head}, "loss": np.float64(0.4)}, path)
    elif wrap == "settings":
        torch.save({"config": _Settings(lr=1), "model": state, "noise": _Harmful()}, path)
    elif wrap == "legacy":
        content = {"model": state, "args": argparse.Namespace(lr=1)}
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        save_file(state, path)
    other = VisionTransformer(**SIZES)
    load_weights(other, read_checkpoint(path), path)
    for key, value in other.state_dict().items():
        assert torch.equal(value, state[key])
    assert "executed" not in capsys.readouterr().out


def test_checkpoints_that_cannot_be_used_are_named(vit, tmp_path, capsys):
    path = tmp_path / "vit.pth"
    with pytest.raises(FileNotFoundError, match=r"vit\.pth"):
        read_checkpoint(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"vit.pth: must load with torch.load"):
        read_checkpoint(path)
    torch.save({"model": _Harmful()}, path)
    with pytest.raises(
        CheckpointError, match=r"vit.pth: must hold one ViT with the key 'cls_token'"
    ):
        read_checkpoint(path)
    assert "executed" not in capsys.readouterr().out
    torch.save(torch.zeros(3), path)
    with pytest.raises(CheckpointError, match="must hold a state dict"):
        read_checkpoint(path)
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"'cls_token', got 0 of them among conv1\.weight"):
        read_checkpoint(path)
    torch.save({"a.cls_token": torch.zeros(3), "b.cls_token": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"'cls_token', got 2 of them"):
        read_checkpoint(path)
    torch.save(VisionTransformer(**{**SIZES, "image_size": 64}).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"vit.pth: pos_embed must have shape \[1, 17, 24\]"):
        load_weights(vit, read_checkpoint(path), path)
    torch.save(VisionTransformer(**{**SIZES, "depth": 1}).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"vit.pth: must hold blocks.1.norm1.weight \[24\]"):
        load_weights(vit, read_checkpoint(path), path)
