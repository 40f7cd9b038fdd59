"""Inputs and outputs of a policy: batches of steps, results, and its state.

Shapes: N rows, T steps, A action dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relic.policy.heads import ActionDistribution
from relic.policy.memory.sequence_model import Rows, SequenceState, row_indices


@dataclass(slots=True)
class SequenceBatch:
    """Steps of N rows in context order, as a rollout keeps them.

    Attributes:
        observation: (N, T, ...) by key, as `Policy.encode_observation` returned it.
        action: Executed actions, (N, T) or (N, T, A); vectors in the policy's units
            (`Policy.from_environment`).
        prev_action: Those of the steps before, in the same shape; not looked at where an episode
            starts.
        episode_starts: bool (N, T).
        whole: Nothing else is in the context in which they are passed: they have no prefix.
    """

    observation: Mapping[str, Tensor]
    action: Tensor
    prev_action: Tensor
    episode_starts: Tensor
    whole: bool = False


@dataclass(slots=True)
class PolicyStep:
    """What `Policy.step` did: (N,) each, `action` (N, A) where actions are vectors.

    Vectors are in the policy's units; `Policy.to_environment` and `Policy.clip_action` make of them
    what an environment may be given.
    `token` (N, E) is what the memory was given; `SequenceModel.prefill` takes it again.
    """

    action: Tensor
    log_prob: Tensor
    value: Tensor
    token: Tensor


@dataclass(slots=True)
class PolicyOutput:
    """What the policy says of steps that were taken: (N, T) each, float32.

    Attributes:
        log_prob: Of the executed actions.
        value: Of the states.
        entropy: Of the action distributions.
        distribution: The distributions themselves, for other actions or divergences.
        auxiliary: What each auxiliary head said of the steps, by its name.
    """

    log_prob: Tensor
    value: Tensor
    entropy: Tensor
    distribution: ActionDistribution
    auxiliary: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class PolicyState:
    """What the policy remembers of each row's trial.

    Attributes:
        memory: State of the sequence model.
        prev_action: The action of the step before, (N,) or (N, A), in the policy's units.
        started: bool (N,), false where the trial has not begun.
    """

    memory: SequenceState
    prev_action: Tensor
    started: Tensor

    def reset(self, rows: Rows | None = None) -> None:
        """Empties rows (a bool mask or indices; None: all): a new trial begins there."""
        self.memory.reset(rows)
        if rows is None:
            self.prev_action.zero_()
            self.started.fill_(False)
            return
        index = torch.as_tensor(row_indices(rows, len(self.started)), device=self.started.device)
        self.prev_action[index] = 0
        self.started[index] = False

    def record_action(self, action: Tensor | np.ndarray) -> None:
        """Set the action that was executed, where it was not the policy's (demonstrations).

        Args:
            action: In the policy's units.
        """
        self.prev_action.copy_(torch.as_tensor(action))

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on bit for bit."""
        return {
            "memory": self.memory.state_dict(),
            "prev_action": self.prev_action.clone(),
            "started": self.started.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.memory.load_state_dict(state["memory"])
        self.prev_action.copy_(state["prev_action"])
        self.started.copy_(state["started"])
