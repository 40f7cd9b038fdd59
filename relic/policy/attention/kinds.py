"""Choices of attention in a configuration; importing them does not need torch."""

from __future__ import annotations

from enum import Enum


class AttentionBackend(Enum):
    """Which code computes attention."""

    AUTO = "auto"
    REFERENCE = "reference"
    SDPA = "sdpa"
    COMPILED = "compiled"
    """The project's own kernels for the CPU."""
    VARLEN = "varlen"
    FLASH = "flash"


class SinkKind(Enum):
    """Which part of a sink is learned; 0 stands for a part fixed at zero."""

    NONE = "none"
    TOKEN = "token"
    KV = "kv"
    KV0 = "kv0"
    K0V = "k0v"
    K0V0 = "k0v0"

    @property
    def has_learned_key(self) -> bool:
        """Whether each layer learns sink keys."""
        return self in (SinkKind.KV, SinkKind.KV0)

    @property
    def has_learned_value(self) -> bool:
        """Whether each layer learns sink values."""
        return self in (SinkKind.KV, SinkKind.K0V)
