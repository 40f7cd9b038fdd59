"""Configuration of the policy; each part's own is beside the part."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from relic.policy.auxiliary_config import AuxiliaryConfig, GoalLocationConfig, RecallConfig
from relic.policy.encoders.config import EncoderConfig
from relic.policy.memory.memories import MemorySections


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyConfig(MemorySections):
    """What the agent is: its memory, how observations reach it, and what teaches it.

    The memory is chosen and described by the fields of `MemorySections`.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """How an observation becomes a token."""
    log_std: float = 0.0
    """Initial logarithm of the standard deviation of continuous actions."""
    goal_location: GoalLocationConfig | None = None
    """Auxiliary head, whose guess the actor is told. null: none."""
    recall: RecallConfig | None = None
    """Auxiliary head that recalls where the goal was last in view; told, too. null: none."""

    @property
    def auxiliary(self) -> dict[str, AuxiliaryConfig]:
        """The auxiliary heads that there are, by name; each is a field above."""
        sections = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in sections.items() if isinstance(v, AuxiliaryConfig)}
