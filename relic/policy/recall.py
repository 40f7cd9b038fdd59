"""The auxiliary head that recalls where the goal was last in view.

It is the head of `relic.policy.goal_location` with another lesson: not where the nearest instance
lies, which the environment alone knows, but where the agent itself was last shown one in this
trial. A step whose goal was never in view has nothing to recall and no loss.

Shapes: ``...`` stands for N rows or N rows x T steps.
"""

from __future__ import annotations

from relic.policy.auxiliary import AuxiliaryLosses
from relic.policy.goal_location import GoalGuess, GoalLocationHead, guess_errors
from relic.policy.steps import SequenceBatch


class RecallHead(GoalLocationHead):
    """Guesses the place from the memory's output, and tells the other heads."""

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
