"""Fine-tuning a ViT for object visibility, with a tiny one."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from envs.objectnav.goals import GOAL_SEMANTIC
from relic.policy.encoders.config import EncoderConfig, VisualKind, VitConfig
from relic.policy.encoders.images import ImageEncoder, ImageSpec, load_pretrained
from relic.policy.encoders.vit import VisionTransformer
from relic.pretraining import pictures as pictures_module
from relic.pretraining.finetune_vit import (
    FinetuneSettings,
    VisibilityNetwork,
    draw_labelled,
    finetune,
    main,
    score,
)
from relic.pretraining.pictures import label_pictures
from relic.pretraining.pretrain import dice_loss

TINY = VitConfig(width=48, depth=2, heads=3, patch=8, image_size=56)
FLAGS = [f"--vit-{k}={v}" for k, v in
         {"width": 48, "depth": 2, "heads": 3, "patch": 8, "image-size": 56}.items()]  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(3)
    vit = VisionTransformer(width=48, depth=2, heads=3, patch=8, image_size=56)
    torch.save({"model": vit.state_dict()}, tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


def test_visibility_is_more_than_ten_pixels_of_the_whole_picture(monkeypatch):
    seen = []
    draw = pictures_module.draw_images

    def remember(*arguments):
        images, pitch_B = draw(*arguments)
        seen.append(images["semantic"].copy())
        return images, pitch_B

    monkeypatch.setattr(pictures_module, "draw_images", remember)
    pictures = label_pictures(60, size="small", scale="real", resolution=64, seed=5, per_house=20)
    semantic = np.concatenate(seen)
    counts = np.array(
        [[(image == GOAL_SEMANTIC + g).sum() for g in range(20)] for image in semantic]
    )
    assert np.array_equal(pictures.visible_BG, counts > 10)
    assert 0 < ((counts > 0) & (counts <= 10)).sum()


def test_dice_loss_is_the_formula():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(7, 3)), rng.integers(0, 2, (7, 3))
    losses = []
    for g in range(3):
        chance = [1 / (1 + np.exp(-x)) for x in logits[:, g]]
        overlap = sum(c * t for c, t in zip(chance, target[:, g], strict=True))
        total = sum(c * c for c in chance) + sum(target[:, g])
        losses.append(1 - (2 * overlap + 1) / (total + 1))
    got = dice_loss(torch.from_numpy(logits), torch.from_numpy(target).double())
    assert float(got) == pytest.approx(np.mean(losses))


def test_a_tiny_vit_learns_and_is_read_back(checkpoint, tmp_path):
    settings = FinetuneSettings(
        size="small", resolution=64, pictures=600, batch=32, head_epochs=5, epochs=6, lr=1e-3,
        vit=TINY,
    )  # fmt: skip
    said = []
    scores = finetune(checkpoint, tmp_path / "out", settings, say=said.append)
    assert len(scores) == 7
    losses = [s.loss for s in scores]
    assert min(losses[1:]) < losses[0] - 0.02, losses
    assert "finds" in said[-1]
    record = json.loads((tmp_path / "out" / "vit.json").read_text())
    assert [s["loss"] for s in record["scores"]] == losses
    config = EncoderConfig(visual=VisualKind.VIT, vit=TINY)
    encoder = ImageEncoder(config, ImageSpec("colour", 64, 64, 3))
    load_pretrained(encoder, tmp_path / "out" / "vit.safetensors")
    # The file holds the best epoch: with its head, it scores what the record says.
    network = VisibilityNetwork(encoder.backbone)
    head = load_file(tmp_path / "out" / "vit.safetensors")
    network.head.load_state_dict({"weight": head["head.weight"], "bias": head["head.bias"]})
    held_out = draw_labelled(60, size="small", scale=None, resolution=64, seed=(0, 1))
    assert score(network, held_out, 32).loss == pytest.approx(min(losses), abs=1e-5)


def test_the_command(checkpoint, tmp_path, capsys):
    wanted = [str(checkpoint), str(tmp_path / "out"), "--device=cpu", "--size=small"]
    wanted += ["--resolution=64", "--pictures=20", "--epochs=1", "--head-epochs=0", *FLAGS]
    assert main(wanted) == 0
    assert "policy.encoder.checkpoint=" in capsys.readouterr().out
    for change, message in (
        (["--pictures=3"], "pictures: must be at least 20, got 3"),
        (["--lr=0"], "lr: must be positive, got 0.0"),
        (["--vit-heads=5"], "heads: must divide width"),
        (["--vit-depth=3"], "must hold blocks.2.norm1.weight"),
        (["--resolution=4"], "resolution: must be at least 8, got 4"),
    ):
        assert main(wanted + change) == 2
        error = capsys.readouterr().err
        assert re.search(message, error), error
    assert main([str(tmp_path / "none.pth"), *wanted[1:]]) == 2
    assert "none.pth: must be a checkpoint file" in capsys.readouterr().err
