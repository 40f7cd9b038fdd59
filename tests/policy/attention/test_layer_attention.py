import numpy as np
import pytest
import torch
from gymnasium import spaces

from relic.policy.attention.layer_attention import LayerAttention
from relic.policy.config import PolicyConfig
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch
from relic.schema import build

SPACE = spaces.Dict({"x": spaces.Box(-1.0, 1.0, (3,), np.float32)})
N, T = 2, 14
STARTS = (0, 4, 5, 9)


def make_policy(**transformer) -> Policy:
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "num_heads": 2, "width": 16, "mlp_width": 16, "rope_base": 100}
    config = build(PolicyConfig, {"transformer": {**sizes, **transformer}})
    policy = Policy(config, SPACE, spaces.Discrete(3), max_episode_steps=8).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    return policy


def make_batch() -> SequenceBatch:
    torch.manual_seed(1)
    action = torch.randint(3, (N, T))
    starts = torch.zeros(N, T, dtype=torch.bool)
    starts[:, list(STARTS)] = True
    return SequenceBatch({"x": torch.rand(N, T, 3)}, action, action.roll(1, 1), starts)


def watch_attention(policy: Policy, batch: SequenceBatch) -> list[LayerAttention]:
    with torch.no_grad(), policy.memory.watch_attention() as layers:
        policy.evaluate_actions(batch)
    return layers


@pytest.mark.parametrize(
    "transformer",
    [
        {"sink": "kv"},
        {"sink": "kv0", "num_sinks": 3},
        {"sink": "none"},
        {"sink": "token"},
        {"sink": "k0v", "rotate_sink_query": False},
        {"sink": "kv", "rotate_sink_query": False, "attention_backend": "reference"},
        {"inter_episode_attention": False},
        {"attention_window": 5},
    ],
)
def test_weights_are_those_that_the_policy_used(transformer):
    layers = watch_attention(make_policy(**transformer), make_batch())
    assert len(layers) == 2
    for layer in layers:
        weights = layer.weights()
        assert weights.shape == (N, 2, T, layer.num_sinks + T)
        torch.testing.assert_close(weights.sum(-1), torch.ones(N, 2, T), atol=1e-6, rtol=0)
        # The output came out of the pass itself, through whatever backend ran.
        output = weights @ layer.joined_value_NHJD
        torch.testing.assert_close(output, layer.output_NHTD, atol=1e-5, rtol=0)
        assert layer.output_NHTD.abs().max() > 0.05
        torch.testing.assert_close(layer.weights(slice(3, 7)), weights[:, :, 3:7])


def test_nothing_is_attended_to_that_cannot_be_seen():
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    index = torch.arange(T)
    episode = torch.bucketize(index, torch.tensor(STARTS), right=True)
    same = episode[:, None] == episode
    near = index[:, None] - index < 5
    for transformer, seen in (
        ({}, causal),
        ({"inter_episode_attention": False}, causal & same),
        ({"attention_window": 5}, causal & near),
    ):
        for layer in watch_attention(make_policy(**transformer), make_batch()):
            weights = layer.weights()[..., layer.num_sinks :]
            assert (weights[..., ~seen] == 0).all()
            assert (weights[..., seen] > 0).all()


def test_cached_decoding_attends_alike():
    # The newest query against the cache, written out by hand, gives the last row of weights.
    policy, batch = make_policy(sink="kv"), make_batch()
    state = policy.initial_state(N, T)
    policy.replay(batch, state)
    cache = state.memory
    for number, layer in enumerate(watch_attention(policy, batch)):
        key = cache.kv[number, 0, :, :, : 1 + T]  # type: ignore[attr-defined]
        score = torch.einsum("nhd,nhjd->nhj", layer.query_NHTD[:, :, -1], key)
        weights = (score / layer.query_NHTD.shape[-1] ** 0.5).softmax(-1)
        torch.testing.assert_close(layer.weights()[:, :, -1], weights, atol=1e-6, rtol=1e-4)


def test_watching_leaves_nothing_behind():
    policy, batch = make_policy(), make_batch()
    before = policy.evaluate_actions(batch).value
    watch_attention(policy, batch)
    assert torch.equal(policy.evaluate_actions(batch).value, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in policy.modules())


def test_other_memories_are_refused():
    config = build(PolicyConfig, {"memory": "gru"})
    policy = Policy(config, SPACE, spaces.Discrete(3), max_episode_steps=8)
    with pytest.raises(ValueError, match="a memory that attends to all steps, got GRU"):
        watch_attention(policy, make_batch())
