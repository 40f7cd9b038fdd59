"""Fine-tunes a ViT such as VC-1 on pictures of train houses.

`python -m relic.pretraining.finetune_vit` runs it. As in the paper: a linear head on the class
token says which of the 20 categories are in view; first the head learns alone, then everything,
under a Dice loss, and the epoch that is best on held-out pictures is kept. Those are drawn anew of
2^20 houses. The result is a file that `policy.encoder.checkpoint` may name.

Shape suffixes: B pictures, G goal categories, E width.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch

from envs.houses.furniture.goal_objects import SCALES
from envs.houses.generation.floorplan import SIZES
from relic.files import write_json
from relic.policy.encoders.config import VitConfig
from relic.policy.encoders.vit import VisionTransformer, read_checkpoint
from relic.policy.weights import load_weights, write_weights
from relic.pretraining.pretrain import dice_loss
from relic.pretraining.visibility import (
    Labelled,
    Score,
    VisibilityNetwork,
    batches,
    draw_labelled,
    score,
)
from relic.run.progress import tell

WEIGHTS_FILE = "vit.safetensors"
RECORD_FILE = "vit.json"
_FORMAT = 1
_HELD_OUT = 0.1
"""Share of the pictures that nothing is learned from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneSettings:
    """How pictures are drawn and learned from; the defaults are the paper's where it says."""

    size: str = "medium"
    """Of the houses."""
    scale: str | None = None
    """Of their small objects; None is the size's default."""
    resolution: int = 256
    """Side of the pictures in pixels."""
    pictures: int = 21_000
    seed: int = 0
    batch: int = 64
    head_epochs: int = 5
    """Epochs in which the head learns alone."""
    head_lr: float = 1e-3
    epochs: int = 15
    """Epochs in which everything learns."""
    lr: float = 2e-5
    vit: VitConfig = field(default_factory=VitConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        least = {"pictures": 20, "batch": 1, "head_epochs": 0, "epochs": 1, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(
                    f"finetune_vit: {_flag(name)} must be at least {low}, got "
                    f"{getattr(self, name)}. Use a larger one."
                )
        for name in ("head_lr", "lr"):
            if not getattr(self, name) > 0.0:
                raise ValueError(
                    f"finetune_vit: {_flag(name)} must be positive, got "
                    f"{getattr(self, name)}. The paper has 1e-3 for the head and 2e-5 for all."
                )
        if not 8 <= self.resolution <= 1024:
            raise ValueError(
                f"finetune_vit: --resolution must lie in [8, 1024], got {self.resolution}. Use 256."
            )


def finetune(
    checkpoint: Path,
    directory: Path,
    settings: FinetuneSettings,
    *,
    device: str = "cpu",
    say: Callable[[str], None] = tell,
) -> list[Score]:
    """Fine-tune a ViT and write it with a record of what was seen.

    Args:
        checkpoint: where it starts; see `relic.policy.encoders.vit.read_checkpoint`.
        directory: gets `vit.safetensors` and `vit.json`.
        settings: how.
        device: where.
        say: told what happens.

    Returns:
        The scores on held-out pictures: of the head before all else learns, then of each epoch.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        FileNotFoundError: If there is none.
    """
    torch.manual_seed(settings.seed)
    vit = VisionTransformer(**asdict(settings.vit))
    load_weights(vit, read_checkpoint(checkpoint), checkpoint)
    network = VisibilityNetwork(vit).to(device)
    began = time.perf_counter()
    num_held_out = max(round(_HELD_OUT * settings.pictures), 1)
    learned = _draw(settings, settings.pictures - num_held_out, stream=0)
    held_out = _draw(settings, num_held_out, stream=1)
    took = time.perf_counter() - began
    say(
        f"finetune_vit: drew {settings.pictures:,} pictures in {took:.0f} s, each with "
        f"{learned.visible_BG.sum(1).mean():.1f} categories in view in the mean"
    )
    rng = np.random.default_rng([settings.seed, 0xF17E])
    _train_head(network, learned, settings, rng)
    scores = [score(network, held_out, settings.batch)]
    say(f"finetune_vit: head alone: {scores[0]}")
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=0.0)
    best = scores[0].loss
    _write(directory, network, settings, scores)
    for epoch in range(settings.epochs):
        network.train()
        for rgb_BHW3, visible_BG in batches(learned, settings.batch, rng):
            loss = dice_loss(network(rgb_BHW3), visible_BG.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scores.append(score(network, held_out, settings.batch))
        say(f"finetune_vit: epoch {epoch + 1} of {settings.epochs}: {scores[-1]}")
        if scores[-1].loss < best:
            best = scores[-1].loss
            _write(directory, network, settings, scores)
    _record(directory, settings, scores)
    return scores


def _draw(settings: FinetuneSettings, count: int, *, stream: int) -> Labelled:
    return draw_labelled(
        count,
        size=settings.size,
        scale=settings.scale,
        resolution=settings.resolution,
        seed=(settings.seed, stream),
    )


def _train_head(
    network: VisibilityNetwork,
    labelled: Labelled,
    settings: FinetuneSettings,
    rng: np.random.Generator,
) -> None:
    """Train the head; what it reads does not change meanwhile, so that it is computed once."""
    if settings.head_epochs == 0:
        return
    network.eval()
    parts = torch.from_numpy(labelled.rgb_BHW3).split(settings.batch)
    with torch.no_grad():
        features_BE = torch.cat([network.features(part) for part in parts])
    visible_BG = torch.from_numpy(labelled.visible_BG).float().to(features_BE.device)
    optimizer = torch.optim.AdamW(network.head.parameters(), settings.head_lr, weight_decay=0.0)
    for _ in range(settings.head_epochs):
        order = torch.from_numpy(rng.permutation(len(features_BE))).to(features_BE.device)
        for index_B in order.split(settings.batch):
            loss = dice_loss(network.head(features_BE[index_B]), visible_BG[index_B])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _write(
    directory: Path, network: VisibilityNetwork, settings: FinetuneSettings, scores: list[Score]
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_weights(directory / WEIGHTS_FILE, network)
    _record(directory, settings, scores)


def _record(directory: Path, settings: FinetuneSettings, scores: list[Score]) -> None:
    content = {"settings": asdict(settings), "scores": [s._asdict() for s in scores]}
    write_json(directory / RECORD_FILE, {"format": _FORMAT, **content})


def _flag(name: str) -> str:
    """Return what a setting is called on the command line."""
    return f"--{name.replace('_', '-')}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m relic.pretraining.finetune_vit",
        description="Fine-tune a ViT such as VC-1 on pictures of train houses.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="weights with the names of timm, MAE or VC-1")
    parser.add_argument("directory", type=Path, help="where vit.safetensors and vit.json go")
    default_device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default_device)
    parser.add_argument("--size", choices=tuple(SIZES), default="medium", help="of the houses")
    parser.add_argument("--scale", choices=SCALES, help="of small objects; default by size")
    defaults = FinetuneSettings()
    for name in ("resolution", "pictures", "seed", "batch", "head_epochs", "epochs"):
        parser.add_argument(_flag(name), type=int, default=getattr(defaults, name))
    for name in ("head_lr", "lr"):
        parser.add_argument(_flag(name), type=float, default=getattr(defaults, name))
    for option in fields(VitConfig):
        parser.add_argument(_flag(f"vit_{option.name}"), type=int, default=option.default)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = vars(parse(arguments))
    checkpoint, directory, device = (options.pop(k) for k in ("checkpoint", "directory", "device"))
    sizes = {f.name: options.pop(f"vit_{f.name}") for f in fields(VitConfig)}
    try:
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "finetune_vit: --device must be there, got cuda without any. Use --device cpu."
            )
        settings = FinetuneSettings(vit=VitConfig(**sizes), **options)
        finetune(checkpoint, directory, settings, device=device)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(
        f"Wrote {directory / WEIGHTS_FILE}. Use it with policy.encoder.visual=vit "
        f"policy.encoder.checkpoint={directory / WEIGHTS_FILE}\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
