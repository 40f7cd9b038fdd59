import pytest
import torch

from relic.policy.attention.attend import attend
from relic.policy.attention.inputs import Sinks
from relic.policy.attention.kinds import SinkKind
from relic.policy.attention.sinks import SinkKV
from relic.policy.memory.config import TransformerConfig
from relic.policy.memory.transformer import Transformer

KV_KINDS = [SinkKind.KV, SinkKind.KV0, SinkKind.K0V, SinkKind.K0V0]


def make(kind, num_sinks=1):
    return SinkKV(kind, num_sinks, num_layers=2, num_heads=3, head_dim=4)


@pytest.mark.parametrize("kind", KV_KINDS)
def test_only_the_parts_that_are_learned_are_parameters(kind):
    sink = make(kind)
    names = {name for name, _ in sink.named_parameters()}
    assert names == ({"key_LHKD"} if kind.has_learned_key else set()) | (
        {"value_LHKD"} if kind.has_learned_value else set()
    )
    assert set(sink.state_dict()) == names
    key, value = sink.layer(1)
    assert key.shape == value.shape == (3, 1, 4)


@pytest.mark.parametrize("kind", KV_KINDS)
def test_one_sink_starts_at_zero_and_several_do_not(kind):
    assert all((p == 0).all() for p in make(kind).parameters())
    for parameter in make(kind, num_sinks=64).parameters():
        assert 0.015 < parameter.std().item() < 0.025
    assert not make(kind, num_sinks=3).key_LHKD.any() or kind.has_learned_key


def distance_after_training(sink: SinkKV) -> float:
    """Fit sinks of one layer to random targets; return how far apart two of them end."""
    optimizer = torch.optim.SGD(sink.parameters(), lr=5.0)
    q, k, v = torch.randn(3, 4, 3, 9, 4)
    target = torch.randn(4, 3, 9, 4)
    for _ in range(40):
        out = attend(q, k, v, sinks=Sinks(*sink.layer(0)))
        optimizer.zero_grad()
        (out - target).square().mean().backward()
        optimizer.step()
    return (sink.key_LHKD[0, :, 0] - sink.key_LHKD[0, :, 1]).norm().item()


def test_several_sinks_separate():
    sink = make(SinkKind.KV, num_sinks=2)
    start = (sink.key_LHKD[0, :, 0] - sink.key_LHKD[0, :, 1]).norm().item()
    assert distance_after_training(sink) > 2 * start
    # What would happen from the published start: the same gradient for ever.
    equal = make(SinkKind.KV, num_sinks=2)
    for parameter in equal.parameters():
        torch.nn.init.zeros_(parameter)
    assert distance_after_training(equal) == 0


def test_a_token_sink_starts_at_zero_and_learns():
    config = TransformerConfig.preset("darkroom", sink=SinkKind.TOKEN)
    model = Transformer(config, max_episode_steps=10)
    assert model.sink_token is not None
    assert not model.sink_token.any()
    model(torch.randn(2, 5, 64), torch.zeros(2, 5, dtype=torch.bool)).square().sum().backward()
    gradient = model.sink_token.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.any()
    several = TransformerConfig.preset("darkroom", sink=SinkKind.TOKEN, num_sinks=2)
    token = Transformer(several, max_episode_steps=10).sink_token
    assert token is not None
    assert not torch.equal(token[0], token[1])


@pytest.mark.parametrize("kind", list(SinkKind))
def test_sinks_cost_what_their_kind_says(kind):
    plain = Transformer(
        TransformerConfig.preset("darkroom", sink=SinkKind.NONE), max_episode_steps=9
    )
    model = Transformer(TransformerConfig.preset("darkroom", sink=kind), max_episode_steps=9)
    count = [sum(p.numel() for p in m.parameters()) for m in (plain, model)]
    per_part = 2 * 64
    parts = kind.has_learned_key + kind.has_learned_value
    assert count[1] - count[0] == (64 if kind is SinkKind.TOKEN else parts * per_part)
