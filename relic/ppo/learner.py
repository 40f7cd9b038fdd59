"""Learning from a rollout: one update of PPO over whole contexts, from top to bottom.

`update` estimates advantages (`prepare`), goes over the rows in epochs of minibatches (`_steps`),
and takes one optimiser step on each (`_step`). For each microbatch, the step evaluates the actions
that were taken, under the present weights (`evaluate_rows`, where the context of a partial update
is cut), computes the loss (`_loss`), and runs the backward pass. `relic.ppo.schedule` shows the
spans into which an update cuts the context.

Shapes: N rows, T steps, K rows of a microbatch, M minibatches, C steps that carry loss.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relic.policy.policy import Policy
from relic.ppo.config import (
    Objective,
    OptimizerKind,
    PPOConfig,
    UpdatesConfig,
    check_learning,
    check_ranks,
)
from relic.ppo.lessons import Lessons
from relic.ppo.loss import (
    Loss,
    LossTargets,
    clone_loss,
    explained_variance,
    largest_drift,
    ppo_loss,
    with_auxiliary,
)
from relic.ppo.reduction import GradientBuffer, Reduction, check_moments, forget_unmoved
from relic.ppo.returns import TimeLimit, find_ends, gae
from relic.ppo.rollout import Rollout
from relic.ppo.schedule import PlannedUpdate, PrefixGradient, UpdateKind
from relic.ppo.source import RowGroup
from relic.ppo.step_record import StepRecord, summarise
from relic.ppo.update_batch import (
    ActionEvaluation,
    Rows,
    RowSampler,
    UpdateBatch,
    microbatch_rows,
)


class NonFiniteLossError(RuntimeError):
    """A loss or gradient that is not a number; the policy has not been changed by it."""

    foreseen = True


class Learner:
    """Owns the optimiser; changes the policy in place.

    Its draws depend on the seed and counters only, so there is no generator to save.
    """

    def __init__(
        self,
        policy: Policy,
        ppo: PPOConfig,
        updates: UpdatesConfig,
        *,
        num_envs: int,
        num_steps: int,
        total_steps: int,
        seed: int,
        time_limit: TimeLimit = TimeLimit.BOOTSTRAP,
        reduction: Reduction | None = None,
    ) -> None:
        """Build the optimiser.

        Args:
            policy: The policy to train.
            ppo: How an update changes it.
            updates: When updates are, and which steps their losses cover.
            num_envs: Rows of this process.
            num_steps: Steps per row and rollout.
            total_steps: Environment steps of the run, whole rollouts, which schedules span.
            seed: Of minibatches and shuffles.
            time_limit: Used where `ppo.time_limit` is not set.
            reduction: How ranks talk; None is one process.

        Raises:
            ValueError: If rows, steps, minibatches or ranks do not divide.
        """
        self.reduction = reduction or Reduction()
        world = self.reduction.world_size
        self._world_rows = rows = num_envs * world
        self.schedule = check_learning(ppo, updates, num_envs=rows, num_steps=num_steps)
        check_ranks(ppo, updates, num_envs=rows, ranks=world)
        self.policy = policy
        self.ppo = ppo
        self.updates = updates
        self.total_steps = total_steps
        self.seed = seed
        self.time_limit = ppo.time_limit or time_limit
        self.num_updates = 0
        """Updates of the run so far."""
        self._sampler = RowSampler(
            seed=seed,
            num_envs=num_envs,
            rank=self.reduction.rank,
            world_size=world,
            num_minibatches=ppo.num_minibatches,
        )
        self._lessons = Lessons(policy, ppo, seed=seed)
        self.gradients = GradientBuffer(policy.parameters())
        self.optimizer = self._make_optimizer()

    def _make_optimizer(self) -> torch.optim.Optimizer:
        kinds = {OptimizerKind.ADAM: torch.optim.Adam, OptimizerKind.ADAMW: torch.optim.AdamW}
        return kinds[self.ppo.optimizer](
            self.gradients.parameters,
            lr=self.ppo.lr,
            eps=self.ppo.adam_eps,
            weight_decay=self.ppo.weight_decay,
            fused=True,
        )

    def update(
        self,
        rollout: Rollout,
        planned: PlannedUpdate,
        *,
        groups: Sequence[RowGroup],
        bootstrap_N: Tensor,
        env_steps: int,
    ) -> dict[str, float]:
        """Learn from the rollout as planned; changes the policy.

        Args:
            rollout: `planned.at_step` steps.
            planned: What the loss covers.
            groups: Rows that acted together, with what they remembered as the chunk began.
            bootstrap_N: Value of what follows the last step.
            env_steps: Environment steps of the run so far. Schedules are read as the chunk began.

        Returns:
            Metrics, means over the optimiser steps unless their name says otherwise.

        Raises:
            NonFiniteLossError: Before a step that would not be finite.
        """
        rate = self.ppo.learning_rate_at(self._began(planned, env_steps), self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        forget_unmoved(self.optimizer)
        update = self.prepare(
            rollout, planned, groups=groups, bootstrap_N=bootstrap_N, env_steps=env_steps
        )
        records = list(self._steps(update))
        self.num_updates += 1
        metrics = summarise(records, self.reduction, max_grad_norm=self.ppo.max_grad_norm) | {
            "lr": rate,
            "ent_coef": update.ent_coef,
        }
        return metrics | self._describe_targets(update)

    def prepare(
        self,
        rollout: Rollout,
        planned: PlannedUpdate,
        *,
        groups: Sequence[RowGroup],
        bootstrap_N: Tensor,
        env_steps: int,
    ) -> UpdateBatch:
        """Estimate advantages over the whole rollout so far; changes nothing.

        Always in time order and from the rollout's beginning, whatever the loss covers: an
        advantage depends on what followed, and the newest chunk changes it for the steps before.
        """
        size = planned.at_step
        device = rollout.device
        cut_NT, bootstrapped_NT = find_ends(
            torch.from_numpy(rollout.terminated_NT[:, :size]).to(device),
            torch.from_numpy(rollout.truncated_NT[:, :size]).to(device),
            crashed_NT=torch.from_numpy(rollout.crashed_NT[:, :size]).to(device),
            credit=self.ppo.credit,
            time_limit=self.time_limit,
            trial_over=size == rollout.num_steps,
        )
        final_NT = rollout.final_value_NT[:, :size]
        advantage_NT, ret_NT = gae(
            torch.from_numpy(rollout.reward_NT[:, :size]).to(device) * self.ppo.reward_scale,
            rollout.value_NT[:, :size],
            cut_NT,
            final_value_NT=torch.where(bootstrapped_NT, final_NT, 0.0),
            bootstrap_N=bootstrap_N.to(device),
            gamma=self.ppo.gamma,
            gae_lambda=self.ppo.gae_lambda,
        )
        began = self._began(planned, env_steps)
        ent_coef = self.ppo.entropy_coefficient_at(began, self.total_steps)
        # As when the rollout began.
        objective = self.ppo.objective_at(env_steps - size * self._world_rows)
        return UpdateBatch(rollout, planned, groups, advantage_NT, ret_NT, ent_coef, objective)

    def _began(self, planned: PlannedUpdate, env_steps: int) -> int:
        """Return the environment steps of the run as the update's chunk began.

        Schedules are read there: at its end, a run's last updates would have the rate of no update.
        """
        return env_steps - (planned.at_step - planned.chunk_from) * self._world_rows

    def _steps(self, update: UpdateBatch) -> Iterator[StepRecord]:
        """Take the optimiser steps of an update, until the policy has moved too far."""
        epochs, step = self.ppo.update_epochs, 0
        for epoch in range(epochs):
            # Earlier epochs' keys and values would only be overwritten.
            keeps = self.updates.keeps_pass(update.planned) and epoch + 1 == epochs
            for rows, moments in self._minibatches(update, epoch):
                record = self._step(update, rows, moments, step=step, epoch=epoch, keeps=keeps)
                yield record
                if record.skipped:
                    return
                step += 1

    def _minibatches(
        self, update: UpdateBatch, epoch: int
    ) -> Iterator[tuple[Rows, tuple[float, float]]]:
        """Yield the rows of each minibatch, and the moments its advantages are scaled by."""
        partial = update.planned.kind is UpdateKind.PARTIAL
        fraction = self.updates.row_fraction if partial and not update.planned.last else 1.0
        batches = self._sampler.minibatches(self.num_updates, epoch, fraction)
        if not self.ppo.normalize_advantage:
            yield from ((rows, (0.0, 1.0)) for rows in batches)
            return
        # A minibatch has one mean and one deviation over all ranks: with each rank's own, the loss
        # would depend on how rows are shared out. All of an epoch's moments go in one exchange.
        advantage_NC = update.covered(update.advantage_NT).double()
        # In float64, since the variance is a small difference of their sums.
        sums_N2 = torch.stack([advantage_NC.sum(1), advantage_NC.square().sum(1)], dim=1)
        rows_MK = torch.from_numpy(np.stack(batches)).to(sums_N2.device)
        sums_M2 = self.reduction.sum(sums_N2[rows_MK].sum(1)).cpu()
        count = rows_MK.shape[1] * advantage_NC.shape[1] * self.reduction.world_size
        mean_M, square_M = (sums_M2 / count).unbind(1)
        # Rounding may leave a variance below zero.
        deviation_M = (square_M - mean_M.square()).clamp(min=0.0).sqrt() + 1e-8
        moments = zip(mean_M.tolist(), deviation_M.tolist(), strict=True)
        yield from zip(batches, moments, strict=True)

    def _step(
        self,
        update: UpdateBatch,
        rows: Rows,
        moments: tuple[float, float],
        *,
        step: int,
        epoch: int,
        keeps: bool,
    ) -> StepRecord:
        """Take one optimiser step on a minibatch, unless the policy has moved too far."""
        planned, device = update.planned, self.policy.device
        draw = self.num_updates * self.ppo.update_epochs + epoch
        # Over all microbatches and ranks: shares of a mean then simply add up.
        num_rows = len(rows) * self.reduction.world_size
        count = num_rows * (planned.at_step - planned.loss_from)
        self.gradients.zero()
        names: list[str] = []
        sums = torch.zeros((), device=device)
        drift_max, first_drift = torch.zeros(2, device=device)
        # A lesson passes all steps so far, of the same rows.
        begin = 0 if self._lessons.are_in(update, epoch) else planned.begin
        limit = microbatch_rows(len(rows), planned.at_step - begin, self.ppo.microbatch_tokens)
        for group, rows_K in update.microbatches(rows, limit):
            loss, drift = self._learn(
                update, group, rows_K, moments, count=count, keeps=keeps, first=step == 0
            )
            # After the backward pass, which has freed what the first pass computed.
            lesson = self._lessons.teach(
                update, group, rows_K, epoch=epoch, draw=draw, num_rows=num_rows
            )
            parts = loss.parts | lesson.parts | {"": loss.total + lesson.total}
            names = list(parts)
            sums = sums + torch.stack(list(parts.values()))
            drift_max = torch.maximum(drift_max, loss.max_drift)
            first_drift = torch.maximum(first_drift, drift)
        means = self.gradients.sum_over(self.reduction, sums).tolist()
        parts = dict(zip(names, means, strict=True))
        total = parts.pop("")
        grad_norm = float(self.gradients.clip(self.ppo.max_grad_norm))
        if not np.isfinite([total, grad_norm]).all():
            raise NonFiniteLossError(
                f"Learner.update: loss and gradient must be finite, got loss {total}, gradient "
                f"norm {grad_norm} in update {self.num_updates} ({planned.kind.value}, steps "
                f"{planned.loss_from} to {planned.at_step}), optimiser step {step}, rows "
                f"{update.describe(rows)}. Lower the learning rate or look at the column that is "
                "out of range."
            )
        target = self.ppo.target_kl
        # The divergence is of all ranks, so all of them stop or none does.
        skipped = target is not None and parts.get("approx_kl", 0.0) > 1.5 * target
        if not skipped:
            self.optimizer.step()
            # Fused optimisers write parameters without counting up their versions, by which
            # memories know that what they keep of a sink is stale.
            torch.autograd.graph.increment_version(self.gradients.parameters)
        return StepRecord(parts, grad_norm, drift_max, first_drift, skipped)

    def _learn(
        self,
        update: UpdateBatch,
        group: RowGroup,
        rows_K: Rows,
        moments: tuple[float, float],
        *,
        count: int,
        keeps: bool,
        first: bool,
    ) -> tuple[Loss, Tensor]:
        """Add the gradient of the objective; return the loss, and at first the newest drift."""
        planned, device = update.planned, self.policy.device
        nothing = torch.zeros((), device=device)
        if update.objective is Objective.LESSONS:
            return Loss(nothing, {}, nothing), nothing
        with self.policy.memory.record_kv() if keeps else contextlib.nullcontext() as kept:
            evaluation = self.evaluate_rows(update, group, rows_K)
        targets = update.targets(rows_K, device)
        mean, deviation = moments
        scaled = replace(targets, advantage=(targets.advantage - mean) / deviation)
        loss = self._loss(update, evaluation, scaled, count=count)
        loss.total.backward()
        if kept is not None:
            kept.write(group.state.memory, group.index(rows_K), planned.begin)
        loss = loss._replace(total=loss.total.detach())
        if not first or update.objective is Objective.CLONE:  # the expert acted
            return loss, nothing
        newest = planned.chunk_from - planned.loss_from
        drift = largest_drift(evaluation.log_prob[:, newest:], targets.log_prob[:, newest:])
        return loss, drift

    def evaluate_rows(self, update: UpdateBatch, group: RowGroup, rows_K: Rows) -> ActionEvaluation:
        """Run the policy over the contexts of some rows of one group, with gradient."""
        rollout, planned = update.rollout, update.planned
        device = self.policy.device
        prefix = None
        if planned.begin > 0 and self.updates.prefix_gradient is PrefixGradient.DETACHED:
            # The cut: what came before `begin` enters as the keys and values that the agent acted
            # with. They are constants, so the pass costs the steps after the cut only.
            prefix = group.prefix.select(group.index(rows_K))
            if planned.begin < planned.chunk_from:
                # The snapshot holds all steps before the newest chunk; those that this pass makes
                # anew must not be there a second time.
                starts_NT = torch.from_numpy(rollout.episode_starts_NT)
                prefix = prefix.rewound(rollout.in_context(starts_NT, rows_K, 0, planned.begin))
        batch = rollout.batch(rows_K, planned.begin, planned.at_step, device)
        if update.objective is Objective.CLONE:
            assert rollout.expert_action is not None
            span = (planned.begin, planned.at_step)
            shown = rollout.in_context(rollout.expert_action, rows_K, *span)
            batch = replace(batch, action=shown.to(device))
        batch = replace(batch, whole=prefix is None)
        # The layers that were dropped while acting; a prefix knows them itself.
        dropped = group.depth_mask(rows_K) if prefix is None else None
        with self.ppo.precision.autocast(device):
            output = self.policy.evaluate_actions(batch, prefix, depth_mask_NL=dropped)
        # A window before the loss is there to be seen only.
        skip = planned.loss_from - planned.begin
        auxiliary = self.policy.auxiliary_losses(output, batch)
        return ActionEvaluation(
            output.log_prob[:, skip:],
            output.value[:, skip:],
            output.entropy[:, skip:],
            {name: losses.since(skip) for name, losses in auxiliary.items()},
        )

    def _loss(
        self,
        update: UpdateBatch,
        evaluation: ActionEvaluation,
        targets: LossTargets,
        *,
        count: int,
    ) -> Loss:
        ppo, (log_prob, value, entropy, auxiliary) = self.ppo, evaluation
        said = (log_prob, value, entropy, targets)
        if update.objective is Objective.CLONE:
            loss = clone_loss(*said, count=count, vf_coef=ppo.vf_coef)
        else:
            loss = ppo_loss(
                *said,
                count=count,
                clip_coef=ppo.clip_coef,
                vf_coef=ppo.vf_coef,
                ent_coef=update.ent_coef,
                clip_value=ppo.clip_value,
                dual_clip=ppo.dual_clip,
            )
        for name, losses in auxiliary.items():
            weight = self.policy.config.auxiliary[name].weight
            loss = with_auxiliary(loss, losses, weight=weight, count=count)
        return loss

    def _describe_targets(self, update: UpdateBatch) -> dict[str, float]:
        ret_NC, value_NC = update.covered(update.ret_NT), update.covered(update.rollout.value_NT)
        explained = explained_variance(ret_NC, value_NC, self.reduction.sum)
        means = self.reduction.sum(torch.stack([ret_NC.mean(), value_NC.mean()]))
        ret_mean, value_mean = (means / self.reduction.world_size).tolist()
        metrics = {"target_mean": ret_mean, "value_mean": value_mean}
        return metrics if explained is None else metrics | {"explained_variance": explained}

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the policy's weights."""
        return {"num_updates": self.num_updates, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; the weights must have been restored before.

        Raises:
            ValueError: If moments of the optimiser are missing or do not fit its parameters.
        """
        self.num_updates = int(state["num_updates"])
        self.optimizer.load_state_dict(state["optimizer"])
        check_moments(self.optimizer)
