"""The auxiliary head that recalls where the goal was last in view.

It is the head of `relic.policy.goal_location` with another lesson: not where the nearest instance
lies, which the environment alone knows, but where the agent itself was last shown one in this
trial. A step whose goal was never in view has nothing to recall and no loss.

An episode asks for one category, so a trial has a few questions. The lesson asks for many: the same
steps with another goal at each, drawn among the categories that were in view so far. What is in
view is observed, so the answers need no word from the environment.

Shapes: ``...`` stands for N rows or N rows x T steps; C categories.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from relic.policy.auxiliary import AuxiliaryLosses
from relic.policy.auxiliary_config import RecallConfig
from relic.policy.encoders.inputs import picked
from relic.policy.goal_location import GoalGuess, GoalLocationHead, guess_errors, into_frame
from relic.policy.steps import SequenceBatch


class RecallHead(GoalLocationHead):
    """Guesses the place from the memory's output, and tells the other heads."""

    config: RecallConfig

    def lesson(self, batch: SequenceBatch, uniform_NT: Tensor) -> SequenceBatch:
        """Ask for another category at each step, of those that were in view so far.

        Args:
            batch: Steps in context order, from the trials' beginning.
            uniform_NT: Decides which category; where none was in view, the goal stays.
        """
        config, observation = self.config, batch.observation
        seen_NTC4 = observation[config.seen].float().unflatten(-1, (-1, 4))
        shown_NTC = seen_NTC4[..., 0] > 0.5
        in_view_NTC = shown_NTC & (seen_NTC4[..., 1] >= config.least_pixels)
        heading_NT11 = observation[config.heading].float().unsqueeze(-2)
        offset_NTC2 = into_frame(seen_NTC4[..., 2:], heading_NT11)
        place_NTC2 = observation[config.position].float().unsqueeze(-2) + offset_NTC2
        steps_T1 = torch.arange(uniform_NT.shape[1], device=uniform_NT.device)[:, None]
        last_NTC = torch.where(in_view_NTC, steps_T1, -1).cummax(dim=1).values
        known_NTC = last_NTC >= 0
        # The k-th known category: where as many are known up to it, it itself included.
        rank_NT = (uniform_NT * known_NTC.sum(-1)).long()
        chosen_NTC = known_NTC & (known_NTC.cumsum(-1) == rank_NT[..., None] + 1)
        asked_NT = torch.where(
            known_NTC.any(-1), chosen_NTC.long().argmax(-1), observation[config.goal].long()
        )
        recalled_NTC2 = place_NTC2.gather(1, last_NTC.clamp(min=0)[..., None].expand_as(place_NTC2))
        answer = [picked(known_NTC[..., None], asked_NT).float(), picked(recalled_NTC2, asked_NT)]
        changed = {
            config.goal: asked_NT.to(observation[config.goal].dtype),
            config.target: torch.cat(answer, -1),
        }
        if config.goal_seen is not None:
            shown_NT1 = picked(shown_NTC[..., None], asked_NT).float()
            where_NT4 = picked(torch.cat([seen_NTC4[..., 2:], place_NTC2], -1), asked_NT)
            changed[config.goal_seen] = torch.cat([shown_NT1, shown_NT1 * where_NT4], -1)
        return replace(batch, observation={**observation, **changed})

    def auxiliary_losses(self, output: GoalGuess, batch: SequenceBatch) -> AuxiliaryLosses:
        """Return the negative log-likelihood in nats, 0 where there is nothing to recall.

        The metrics are the share of steps that have something to recall, and how far the guess is
        off in them, times that share.
        """
        target = batch.observation[self.config.target]
        seen = (target[..., 0] > 0.5).float()
        loss, error = guess_errors(output, target[..., None, 1:])
        return AuxiliaryLosses(
            {"recall_loss": loss * seen}, {"recall_share": seen, "recall_error": error * seen}
        )
