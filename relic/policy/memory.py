"""From a configuration to the sequence model that it asks for."""

from __future__ import annotations

from relic.policy.config import MemoryKind, PolicyConfig
from relic.policy.recurrent import Recurrent
from relic.policy.sequence_model import SequenceModel
from relic.policy.transformer import Transformer
from relic.policy.transformer_xl import TransformerXL


def build_memory(config: PolicyConfig, *, max_episode_steps: int) -> SequenceModel:
    """Return the memory of a policy.

    Args:
        config: Its `memory` names the kind, the section of that kind its sizes.
        max_episode_steps: Steps that an episode may have.
    """
    if config.memory is MemoryKind.TRANSFORMER:
        return Transformer(config.transformer, max_episode_steps=max_episode_steps)
    if config.memory is MemoryKind.TRANSFORMER_XL:
        return TransformerXL(config.transformer_xl)
    return Recurrent(config.recurrent, config.memory)
