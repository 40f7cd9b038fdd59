import math

import pytest
import torch

from relic.policy.memory import transformer_xl
from relic.policy.memory.config import TransformerXLConfig
from relic.policy.memory.sequence_model import ContextOverflowError
from relic.policy.memory.transformer_xl import TransformerXL


def make(memory_steps=6, num_layers=2):
    return TransformerXL(
        TransformerXLConfig(
            num_layers=num_layers, num_heads=2, width=16, mlp_width=24, memory_steps=memory_steps
        ),
        max_episode_steps=9,
    )


@pytest.mark.parametrize("memory_steps", [1, 6, 35, 100])
def test_every_cached_way_equals_the_full_pass(check_memory, memory_steps, monkeypatch):
    # Several blocks of queries, the last one not full.
    monkeypatch.setattr(transformer_xl, "QUERY_BLOCK", 11)
    check_memory(make(memory_steps))


def by_hand(model, x):
    """One row, one query and one head at a time, from the formula of the paper."""
    reach = model.config.memory_steps
    h = x
    for block in model.blocks:
        normed = block.attention_norm(h)
        q = block.query(normed).view(len(h), 2, 8)
        k, v = (part.view(len(h), 2, 8) for part in block.key_value(normed).chunk(2, dim=-1))
        attended = torch.zeros_like(q)
        for t in range(len(h)):
            seen = range(max(0, t - reach), t + 1)
            for head in range(2):
                scores = []
                for j in seen:
                    angle = (t - j) * 10_000.0 ** -(torch.arange(0, 16, 2) / 16)
                    code = torch.cat([angle.sin(), angle.cos()])
                    r = block.distance(code).view(2, 8)[head]
                    content = (q[t, head] + block.content_bias_HD[head]) @ k[j, head]
                    distance = (q[t, head] + block.distance_bias_HD[head]) @ r
                    scores.append((content + distance) / math.sqrt(8))
                weight = torch.stack(scores).softmax(0)
                attended[t, head] = weight @ v[seen.start : t + 1, head]
        h = h + block.out(attended.flatten(1))
        h = h + block.mlp(block.mlp_norm(h))
    return model.norm(h)


def test_a_pass_is_the_formula_by_hand(trials_of):
    model = make()
    trials = trials_of(model, num_rows=1, num_steps=14)
    with torch.no_grad():
        want = by_hand(model, trials.x[0])
    torch.testing.assert_close(trials.y[0], want, rtol=0, atol=1e-5)


def test_learning_reads_the_memory_that_acting_wrote(trials_of):
    """The memory is layer inputs: after an update, learning and acting project the same ones."""
    model = make()
    trials = trials_of(model)
    state = model.initial_state(4, 36)
    for t in range(20):
        model.step(trials.x[:, t], trials.starts[:, t], state)
    prefix = state.snapshot()
    assert prefix.inputs_LNCE.any(dim=-1).all()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.2)
    learned = model(trials.x[:, 20:21], trials.starts[:, 20:21], prefix)[:, 0]
    acted = model.step(trials.x[:, 20], trials.starts[:, 20], state)
    torch.testing.assert_close(learned, acted, rtol=0, atol=1e-4)
    alone = model(trials.x[:, 20:21], trials.starts[:, 20:21])[:, 0]
    assert not torch.allclose(learned, alone, atol=1e-2)


def test_each_layer_reaches_its_memory_and_no_further(trials_of):
    model = make(memory_steps=4, num_layers=2)
    trials = trials_of(model)
    x = trials.x.clone()
    x[:, 0] += 1
    moved = (model(x, trials.starts) - trials.y).abs().amax(dim=(0, 2)) > 1e-4
    assert moved.nonzero().flatten().tolist() == list(range(9))


def test_bytes_and_capacity(trials_of):
    model = make(memory_steps=6)
    state = model.initial_state(3, 20)
    held = state.inputs_LNCE.numel() + state.kv.numel()
    assert held * 4 == 3 * model.bytes_per_row(20)
    assert model.bytes_per_row(20) == model.bytes_per_row(20_000)
    x, starts = torch.randn(3, 20, 16), torch.zeros(3, 20, dtype=torch.bool)
    model.prefill(x, starts, state)
    model.step(x[:, 0], starts[:, 0], state, write=False)
    with pytest.raises(ContextOverflowError, match=r"capacity=20 steps, got step 21"):
        model.step(x[:, 0], starts[:, 0], state)


def test_states_that_do_not_fit_are_refused():
    model = make()
    x, starts = torch.randn(2, 3, 16), torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(TypeError, match="must be of class XLState"):
        model.step(x[:, 0], starts[:, 0], {})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="state must have the 2 rows of x, got 3"):
        model(x, starts, model.initial_state(3, 5))
    saved = model.initial_state(3, 5).state_dict()
    with pytest.raises(ValueError, match="shape and capacity must be"):
        model.initial_state(2, 5).load_state_dict(saved)
