"""Configurations of the memories, and what each lets a memory do.

They need no torch: a command line is checked before a network is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Protocol

from relic.policy.attention.kinds import AttentionBackend, SinkKind
from relic.schema import POSITIVE, Bound, at_least, check_bounds

_DROPOUT = Bound("be in [0, 1)", lambda v: 0 <= v < 1, "Use 0 to switch it off.")


class MemoryConfig(Protocol):
    """What every memory's configuration, a frozen dataclass, has."""

    @property
    def width(self) -> int:
        """Size of a token."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a memory can do beyond its interface."""

    keeps_steps: bool = False
    """What a step left behind stays as it is for the whole trial: states can be `rewound`, and the
    keys and values of a pass can be taken over (`SequenceModel.record_kv`)."""
    half_precision: bool = False
    """A state may be kept in half precision."""
    cuda_graph: bool = False
    """Steps can be replayed from CUDA graphs (`SequenceModel.use_cuda_graph`)."""
    context_limit: bool = False
    """Old steps can be left out (`SequenceModel.limit_context`)."""


def capabilities_of(config: object) -> Capabilities:
    """Return what a configuration says that its memory can do; nothing where it says nothing."""
    return getattr(config, "capabilities", Capabilities())


class PositionKind(Enum):
    """How a position reaches the transformer."""

    LEARNED = "learned"
    ROPE = "rope"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """The ReLIC memory: a causal transformer over the whole trial."""

    num_layers: Annotated[int, POSITIVE] = 4
    """Blocks of attention and MLP."""
    num_heads: Annotated[int, POSITIVE] = 8
    """Attention heads; must divide the width."""
    width: Annotated[int, POSITIVE] = 256
    """Size of a token."""
    mlp_width: Annotated[int, POSITIVE] = 1024
    """Hidden size of the GeGLU."""
    sink: SinkKind = SinkKind.KV0
    """What attention can fall back on; 0 marks a part fixed at zero."""
    num_sinks: Annotated[int, POSITIVE] = 1
    """Sinks per layer; ignored by the kind none."""
    rotate_sink_query: bool = True
    """Score sinks with the rotated query, as published, so that the episode index matters."""
    attention_backend: AttentionBackend = AttentionBackend.AUTO
    """Implementation of attention; auto takes the fastest available one."""
    inter_episode_attention: bool = True
    """Let a step see earlier episodes of its trial."""
    attention_window: Annotated[int | None, POSITIVE] = None
    """Newest steps that a step sees, itself included; null sees all."""
    drop_first: Annotated[int, at_least(0)] = 0
    """From this step of the trial on, the steps before it are forgotten; 0 keeps all."""
    in_episode_position: PositionKind = PositionKind.LEARNED
    """How the step's position in its episode enters."""
    episode_position: PositionKind = PositionKind.ROPE
    """How the episode's index in its trial enters."""
    rope_base: Annotated[float, POSITIVE] = 10_000.0
    """Base of the rotary wavelengths."""
    reset_position: bool = True
    """Restart the in-episode position at each episode; off counts through the trial."""
    max_positions: Annotated[int | None, POSITIVE] = None
    """Rows of the learned position table; null takes max_episode_steps + 1."""
    max_episodes: Annotated[int, POSITIVE] = 1024
    """Rows of the learned episode table; unused where the index is rotary."""
    depth_dropout: Annotated[float, _DROPOUT] = 0.0
    """Chance that a row skips a layer for a whole rollout while training."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""

    def __post_init__(self) -> None:
        """Refuse values that no model can be built from."""
        check_bounds(self)
        check_heads(self.num_heads, self.width)
        if self.head_dim % 2:
            raise ValueError(
                f"num_heads: must leave an even head size, got {self.head_dim} = width "
                f"{self.width} / {self.num_heads}. Rotary positions turn pairs."
            )
        self._check_combinations()

    def _check_combinations(self) -> None:
        rope = PositionKind.ROPE
        if self.in_episode_position is rope and self.episode_position is rope:
            raise ValueError(
                "episode_position: must not be rope while in_episode_position is rope, got both. "
                "Make one of them learned or none."
            )
        learned = self.in_episode_position is PositionKind.LEARNED
        if learned and not self.reset_position and self.max_positions is None:
            raise ValueError(
                "max_positions: must be given where reset_position is off and positions are "
                "learned, got null. Set it to the longest trial."
            )
        if self.drop_first and self.attention_window is not None:
            raise ValueError(
                f"drop_first: must be 0 with an attention_window, got {self.drop_first}. The "
                "window already forgets old steps."
            )
        packed = self.attention_backend in (AttentionBackend.VARLEN, AttentionBackend.FLASH)
        sinks = self.sink is not SinkKind.NONE
        if packed and sinks and self.attention_window is not None:
            raise ValueError(
                f"attention_backend: must keep sinks inside a window, got "
                f"{self.attention_backend.value}, which cannot. Use sdpa."
            )
        if packed and sinks and not self.rotate_sink_query:
            raise ValueError(
                "rotate_sink_query: must be on with the backends varlen and flash, got false. "
                "Use sdpa."
            )

    @property
    def head_dim(self) -> int:
        """Size of one head."""
        return self.width // self.num_heads

    @property
    def sink_slots(self) -> int:
        """Sinks that attention really has."""
        return 0 if self.sink is SinkKind.NONE else self.num_sinks

    @property
    def sees_whole_trial(self) -> bool:
        """Whether every step may attend to all steps before it."""
        return (
            self.inter_episode_attention and self.attention_window is None and not self.drop_first
        )

    @property
    def capabilities(self) -> Capabilities:
        """What a cache allows."""
        return Capabilities(
            keeps_steps=self.sees_whole_trial,
            half_precision=True,
            cuda_graph=True,
            context_limit=True,
        )

    def slots_for(self, capacity: int, max_episode_steps: int) -> int:
        """Return the cache's slots for trials of so many steps and one look ahead, sinks apart."""
        slots = capacity + 1
        if self.attention_window is not None:
            slots = min(slots, self.attention_window)
        if not self.inter_episode_attention:
            slots = min(slots, max_episode_steps + 1)
        if self.drop_first:
            slots = min(slots, max(self.drop_first, slots - self.drop_first))
        return slots

    @classmethod
    def preset(cls, size: str, **overrides: Any) -> TransformerConfig:
        """Return a named size, with fields of your own on top.

        Args:
            size: One of `TRANSFORMER_SIZES`.
            overrides: Fields by name.

        Raises:
            ValueError: If the size is unknown.
        """
        if size not in TRANSFORMER_SIZES:
            known = ", ".join(TRANSFORMER_SIZES)
            raise ValueError(f"size: unknown {size!r}. Choose one of: {known}.")
        return cls(**{**TRANSFORMER_SIZES[size], **overrides})


TRANSFORMER_SIZES: dict[str, dict[str, Any]] = {
    "darkroom": {
        "num_layers": 2,
        "num_heads": 4,
        "width": 64,
        "mlp_width": 128,
        "rope_base": 100.0,
    },
    "tiny": {"num_layers": 2, "num_heads": 8, "width": 64, "mlp_width": 256},
    "small": {"num_layers": 4, "num_heads": 8, "width": 256, "mlp_width": 1024},
    "large": {"num_layers": 8, "num_heads": 24, "width": 768, "mlp_width": 3072},
}
"""tiny, small and large as published; darkroom learns its task in minutes on a CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecurrentConfig:
    """The memory of RL²: an LSTM or GRU whose state lives as long as the trial."""

    num_layers: Annotated[int, POSITIVE] = 1
    """Stacked recurrent layers."""
    width: Annotated[int, POSITIVE] = 512
    """Size of a token and of the hidden state."""

    def __post_init__(self) -> None:
        """Refuse values that no model can be built from."""
        check_bounds(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class StackConfig:
    """Layers that each mix steps and then transform every step by itself."""

    num_layers: Annotated[int, POSITIVE] = 4
    """Blocks of a mixer and an MLP."""
    width: Annotated[int, POSITIVE] = 256
    """Size of a token."""
    mlp_width: Annotated[int, POSITIVE] = 1024
    """Hidden size of the GeGLU."""

    def __post_init__(self) -> None:
        """Refuse values that no model can be built from."""
        check_bounds(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class MinGRUConfig(StackConfig):
    """minGRU: a gated average of what steps are, the gates read from each step alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeltaRuleConfig(StackConfig):
    """The gated delta rule: a matrix per head that maps keys to values and unlearns what it had."""

    num_heads: Annotated[int, POSITIVE] = 8
    """Matrices of a layer; must divide the width."""

    def __post_init__(self) -> None:
        """Refuse values that no model can be built from."""
        StackConfig.__post_init__(self)
        check_heads(self.num_heads, self.width)


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectiveConfig(StackConfig):
    """A selective state space, as Mamba-2: a state per head that steps write to and decay."""

    num_heads: Annotated[int, POSITIVE] = 8
    """Heads of a layer, each with its own decay; must divide twice the width."""
    state_size: Annotated[int, POSITIVE] = 64
    """Numbers that each of a layer's 2 x width channels remembers."""

    def __post_init__(self) -> None:
        """Refuse values that no model can be built from."""
        StackConfig.__post_init__(self)
        check_heads(self.num_heads, 2 * self.width)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerXLConfig:
    """The memory of Transformer-XL: relative positions, and layer inputs of recent steps."""

    num_layers: Annotated[int, POSITIVE] = 4
    """Blocks of attention and MLP."""
    num_heads: Annotated[int, POSITIVE] = 8
    """Attention heads; must divide the width."""
    width: Annotated[int, POSITIVE] = 256
    """Size of a token."""
    mlp_width: Annotated[int, POSITIVE] = 1024
    """Hidden size of the GeGLU."""
    memory_steps: Annotated[int, POSITIVE] = 256
    """Steps before itself that each layer of a step sees."""

    def __post_init__(self) -> None:
        """Refuse values that no model can be built from."""
        check_bounds(self)
        check_heads(self.num_heads, self.width)
        if self.width % 2:
            raise ValueError(f"width: must be even, got {self.width}. Sines and cosines pair up.")

    @property
    def head_dim(self) -> int:
        """Size of one head."""
        return self.width // self.num_heads


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoConfig(StackConfig):
    """Memo: a transformer over the newest steps, and learned summaries of those before."""

    num_heads: Annotated[int, POSITIVE] = 8
    """Attention heads; must divide the width and leave an even size."""
    segment_steps: Annotated[int, POSITIVE] = 64
    """Steps that a summary is made of; a step sees those of its own segment."""
    summary_tokens: Annotated[int, POSITIVE] = 8
    """Tokens that are left of a segment; fewer than its steps."""

    def __post_init__(self) -> None:
        """Refuse values that no model can be built from."""
        StackConfig.__post_init__(self)
        check_heads(self.num_heads, self.width)
        if self.head_dim % 2:
            raise ValueError(
                f"num_heads: must leave an even head size, got {self.head_dim} = width "
                f"{self.width} / {self.num_heads}. Rotary positions turn pairs."
            )
        if self.summary_tokens >= self.segment_steps:
            raise ValueError(
                f"summary_tokens: must be below segment_steps {self.segment_steps}, got "
                f"{self.summary_tokens}. A summary is to be shorter than what it stands for."
            )

    @property
    def head_dim(self) -> int:
        """Size of one head."""
        return self.width // self.num_heads

    def slots_for(self, capacity: int) -> int:
        """Return the cache's slots for trials of so many steps."""
        return self.segment_steps + capacity // self.segment_steps * self.summary_tokens


def check_heads(num_heads: int, width: int) -> None:
    """Check that heads share a width out evenly.

    Raises:
        ValueError: If they do not.
    """
    if width % num_heads:
        fitting = ", ".join(str(n) for n in range(1, width + 1) if width % n == 0)
        raise ValueError(
            f"num_heads: must divide width {width}, got {num_heads}. Use one of: {fitting}."
        )
