"""The choice of a sequence model by configuration; only the chosen one is imported."""

from __future__ import annotations

from relic.policy.config import MemoryKind, PolicyConfig
from relic.policy.memory.sequence_model import SequenceModel


def make_memory(config: PolicyConfig, *, max_episode_steps: int) -> SequenceModel:
    """Return the sequence model that a policy's configuration asks for.

    Args:
        config: Names the kind and its sizes.
        max_episode_steps: Longest episode; sizes the table of in-episode positions.
    """
    if config.memory is MemoryKind.TRANSFORMER:
        from relic.policy.memory.transformer import Transformer

        return Transformer(config.transformer, max_episode_steps=max_episode_steps)
    if config.memory is MemoryKind.TRANSFORMER_XL:
        from relic.policy.memory.transformer_xl import TransformerXL

        return TransformerXL(config.transformer_xl)
    from relic.policy.memory.recurrent import Recurrent

    return Recurrent(config.recurrent, cell=config.memory)
