"""The PPO loss of a batch of steps, and its metrics.

Every term is a sum over the batch's steps divided by `count`, the number of steps in the whole
minibatch: over microbatches and over ranks, losses, gradients and metrics simply add up.

Pure. Any shape is allowed as long as it is the same throughout; it is written `...` here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from relic.policy.auxiliary import AuxiliaryLosses


@dataclass(frozen=True, slots=True)
class LossTargets:
    """What the loss compares the policy with; one entry per step."""

    log_prob: Tensor
    """Of the action when it was taken (or as refreshed)."""
    value: Tensor
    """The critic's value that the advantage was computed from."""
    advantage: Tensor
    ret: Tensor
    """Return: advantage before normalisation, plus value."""


class Loss(NamedTuple):
    """A loss to differentiate and what it is made of, detached."""

    total: Tensor
    parts: dict[str, Tensor]
    """float32: shares of the minibatch's means, by the names of the metrics."""
    max_drift: Tensor
    """Largest |ratio - 1|."""


PARTS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_frac", "ratio_drift")


def ppo_loss(
    log_prob: Tensor,
    value: Tensor,
    entropy: Tensor,
    targets: LossTargets,
    *,
    count: int,
    clip_coef: float,
    vf_coef: float,
    ent_coef: float,
    clip_value: bool = True,
    dual_clip: float | None = None,
) -> Loss:
    """Compute the clipped surrogate loss, value loss and entropy bonus.

    Args:
        log_prob: Of the same actions under the present policy.
        value: The critic's present value.
        entropy: Of the present policy at each step.
        targets: What was true when the steps were collected.
        count: Steps in the minibatch, all microbatches and ranks together.
        clip_coef: Half-width of the trusted interval of the ratio; also of values.
        vf_coef: Weight of the value loss.
        ent_coef: Weight of the entropy bonus.
        clip_value: Clip the value's move as well.
        dual_clip: Most times that a negative advantage counts (Ye et al. 2020); None: no limit.
    """
    # How much likelier the present policy makes the action than the one that took it. Once the
    # ratio has left the trusted interval in the direction that the advantage asks for, the minimum
    # is the clipped term, which has no gradient: one chunk of experience moves the policy that far
    # and no further. In the other direction it is the true one, which brings the policy back.
    log_ratio = log_prob - targets.log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_coef, 1.0 + clip_coef)
    surrogate = torch.minimum(targets.advantage * ratio, targets.advantage * clipped)
    if dual_clip is not None:
        # That true term has no bound: a few steps in another context can outweigh all others.
        bounded = torch.maximum(surrogate, dual_clip * targets.advantage)
        surrogate = torch.where(targets.advantage < 0, bounded, surrogate)
    policy_loss = -surrogate.sum()
    vf_clip = clip_coef if clip_value else None
    v_loss = value_loss(value, targets, clip_coef=vf_clip)
    entropy_sum = entropy.sum()
    total = (policy_loss + vf_coef * v_loss - ent_coef * entropy_sum) / count
    with torch.no_grad():
        drift = (ratio - 1.0).abs()
        # Never negative and of little variance, unlike the mean of -log_ratio.
        approx_kl = ((ratio - 1.0) - log_ratio).sum()
        outside = (drift > clip_coef).sum(dtype=torch.float32)
        sums = [policy_loss, v_loss, entropy_sum, approx_kl, outside, drift.sum()]
    return Loss(total, _shares(dict(zip(PARTS, sums, strict=True)), count), drift.max())


def clone_loss(
    expert_log_prob: Tensor,
    value: Tensor,
    entropy: Tensor,
    targets: LossTargets,
    *,
    count: int,
    vf_coef: float,
) -> Loss:
    """Compute the loss of behaviour cloning: cross-entropy on the expert's actions.

    Args:
        expert_log_prob: Of the expert's actions under the present policy.
        value: The critic's present value; it learns the returns that were seen.
        entropy: Of the present policy, for the record only.
        targets: Of them the returns.
        count: Steps in the minibatch, all microbatches and ranks together.
        vf_coef: Weight of the value loss.
    """
    policy_loss = -expert_log_prob.sum()
    v_loss = value_loss(value, targets, clip_coef=None)
    total = (policy_loss + vf_coef * v_loss) / count
    # The expert acted, not the policy, so no ratio says how far the policy has moved.
    nothing = torch.zeros((), device=value.device)
    sums = [policy_loss, v_loss, entropy.sum(), nothing, nothing, nothing]
    return Loss(total, _shares(dict(zip(PARTS, sums, strict=True)), count), nothing)


def with_auxiliary(loss: Loss, auxiliary: AuxiliaryLosses, *, weight: float, count: int) -> Loss:
    """Add the losses and metrics of an auxiliary head.

    Args:
        loss: Of the same steps.
        auxiliary: The head's losses and metrics of each step.
        weight: Of the head's losses.
        count: Steps in the minibatch, all microbatches and ranks together.
    """
    losses = {name: column.sum() for name, column in auxiliary.losses.items()}
    metrics = {name: column.sum() for name, column in auxiliary.metrics.items()}
    total = loss.total
    for summed in losses.values():
        total = total + weight * summed / count
    return Loss(total, loss.parts | _shares(losses | metrics, count), loss.max_drift)


def _shares(sums: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    return {name: summed.detach().float() / count for name, summed in sums.items()}


def largest_drift(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Return the largest |ratio - 1|, without gradient."""
    return ((log_prob.detach() - old_log_prob).exp() - 1.0).abs().max()


def value_loss(value: Tensor, targets: LossTargets, *, clip_coef: float | None) -> Tensor:
    """Sum half the squared error to the return, pessimistic about moves beyond the clip."""
    error = (value - targets.ret).square()
    # The larger error: a value that has moved beyond the clip gains nothing by moving on.
    if clip_coef is not None:
        moved = targets.value + (value - targets.value).clamp(-clip_coef, clip_coef)
        error = torch.maximum(error, (moved - targets.ret).square())
    return 0.5 * error.sum()


def explained_variance(
    ret: Tensor, value: Tensor, sum_over_ranks: Callable[[Tensor], Tensor] = lambda x: x
) -> float | None:
    """Say which share of the returns' variance the values explain; None if there is none.

    Args:
        ret: Returns.
        value: The values they are compared with.
        sum_over_ranks: Sums a tensor over ranks; one process needs none.
    """
    error = (ret - value).double()
    ret = ret.double()
    ones = torch.ones((), dtype=torch.float64, device=ret.device) * ret.numel()
    # Moments add up over ranks. A variance is a small difference of them, hence float64.
    moments = torch.stack([ones, ret.sum(), ret.square().sum(), error.sum(), error.square().sum()])
    count, ret_sum, ret_sq, err_sum, err_sq = sum_over_ranks(moments).tolist()
    variance = ret_sq / count - (ret_sum / count) ** 2
    if variance <= 1e-12:
        return None
    return 1.0 - (err_sq / count - (err_sum / count) ** 2) / variance
