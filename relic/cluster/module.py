"""The policy as RLlib holds it: an RLModule around it, for its weights and their checkpoints.

Acting and learning go through `relic.policy` and `relic.ppo`; RLlib never looks into a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gymnasium import spaces
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from envs.core.vector import TrialVectorEnv
from relic.policy.policy import Policy

FACTS = "relic_facts"
"""Key of the environment's facts in what RLlib calls spaces, and in a module's configuration."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be known of an environment that runs elsewhere; a `relic.run` EnvFacts."""

    single_observation_space: spaces.Space[Any]
    single_action_space: spaces.Space[Any]
    max_episode_steps: int
    time_limit_default: str

    @classmethod
    def of(cls, env: TrialVectorEnv) -> Facts:
        """Read them off an environment."""
        return cls(
            env.single_observation_space,
            env.single_action_space,
            env.max_episode_steps,
            env.time_limit_default,
        )


class ReLICModule(TorchRLModule):
    """Holds a policy that somebody else has built."""

    def __init__(self, policy: Policy) -> None:
        """Wrap the policy; its parameters are the module's."""
        super().__init__(
            observation_space=policy.observation_space,
            action_space=policy.action_space,
            model_config={},
        )
        self.policy = policy
