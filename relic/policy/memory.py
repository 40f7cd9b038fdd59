"""From a configuration to the sequence model that it asks for."""

from __future__ import annotations

from relic.policy.config import MemoryKind, PolicyConfig
from relic.policy.sequence_model import SequenceModel
from relic.policy.transformer import Transformer


def build_memory(config: PolicyConfig, *, max_episode_steps: int) -> SequenceModel:
    """Return the memory of a policy.

    Args:
        config: Its `memory` names the kind, the section of that kind its sizes.
        max_episode_steps: Steps that an episode may have.
    """
    if config.memory is not MemoryKind.TRANSFORMER:
        raise NotImplementedError(config.memory.value)
    return Transformer(config.transformer, max_episode_steps=max_episode_steps)
