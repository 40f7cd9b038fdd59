"""The registry of memories: add a new one here.

A memory is one file with a `SequenceModel` and its state, a configuration in `config`, and one line
in `MemorySections`. The line makes the section `policy.<name>` and the values of `policy.memory`
that read it; planning, checkpoints and evaluation ask the class, which is imported where a memory
is built. `docs/own_memory.md` shows it, and how a memory is named that lives outside the package.
"""

# ruff: noqa: RUF009 - `section` makes a dataclass field, no default

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Self, cast

from relic.policy.memory.config import (
    Capabilities,
    DeltaRuleConfig,
    MemoConfig,
    MemoryConfig,
    MinGRUConfig,
    RecurrentConfig,
    SelectiveConfig,
    TransformerConfig,
    TransformerXLConfig,
    capabilities_of,
)
from relic.schema import ConfigError, build, nearest, to_plain

if TYPE_CHECKING:
    from relic.policy.memory.sequence_model import SequenceModel


def section(config: type[MemoryConfig], **choices: str) -> Any:
    """Return the field that holds a section of the configuration.

    Args:
        config: Its class.
        choices: Values of `policy.memory` that read the section, and the classes they stand for, as
            module:Class below this package. They are imported where a memory is built.
    """
    return field(default_factory=config, metadata={"choices": choices})


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySections:
    """The choice of a memory, and a section for each."""

    memory: str = "transformer"
    """Which memory: one that reads a section below, or `module:Class` for one of your own."""
    memory_options: dict[str, Any] = field(default_factory=dict)
    """Fields of the configuration of a memory of your own."""
    transformer: TransformerConfig = section(
        TransformerConfig, transformer="transformer:Transformer"
    )
    """Read where memory is transformer."""
    recurrent: RecurrentConfig = section(
        RecurrentConfig, lstm="states.recurrent:LSTM", gru="states.recurrent:GRU"
    )
    """Read where memory is lstm or gru."""
    transformer_xl: TransformerXLConfig = section(
        TransformerXLConfig, transformer_xl="transformer_xl:TransformerXL"
    )
    """Read where memory is transformer_xl."""
    min_gru: MinGRUConfig = section(MinGRUConfig, min_gru="states.min_gru:MinGRU")
    """Read where memory is min_gru."""
    delta_rule: DeltaRuleConfig = section(DeltaRuleConfig, delta_rule="states.delta_rule:DeltaRule")
    """Read where memory is delta_rule."""
    selective: SelectiveConfig = section(SelectiveConfig, selective="states.selective:Selective")
    """Read where memory is selective."""
    memo: MemoConfig = section(MemoConfig, memo="memo.memo:Memo")
    """Read where memory is memo."""

    def __post_init__(self) -> None:
        """Refuse a memory that is not there, and options that it does not have."""
        if self.memory_options and ":" not in self.memory:
            raise ValueError(
                f"memory_options: must be empty with memory={self.memory}, got "
                f"{self.memory_options}. Set the fields of its own section."
            )
        self.memory_config  # noqa: B018 - builds and so checks the section

    @property
    def memory_class(self) -> type[SequenceModel]:
        """The class of the chosen memory."""
        return memory_class(self.memory)

    @property
    def memory_config(self) -> MemoryConfig:
        """The section that the chosen memory reads."""
        if ":" not in self.memory:
            return getattr(self, _choice(self.memory)[0])
        try:
            return build(self.memory_class.Config, self.memory_options, "memory_options")
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @property
    def memory_can(self) -> Capabilities:
        """What the chosen memory can do beyond its interface."""
        # A class of one's own may say it itself; ours need not be imported to be asked.
        if ":" in self.memory:
            return self.memory_class.capabilities(self.memory_config)
        return capabilities_of(self.memory_config)

    @property
    def width(self) -> int:
        """Size of the token that the encoder makes and the memory reads."""
        return self.memory_config.width

    def with_memory_config(self, config: MemoryConfig) -> Self:
        """Return this with another section for the chosen memory."""
        # A memory of one's own has no section, only options.
        if ":" in self.memory:
            return replace(self, memory_options=to_plain(config))
        return replace(self, **{_choice(self.memory)[0]: config})


def make_memory(config: MemorySections, *, max_episode_steps: int) -> SequenceModel:
    """Return the memory that a policy's configuration chooses.

    Args:
        config: Names it, and describes it.
        max_episode_steps: Longest episode; may size tables of positions.
    """
    return config.memory_class(config.memory_config, max_episode_steps=max_episode_steps)


def unread_sections(config: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of sections that the memory of a plain configuration does not read.

    Args:
        config: Of a whole run; its `policy` may be of an older version.
    """
    chosen = dict(config.get("policy") or {}).get("memory", "transformer")
    read = _choices().get(chosen, ("", ""))[0]
    return [f"policy.{name}" for name in sorted({s for s, _ in _choices().values()} - {read})]


@cache
def _choices() -> Mapping[str, tuple[str, str]]:
    """Return section and module:Class by value of `policy.memory`."""
    return {
        choice: (one.name, model)
        for one in fields(MemorySections)
        for choice, model in one.metadata.get("choices", {}).items()
    }


def memory_class(name: str) -> type[SequenceModel]:
    """Return the class that a value of `policy.memory` stands for.

    Raises:
        ValueError: If there is none.
    """
    if ":" in name:
        return _class_at(name)
    return _class_at(f"{__package__}.{_choice(name)[1]}")


def _choice(name: str) -> tuple[str, str]:
    known = _choices()
    if name not in known:
        raise ValueError(
            f"memory: unknown {name!r}. Choose one of: {', '.join(known)}, or name your own as "
            f"module:Class. {nearest(name, known)}"
        )
    return known[name]


@cache
def _class_at(name: str) -> type[SequenceModel]:
    from relic.policy.memory.sequence_model import SequenceModel  # needs torch

    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"memory: {name!r} must name a class as module:Class, but {error}. Check the spelling "
            "and that the module can be imported from here."
        ) from None
    if not (isinstance(found, type) and issubclass(found, SequenceModel)):
        raise ValueError(
            f"memory: {name!r} must be a SequenceModel, got {found!r}. See docs/own_memory.md."
        )
    return cast("type[SequenceModel]", found)
