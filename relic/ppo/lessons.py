"""What auxiliary heads learn from passes of their own, beside the passes of an update.

A head may make a lesson of the steps of a rollout, such as the same steps with other goals
(`relic.policy.auxiliary.AuxiliaryHead.lesson`). The first epoch of a rollout's last update, and of
every full one, takes the rows through the policy once more for it. With the objective `lessons`
every epoch of every update does so, and nothing else. Heads learn from it together with the memory
that they read; action and value do not.

Shapes: K rows of a microbatch, T steps.
"""

from __future__ import annotations

import torch

from relic.noise import Stream, row_uniforms
from relic.policy.auxiliary import AuxiliaryHead, AuxiliaryLosses
from relic.policy.policy import Policy
from relic.ppo.config import Objective, PPOConfig
from relic.ppo.loss import Loss, with_auxiliary
from relic.ppo.source import RowGroup
from relic.ppo.update_batch import Rows, UpdateBatch


class Lessons:
    """The lessons of a policy's heads; draws depend on the seed, the row and `draw` only."""

    def __init__(self, policy: Policy, ppo: PPOConfig, *, seed: int) -> None:
        """Find the heads that have one.

        Raises:
            ValueError: There is none, but they are all that is to be learned for a while.
        """
        self._policy = policy
        self._precision = ppo.precision
        self._seed = seed
        self._weights = lesson_weights(policy)
        alone = ppo.lesson_steps > 0 or ppo.objective is Objective.LESSONS
        if alone and not self._weights:
            raise ValueError(
                f"ppo.lesson_steps: must be 0 where no auxiliary head has a lesson, got "
                f"{ppo.lesson_steps} with objective={ppo.objective.value}. Give one a weight, such "
                "as policy.recall.relabelled=0.3."
            )

    def are_in(self, update: UpdateBatch, epoch: int) -> bool:
        """Say whether an epoch of an update teaches them."""
        alone = update.objective is Objective.LESSONS
        return bool(self._weights) and (alone or (update.planned.teaches and epoch == 0))

    def teach(
        self,
        update: UpdateBatch,
        group: RowGroup,
        rows_K: Rows,
        *,
        epoch: int,
        draw: int,
        num_rows: int,
    ) -> Loss:
        """Add the gradient of the lessons of some rows.

        Args:
            update: Not all have lessons.
            group: Of the rows.
            rows_K: A microbatch.
            epoch: Of the update; not all have lessons either.
            draw: Other numbers make other lessons of the same rows.
            num_rows: Of the minibatch, all microbatches and ranks together.

        Returns:
            The loss, detached, and its parts.
        """
        nothing = torch.zeros((), device=self._policy.device)
        total, parts = nothing, {}
        if not self.are_in(update, epoch):
            return Loss(total, parts, nothing)
        count = num_rows * update.planned.at_step
        for name, weight in self._weights.items():
            losses = self._losses(update, group, rows_K, name, draw)
            loss = with_auxiliary(Loss(nothing, {}, nothing), losses, weight=weight, count=count)
            loss.total.backward()
            total, parts = total + loss.total.detach(), parts | loss.parts
        return Loss(total, parts, nothing)

    def _losses(
        self, update: UpdateBatch, group: RowGroup, rows_K: Rows, name: str, draw: int
    ) -> AuxiliaryLosses:
        """Run the policy over a head's lesson, with gradient."""
        rollout, size, device = update.rollout, update.planned.at_step, self._policy.device
        numbers_K = rollout.global_row_N[rows_K]
        uniform_KT = row_uniforms(self._seed, numbers_K, draw, size, stream=Stream.LESSON)
        head = self._policy.auxiliary[name]
        assert isinstance(head, AuxiliaryHead)
        steps = rollout.batch(rows_K, 0, size, device)
        batch = head.lesson(steps, torch.from_numpy(uniform_KT).to(device))
        with self._precision.autocast(device):
            output = self._policy.evaluate_actions(batch, depth_mask_NL=group.depth_mask(rows_K))
        return head.auxiliary_losses(output.auxiliary[name], batch).of_lesson()


def lesson_weights(policy: Policy) -> dict[str, float]:
    """Return the weights of the lessons of the heads that have one, by their names."""
    sections = policy.config.auxiliary
    return {name: s.lesson_weight for name, s in sections.items() if s.lesson_weight}
