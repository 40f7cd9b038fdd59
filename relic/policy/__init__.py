"""What the agent is: encoders, a memory, heads; `policy` is where to begin."""

from typing import TYPE_CHECKING

from relic.lazy import names_of

if TYPE_CHECKING:
    from relic.policy.loading import load
    from relic.policy.policy import Policy
    from relic.policy.steps import PolicyOutput, PolicyState, PolicyStep, SequenceBatch

__all__ = ["load", "Policy", "PolicyOutput", "PolicyState", "PolicyStep", "SequenceBatch"]

_steps = ("PolicyOutput", "PolicyState", "PolicyStep", "SequenceBatch")
__getattr__ = names_of(
    __name__,
    {
        "load": "relic.policy.loading",
        "Policy": "relic.policy.policy",
        **dict.fromkeys(_steps, "relic.policy.steps"),
    },
)
