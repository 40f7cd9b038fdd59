"""Configuration of the policy; the configuration of each part is beside the part."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated

from relic.policy.auxiliary_config import AuxiliaryConfig, GoalLocationConfig, RecallConfig
from relic.policy.encoders.config import EncoderConfig
from relic.policy.memory.memories import MemorySections
from relic.schema import POSITIVE, check_bounds


@dataclass(frozen=True, kw_only=True, slots=True)
class CriticConfig:
    """Inputs of the critic."""

    privileged: tuple[str, ...] = ()
    """Observed vectors that only the critic sees, and only in training. With none, the critic is
    one linear layer."""
    hidden: Annotated[int, POSITIVE] = 128
    """Width of the hidden layer of a critic that sees them."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_bounds(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyConfig(MemorySections):
    """What the agent is: its memory, how observations reach it, and what teaches it.

    The memory is chosen and described by the fields of `MemorySections`.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """How an observation becomes a token."""
    log_std: float = 0.0
    """Logarithm of the standard deviation of continuous actions, at the start."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    """What the critic sees beside the actor's inputs."""
    goal_location: GoalLocationConfig | None = None
    """It is an auxiliary head; the actor gets its prediction. null: no such head."""
    recall: RecallConfig | None = None
    """It is an auxiliary head; the actor gets its prediction. null: no such head."""

    def __post_init__(self) -> None:
        """Refuse heads that learn from what the encoder cannot say."""
        MemorySections.__post_init__(self)
        for section in self.auxiliary.values():
            section.check_encoder(self.encoder)

    @property
    def auxiliary(self) -> dict[str, AuxiliaryConfig]:
        """The auxiliary heads that there are, by name; each is a field above."""
        sections = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in sections.items() if isinstance(v, AuxiliaryConfig)}
