"""The auxiliary head that recalls where the goal was last in view.

It is the head of `relic.policy.goal_location` with another lesson: not where the nearest instance
lies, which the environment alone knows, but where the agent itself was last shown one in this
trial. A step whose goal was never in view has nothing to recall and no loss.

An episode asks for one category, so a trial has a few questions. The lesson asks for many: the same
steps with another goal at each, drawn among the categories that were in view so far. What was in
view is observed (detections), or is what the agent's own frozen encoder found in its pictures: then
the environment tells nothing that the agent does not see.

Shapes: ``...`` stands for N rows or N rows x T steps; C categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from relic.policy.auxiliary import AuxiliaryLosses
from relic.policy.auxiliary_config import RecallConfig
from relic.policy.encoders.inputs import picked
from relic.policy.encoders.sightings import Found
from relic.policy.goal_location import GoalGuess, GoalLocationHead, guess_errors, into_frame
from relic.policy.steps import SequenceBatch


class RecallHead(GoalLocationHead):
    """Guesses the place from the memory's output, and tells the other heads."""

    config: RecallConfig
    _find: Callable[[Mapping[str, Tensor]], Found]

    def find_with(self, find: Callable[[Mapping[str, Tensor]], Found]) -> None:
        """Take what finds objects in pictures; asked where the configuration has `seen=null`."""
        self._find = find

    def lesson(self, batch: SequenceBatch, uniform_NT: Tensor) -> SequenceBatch:
        """Ask for another category at each step, of those that were in view so far.

        Args:
            batch: Steps in context order, from the trials' beginning.
            uniform_NT: Decides which category; where none was in view, the goal stays.
        """
        config, observation = self.config, batch.observation
        in_view_NTC, place_NTC2 = self._in_view(observation, config.least_pixels)
        last_NTC = last_in_view(in_view_NTC)
        known_NTC = last_NTC >= 0
        # The k-th known category: where as many are known up to it, it itself included.
        rank_NT = (uniform_NT * known_NTC.sum(-1)).long()
        chosen_NTC = known_NTC & (known_NTC.cumsum(-1) == rank_NT[..., None] + 1)
        asked_NT = torch.where(
            known_NTC.any(-1), chosen_NTC.long().argmax(-1), observation[config.goal].long()
        )
        changed = {
            config.goal: asked_NT.to(observation[config.goal].dtype),
            config.target: answers(last_NTC, place_NTC2, asked_NT),
        }
        if config.goal_seen is not None:
            seen_NTC4 = self._seen(observation)
            shown_NT1 = picked(seen_NTC4[..., :1] > 0.5, asked_NT).float()
            where_NT4 = picked(torch.cat([seen_NTC4[..., 2:], place_NTC2], -1), asked_NT)
            changed[config.goal_seen] = torch.cat([shown_NT1, shown_NT1 * where_NT4], -1)
        return replace(batch, observation={**observation, **changed})

    def auxiliary_losses(self, output: GoalGuess, batch: SequenceBatch) -> AuxiliaryLosses:
        """Return the negative log-likelihood in nats, 0 where there is nothing to recall.

        The metrics are the share of steps that have something to recall, and how far the guess is
        off in them, times that share.
        """
        target = self._target(batch)
        seen = (target[..., 0] > 0.5).float()
        loss, error = guess_errors(output, target[..., None, 1:])
        return AuxiliaryLosses(
            {"recall_loss": loss * seen}, {"recall_share": seen, "recall_error": error * seen}
        )

    def _target(self, batch: SequenceBatch) -> Tensor:
        """Return whether the goal was in view, and where it was last, (N, T, 3)."""
        config, observation = self.config, batch.observation
        # What is observed of recall holds for the order of time. In a context that is passed as a
        # whole, shuffled as it may be, its own order decides what can be recalled.
        if config.seen is not None and not (batch.whole and config.seen in observation):
            return observation[config.target]
        # Steps that begin inside a trial (behind a constant prefix) do not show what came before.
        # What was in view since then is later, so its answers are right; the others are missing.
        in_view_NTC, place_NTC2 = self._in_view(observation, 1)
        return answers(last_in_view(in_view_NTC), place_NTC2, observation[config.goal].long())

    def _in_view(
        self, observation: Mapping[str, Tensor], least_pixels: int
    ) -> tuple[Tensor, Tensor]:
        """Return which categories are in view, (N, T, C), and their places, (N, T, C, 2)."""
        config = self.config
        if config.seen is None:
            found = self._find(observation)
            return found.evidence_G >= config.least_evidence, found.place_G2
        seen_NTC4 = self._seen(observation)
        in_view_NTC = (seen_NTC4[..., 0] > 0.5) & (seen_NTC4[..., 1] >= least_pixels)
        heading_NT11 = observation[config.heading].float().unsqueeze(-2)
        offset_NTC2 = into_frame(seen_NTC4[..., 2:], heading_NT11)
        return in_view_NTC, observation[config.position].float().unsqueeze(-2) + offset_NTC2

    def _seen(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return of each category a flag, pixels, metres ahead and right, (N, T, C, 4)."""
        assert self.config.seen is not None
        return observation[self.config.seen].float().unflatten(-1, (-1, 4))


def last_in_view(in_view_NTC: Tensor) -> Tensor:
    """Return the step in which each category was last in view so far, -1 where it never was."""
    steps_T1 = torch.arange(in_view_NTC.shape[1], device=in_view_NTC.device)[:, None]
    return torch.where(in_view_NTC, steps_T1, -1).cummax(dim=1).values


def answers(last_NTC: Tensor, place_NTC2: Tensor, asked_NT: Tensor) -> Tensor:
    """Return whether what is asked for was in view, and where it was last, (N, T, 3)."""
    recalled_NTC2 = place_NTC2.gather(1, last_NTC.clamp(min=0)[..., None].expand_as(place_NTC2))
    known_NT1 = picked((last_NTC >= 0)[..., None], asked_NT).float()
    return torch.cat([known_NT1, picked(recalled_NTC2, asked_NT)], -1)
