"""What an optimiser step saw, and what the steps of an update say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relic.ppo.reduction import Reduction


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one optimiser step saw, all ranks together."""

    parts: dict[str, float]
    """Means over the minibatch, by the names of the metrics."""
    grad_norm: float
    drift_max: Tensor
    """Largest |ratio - 1| on this rank."""
    first_drift: Tensor
    """The same over the newest chunk before the update's first step. Nothing has moved then, and
    the agent acted on exactly the context that the loss sees: more than rounding is a fault."""
    skipped: bool
    """The policy had moved too far already, so nothing was changed."""


def summarise(
    records: Sequence[StepRecord], reduction: Reduction, *, max_grad_norm: float
) -> dict[str, float]:
    """Return the metrics of an update, means over its steps unless their name says otherwise."""
    # Lessons are in the first steps only.
    metrics = {
        name: float(np.mean([r.parts[name] for r in records if name in r.parts]))
        for name in records[0].parts
    }
    drifts = torch.stack(
        [torch.stack([r.drift_max for r in records]).max(), records[0].first_drift]
    )
    largest, first = reduction.max(drifts).tolist()
    norms = [r.grad_norm for r in records]
    return metrics | {
        "ratio_drift_max": largest,
        "ratio_drift_first": first,
        "grad_norm": float(np.mean(norms)),
        "grad_clip_frac": float(np.mean([n > max_grad_norm for n in norms])),
        "optimizer_steps": float(sum(not r.skipped for r in records)),
    }
