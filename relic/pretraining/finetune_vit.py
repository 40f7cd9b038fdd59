"""Fine-tunes a ViT such as VC-1 on pictures of train houses.

`python -m relic.pretraining.finetune_vit` runs it. As in the paper: a linear head on the class
token says which of the 20 categories are in view; first the head learns alone, then everything,
under a Dice loss, and the epoch that is best on held-out pictures is kept. Those are drawn anew of
2^20 houses. The result is a file that `policy.encoder.checkpoint` may name.

Shapes: B pictures, G goal categories, E width.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.houses.furniture.goal_objects import SCALES
from envs.houses.generation.floorplan import SIZES
from envs.objectnav.goals import GOAL_CATEGORIES
from relic.files import write_json
from relic.policy.encoders.config import VitConfig
from relic.policy.encoders.vit import VisionTransformer, read_checkpoint
from relic.policy.weights import load_weights, write_weights
from relic.pretraining.pictures import label_pictures
from relic.pretraining.pretrain import dice_loss, found_and_right
from relic.run.progress import tell
from relic.schema import POSITIVE, at_least, check_bounds
from relic.stops import guarded, refusals

WEIGHTS_FILE = "vit.safetensors"
RECORD_FILE = "vit.json"
_FORMAT = 1
_HELD_OUT = 0.1
"""Share of the pictures that nothing is learned from."""
_PART = 512
"""Pictures that are drawn at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneSettings:
    """How pictures are drawn and learned from; the defaults are the paper's where it says."""

    size: str = "medium"
    """Of the houses."""
    scale: str | None = None
    """Of their small objects; None is the size's default."""
    resolution: Annotated[int, at_least(8)] = 256
    """Side of the pictures in pixels."""
    pictures: Annotated[int, at_least(20)] = 21_000
    seed: Annotated[int, at_least(0)] = 0
    batch: Annotated[int, at_least(1)] = 64
    head_epochs: Annotated[int, at_least(0)] = 5
    """Epochs in which the head learns alone."""
    head_lr: Annotated[float, POSITIVE] = 1e-3
    epochs: Annotated[int, at_least(1)] = 15
    """Epochs in which everything learns."""
    lr: Annotated[float, POSITIVE] = 2e-5
    vit: VitConfig = field(default_factory=VitConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        check_bounds(self)
        if self.resolution > 1024:
            raise ValueError(f"resolution: must be at most 1024, got {self.resolution}. Use 256.")


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


class Labelled(NamedTuple):
    """Pictures and what is in view."""

    rgb_BHW3: NDArray[np.uint8]
    visible_BG: NDArray[np.bool_]


class VisibilityNetwork(nn.Module):
    """A ViT with a linear head that says what is in view."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        self.head = nn.Linear(vit.num_features, len(GOAL_CATEGORIES))

    def features(self, rgb_BHW3: Tensor) -> Tensor:
        """Return the class token (B, E) of uint8 pictures on any device."""
        device = self.head.weight.device
        images = rgb_BHW3.to(device, non_blocking=True).movedim(-1, 1) * (1 / 255)
        # Not float16, whose gradients would need a scale of their own.
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return self.vit(images).float()

    def forward(self, rgb_BHW3: Tensor) -> Tensor:
        """Return logits (B, G)."""
        return self.head(self.features(rgb_BHW3))


class Score(NamedTuple):
    """How well visibility is told, at a logit of 0."""

    loss: float
    accuracy: float
    """Share of all labels."""
    recall: float
    precision: float

    def __str__(self) -> str:
        return (
            f"held-out loss {self.loss:.3f}, accuracy {self.accuracy:.3f}; finds "
            f"{100 * self.recall:.0f} % of what is in view, {100 * self.precision:.0f} % of its "
            "finds are right"
        )


def draw_labelled(
    count: int, *, size: str, scale: str | None, resolution: int, seed: tuple[int, ...]
) -> Labelled:
    """Draw pictures of train houses; see `relic.pretraining.pictures.label_pictures`."""
    rgb_BHW3 = np.empty((count, resolution, resolution, 3), np.uint8)
    visible_BG = np.empty((count, len(GOAL_CATEGORIES)), bool)
    for first in range(0, count, _PART):
        drawn = label_pictures(
            min(_PART, count - first),
            size=size,
            scale=scale,
            resolution=resolution,
            seed=[*seed, first],
        )
        rgb_BHW3[first : first + _PART] = drawn.rgb_BHW3
        visible_BG[first : first + _PART] = drawn.visible_BG
    return Labelled(rgb_BHW3, visible_BG)


def batches(
    labelled: Labelled, batch: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all pictures once, in random order."""
    order = rng.permutation(len(labelled.rgb_BHW3))
    for first in range(0, len(order), batch):
        index_B = order[first : first + batch]
        rgb_BHW3 = torch.from_numpy(labelled.rgb_BHW3[index_B])
        yield rgb_BHW3, torch.from_numpy(labelled.visible_BG[index_B]).float()


@torch.no_grad()
def score(network: VisibilityNetwork, labelled: Labelled, batch: int) -> Score:
    """Say how well a network tells what is in view."""
    network.eval()
    parts = torch.from_numpy(labelled.rgb_BHW3).split(batch)
    logits_BG = torch.cat([network(part).cpu() for part in parts])
    visible_BG = torch.from_numpy(labelled.visible_BG)
    found_BG = logits_BG > 0
    recall, precision = found_and_right(found_BG.numpy(), labelled.visible_BG)
    return Score(
        loss=float(dice_loss(logits_BG, visible_BG.float())),
        accuracy=float((found_BG == visible_BG).float().mean()),
        recall=recall,
        precision=precision,
    )


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
    return guarded(lambda: _main(vars(parse(arguments))))


def _main(options: dict[str, Any]) -> int:
    checkpoint, directory, device = (options.pop(k) for k in ("checkpoint", "directory", "device"))
    sizes = {f.name: options.pop(f"vit_{f.name}") for f in fields(VitConfig)}
    with refusals():
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "finetune_vit: --device must be there, got cuda without any. Use --device cpu."
            )
        settings = FinetuneSettings(vit=VitConfig(**sizes), **options)
        finetune(checkpoint, directory, settings, device=device)
    sys.stdout.write(
        f"Wrote {directory / WEIGHTS_FILE}. Use it with policy.encoder.visual=vit "
        f"policy.encoder.checkpoint={directory / WEIGHTS_FILE}\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
