"""Every memory, small; what holds for all of them is tested with each."""

from dataclasses import fields

from relic.policy.memory.memories import MemorySections

CHOICES = [choice for one in fields(MemorySections) for choice in one.metadata.get("choices", {})]
"""Values of `policy.memory`; a new memory is tested with the rest as soon as it is registered."""

_STACK = {"num_layers": 2, "width": 16, "mlp_width": 32}
SMALL = {
    "transformer": {**_STACK, "num_heads": 2},
    "recurrent": {"width": 16},
    "transformer_xl": {**_STACK, "num_heads": 2, "memory_steps": 6},
    "min_gru": _STACK,
    "delta_rule": {**_STACK, "num_heads": 2},
    "memo": {**_STACK, "num_heads": 2, "segment_steps": 5, "summary_tokens": 2},
    "selective": {**_STACK, "num_heads": 2, "state_size": 8},
}
"""Sections of the policy's configuration."""
