import dataclasses

import pytest

from relic.policy.attention.kinds import AttentionBackend, SinkKind
from relic.policy.config import PolicyConfig
from relic.policy.memory.config import (
    TRANSFORMER_SIZES,
    PositionKind,
    RecurrentConfig,
    TransformerConfig,
    TransformerXLConfig,
)
from relic.policy.memory.memories import make_memory
from relic.policy.memory.states.recurrent import GRU, LSTM
from relic.policy.memory.transformer import Transformer
from relic.policy.memory.transformer_xl import TransformerXL
from relic.schema import ConfigError, build


def test_the_default_is_the_published_main_model():
    config = TransformerConfig()
    assert config == TransformerConfig.preset("small")
    assert config.sink is SinkKind.KV0
    assert (config.sink_slots, config.head_dim) == (1, 32)
    assert dataclasses.replace(config, sink=SinkKind.NONE, num_sinks=4).sink_slots == 0


@pytest.mark.parametrize("size", TRANSFORMER_SIZES)
def test_sizes_have_names_and_take_overrides(size):
    config = TransformerConfig.preset(size, depth_dropout=0.1)
    assert config.depth_dropout == 0.1
    assert config.width == TRANSFORMER_SIZES[size]["width"]


@pytest.mark.parametrize(
    ("kind", "section", "expected"),
    [
        ("transformer", {"transformer": TransformerConfig.preset("tiny")}, Transformer),
        ("lstm", {"recurrent": RecurrentConfig(width=8)}, LSTM),
        ("gru", {"recurrent": RecurrentConfig(width=8)}, GRU),
        (
            "transformer_xl",
            {"transformer_xl": TransformerXLConfig(width=16)},
            TransformerXL,
        ),
    ],
)
def test_the_memory_is_what_the_configuration_names(kind, section, expected):
    config = PolicyConfig(memory=kind, **section)
    memory = make_memory(config, max_episode_steps=9)
    assert isinstance(memory, expected)
    assert memory.width == config.width == next(iter(section.values())).width


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 7}, "num_heads: must divide width 256, got 7. Use one of: 1, 2, 4"),
        ({"num_layers": 0}, "num_layers: must be positive, got 0"),
        ({"attention_window": -1}, "attention_window: must be positive, got -1"),
        ({"num_heads": 256}, "num_heads: must leave an even head size, got 1 = width 256 / 256"),
        ({"depth_dropout": 1.0}, r"depth_dropout: must be in \[0, 1\), got 1.0"),
        ({"drop_first": -2}, "drop_first: must be at least 0, got -2"),
        (
            {"drop_first": 2, "attention_window": 5},
            "drop_first: must be 0 with an attention_window",
        ),
        (
            {"in_episode_position": PositionKind.ROPE},
            "episode_position: must not be rope while in_episode_position is rope",
        ),
        ({"reset_position": False}, "max_positions: must be given where reset_position is off"),
        (
            {"attention_backend": AttentionBackend.VARLEN, "attention_window": 5},
            "attention_backend: must keep sinks inside a window, got varlen",
        ),
    ],
)
def test_values_that_no_model_can_be_built_from_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RecurrentConfig(width=0), "width: must be positive, got 0"),
        (lambda: TransformerXLConfig(memory_steps=0), "memory_steps: must be positive, got 0"),
        (lambda: TransformerXLConfig(num_heads=3), "num_heads: must divide width 256, got 3"),
        (lambda: TransformerXLConfig(width=9, num_heads=3), "width: must be even, got 9"),
        (lambda: TransformerConfig.preset("huge"), "size: unknown 'huge'. Choose one of: darkroom"),
    ],
)
def test_baselines_and_sizes_are_checked_too(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_messages_carry_the_dotted_path():
    with pytest.raises(ConfigError, match=r"^policy\.transformer\.sink: unknown 'kv1'"):
        build(PolicyConfig, {"transformer": {"sink": "kv1"}}, "policy")
    with pytest.raises(ConfigError, match=r"^policy\.transformer\.num_heads: must divide width 64"):
        build(PolicyConfig, {"transformer": {"width": 64, "num_heads": 5}}, "policy")
