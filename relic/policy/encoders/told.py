"""What a run says of its inputs: at its start, and once they have been seen.

Shapes: N rows, T steps, D numbers of an observation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from relic.policy.encoders.config import PREV_REWARD
from relic.policy.encoders.encoders import ObservationEncoder
from relic.policy.encoders.images import ImageSpec
from relic.policy.encoders.inputs import CategorySpace

NARROW = 0.1
"""Share of a scaled range below which little of it is in use."""
_SAMPLED_STEPS = 64
"""Steps of a row that are looked at."""


def input_lines(encoder: ObservationEncoder) -> list[str]:
    """Return one line for each observation: what it becomes, or why it is left out."""
    plan, said = encoder.plan, dict(encoder.plan.left_out)
    for key, spec in plan.images.items():
        by = encoder.image_encoder(key).kind.value + (", frozen" if encoder.is_frozen else "")
        said[key] = f"{_picture(spec)}, by {by}"
    for key, space in plan.vectors.items():
        said[key] = _vector(key, int(np.prod(space.shape)), encoder)
    for key, space in plan.categories.items():
        said[key] = _categories(space)
    if plan.adds_reward:
        said[PREV_REWARD] = "the reward of the step before"
    return [f"observation {key}: {said[key]}" for key in sorted(said)]


def _picture(spec: ImageSpec) -> str:
    size = f"picture of {spec.height} x {spec.width}"
    if spec.role == "colour":
        return f"{size} with {spec.channels} colour{'s' * (spec.channels > 1)}"
    if spec.role == "depth":
        return f"{size} depths from {spec.low:g} to {spec.high:g} m"
    channels = f" x {spec.channels}" if spec.channels > 1 else ""
    if spec.role == "classes":
        return f"{size}{channels} class numbers, each of {spec.num_classes} with an embedding"
    scaled = sum(scale != (0.0, 1.0) for scale in spec.scale)
    how = "not scaled" if scaled == 0 else "scaled by their bounds"
    return f"{size}{channels} numbers, {how}"


def _vector(key: str, size: int, encoder: ObservationEncoder) -> str:
    part, config = encoder.vector_encoder(key), encoder.config
    how = "not scaled"
    if part.angles:
        how = "as cosines and sines"
    elif key in config.vector_units:
        how = "in units of encoder.vector_units"
    elif part.is_scaled:
        how = "scaled by their bounds"
    layer = "" if part.linear is None else f", through a layer of {part.num_features}"
    return f"vector of {size}, {how}{layer}"


def _categories(space: CategorySpace) -> str:
    sizes = np.atleast_1d(getattr(space, "nvec", getattr(space, "n", 0))).reshape(-1)
    if len(sizes) == 1:
        return f"one of {sizes[0]} categories, embedded"
    return f"{len(sizes)} categories of {', '.join(map(str, sizes[:4].tolist()))}" + (
        ", ..., embedded" if len(sizes) > 4 else ", embedded"
    )


def narrow_inputs(
    encoder: ObservationEncoder, observation_NT: Mapping[str, Tensor]
) -> Iterator[str]:
    """Yield a warning for each input of which scaling leaves little.

    Args:
        encoder: That scales them.
        observation_NT: What a rollout has stored, (N, T, ...) by key.
    """
    for key, stored in observation_NT.items():
        used_D = _used(encoder, key, stored[:, :: -(-stored.shape[1] // _SAMPLED_STEPS)])
        narrow = used_D[(used_D > 0) & (used_D < NARROW)]
        if narrow.numel() == 0:
            continue
        of = "its range"
        if narrow.numel() < used_D.numel():
            of = f"the range of {narrow.numel()} of its {used_D.numel()} numbers"
        yield (
            f"observation {key}: uses {100 * float(narrow.min()):.2g} % of {of} in the "
            f"first rollout, which scaling makes small. {_advice(encoder, key)}"
        )


def _used(encoder: ObservationEncoder, key: str, stored_NT: Tensor) -> Tensor:
    """Return the share of the scaled range that is in use, (D,); nothing of what is not scaled."""
    if key in encoder.plan.vectors:
        part = encoder.vector_encoder(key)
        if not part.is_scaled or key in encoder.config.vector_units:
            return torch.zeros(0)
        seen = stored_NT.reshape(-1, part.size).float()
        return (seen.amax(0) - seen.amin(0)) * part.gain.to(seen.device) / 2
    if key not in encoder.plan.images:
        return torch.zeros(0)
    spec = encoder.plan.images[key]
    seen = stored_NT.reshape(-1, spec.channels).float()  # uint16, say, knows no maximum
    span_C = seen.amax(0) - seen.amin(0)
    if spec.role == "colour":
        return span_C / 255
    scaled_C = torch.tensor([scale != (0.0, 1.0) for scale in spec.scale], device=seen.device)
    if spec.role != "numbers" or not scaled_C.any():
        return torch.zeros(0)
    half_C = torch.tensor([half for _, half in spec.scale], device=seen.device)
    return (span_C / half_C / 2)[scaled_C]


def _advice(encoder: ObservationEncoder, key: str) -> str:
    if key in encoder.plan.vectors:
        return f"Narrow its bounds, or give policy.encoder.vector_units.{key}."
    spec = encoder.plan.images[key]
    if spec.role == "colour":
        return f"If its numbers name things, set policy.encoder.kinds.{key}=classes."
    return "Narrow its bounds."
