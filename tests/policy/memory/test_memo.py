import pytest
import torch

from relic.policy.memory.config import MemoConfig
from relic.policy.memory.memo.memo import ROPE_BASE, Memo
from relic.policy.memory.positions import rotate, rotation
from relic.policy.memory.sequence_model import ContextOverflowError


def make(segment_steps=6, summary_tokens=2, num_layers=2):
    return Memo(
        MemoConfig(
            num_layers=num_layers,
            num_heads=2,
            width=16,
            mlp_width=24,
            segment_steps=segment_steps,
            summary_tokens=summary_tokens,
        ),
        max_episode_steps=9,
    )


@pytest.mark.parametrize(("segment", "tokens"), [(2, 1), (6, 2), (9, 4), (36, 3), (100, 8)])
def test_every_cached_way_equals_the_full_pass(check_memory, segment, tokens):
    check_memory(make(segment, tokens))


def by_hand(model, x):
    """One row as a transformer over all items at once, under one mask."""
    length, tokens = model.config.segment_steps, model.config.summary_tokens
    items, segment, is_step = [], [], []
    for t, x_E in enumerate(x):
        items.append(x_E)
        segment.append(t // length)
        is_step.append(True)
        if t % length == length - 1:
            items += list(model.summary_ME)
            segment += [t // length] * tokens
            is_step += [False] * tokens
    h, segment, is_step = torch.stack(items), torch.tensor(segment), torch.tensor(is_step)
    index = torch.arange(len(h))
    earlier_summary = ~is_step & (segment < segment[:, None])
    seen = earlier_summary | ((segment == segment[:, None]) & (index <= index[:, None]))
    factor = rotation(index, 8, ROPE_BASE)[:, None]
    for block in model.blocks:
        q, k, v = block.qkv(block.attention_norm(h)).view(len(h), 3, 2, 8).unbind(1)
        scores = torch.einsum("ihd,jhd->hij", rotate(q, factor), rotate(k, factor)) / 8**0.5
        weight = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        h = h + block.out(torch.einsum("hij,jhd->ihd", weight, v).flatten(1))
        h = h + block.mlp(block.mlp_norm(h))
    return model.norm(h)[is_step]


def test_a_pass_is_one_transformer_under_one_mask(trials_of):
    model = make(segment_steps=4)
    trials = trials_of(model, num_rows=1, num_steps=14)
    with torch.no_grad():
        want = by_hand(model, trials.x[0])
    torch.testing.assert_close(trials.y[0], want, rtol=0, atol=1e-5)


def test_what_a_summary_keeps_is_learned_through_it():
    model = make(segment_steps=4, num_layers=1)
    x = torch.randn(1, 9, 16, requires_grad=True)
    y = model(x, torch.zeros(1, 9, dtype=torch.bool))[0, 8]
    (y * torch.randn(16)).sum().backward()
    assert x.grad is not None
    # The first layer's steps reach the ninth only by way of later layers' summaries.
    assert not x.grad[0, :8].any()
    assert model.summary_ME.grad is not None
    assert model.summary_ME.grad.any()
    deeper = make(segment_steps=4, num_layers=2)
    y = deeper(x, torch.zeros(1, 9, dtype=torch.bool))[0, 8]
    (y * torch.randn(16)).sum().backward()
    assert x.grad[0, 0].any()


def test_rows_in_different_segments_learn_on_their_own_prefixes(trials_of):
    model = make()
    trials = trials_of(model)
    state = model.initial_state(4, 36)
    at = [0, 5, 17, 24]
    model.prefill(trials.x[:, :24], trials.starts[:, :24], state, lengths=at)
    x = torch.stack([trials.x[n, t : t + 12] for n, t in enumerate(at)])
    want = torch.stack([trials.y[n, t : t + 12] for n, t in enumerate(at)])
    got = model(x, torch.zeros(4, 12, dtype=torch.bool), state.snapshot())
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_the_cache_is_the_segment_and_an_eighth_of_the_rest():
    model = make(segment_steps=16, summary_tokens=2)
    one = model.bytes_per_row(0) // 16
    assert model.bytes_per_row(16_000) == (16 + 2_000) * one
    assert model.initial_state(3, 160).kv.nbytes == 3 * model.bytes_per_row(160)


def test_a_full_memory_refuses_and_stays_as_it_is():
    model = make()
    state = model.initial_state(3, 12)
    x, starts = torch.randn(3, 12, 16), torch.zeros(3, 12, dtype=torch.bool)
    model.prefill(x, starts, state)
    held = state.kv.clone()
    with pytest.raises(ContextOverflowError, match="capacity=12 steps, got step 13"):
        model.step(x[:, 0], starts[:, 0], state)
    assert torch.equal(state.kv, held)
    model.step(x[:, 0], starts[:, 0], state, write=False)


def test_what_does_not_fit_is_refused():
    model = make()
    x, starts = torch.randn(2, 3, 16), torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(TypeError, match="must be of class MemoState"):
        model.step(x[:, 0], starts[:, 0], {})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="state must have the 2 rows of x, got 3"):
        model(x, starts, model.initial_state(3, 5))
    with pytest.raises(ValueError, match="shape and capacity must be"):
        model.initial_state(2, 5).load_state_dict(model.initial_state(3, 5).state_dict())
    with pytest.raises(ValueError, match="summary_tokens: must be below segment_steps 4, got 4"):
        MemoConfig(segment_steps=4, summary_tokens=4)
