"""What the agent is: encoders, sequence models with their caches, heads."""

from relic.policy.loading import load
from relic.policy.policy import Policy, PolicyOutput, PolicyState, PolicyStep, SequenceBatch

__all__ = ["load", "Policy", "PolicyOutput", "PolicyState", "PolicyStep", "SequenceBatch"]
