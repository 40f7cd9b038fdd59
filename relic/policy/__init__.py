"""What the agent is: encoders, a memory, heads; `policy` is where to begin."""

from relic.policy.loading import load
from relic.policy.policy import Policy
from relic.policy.steps import PolicyOutput, PolicyState, PolicyStep, SequenceBatch

__all__ = ["load", "Policy", "PolicyOutput", "PolicyState", "PolicyStep", "SequenceBatch"]
