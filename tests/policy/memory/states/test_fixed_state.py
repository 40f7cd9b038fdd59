"""Memories whose state has one size: each kept to the interface, and to its own equations."""

import pytest
import torch

from relic.policy.memory.config import (
    DeltaRuleConfig,
    MinGRUConfig,
    RecurrentConfig,
    SelectiveConfig,
)
from relic.policy.memory.states import scan
from relic.policy.memory.states.delta_rule import DeltaRule
from relic.policy.memory.states.min_gru import MinGRU
from relic.policy.memory.states.recurrent import LSTM
from relic.policy.memory.states.selective import Selective

SIZES = {"num_layers": 2, "width": 16, "mlp_width": 24}
MODELS = {
    "min_gru": (MinGRU, MinGRUConfig(**SIZES)),
    "delta_rule": (DeltaRule, DeltaRuleConfig(**SIZES, num_heads=2)),
    "selective": (Selective, SelectiveConfig(**SIZES, num_heads=4, state_size=6)),
    "lstm": (LSTM, RecurrentConfig(num_layers=2, width=16)),
}
STACKS = ["min_gru", "delta_rule", "selective"]


def make(name):
    model, config = MODELS[name]
    return model(config, max_episode_steps=9)


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_every_cached_way_equals_the_full_pass(check_memory, name, chunk, monkeypatch):
    # Several chunks, the last one not full; one a step; one for all.
    monkeypatch.setattr(scan, "CHUNK", chunk)
    check_memory(make(name))


@pytest.mark.parametrize("name", MODELS)
def test_bytes_are_those_of_the_state_and_do_not_grow(name):
    model = make(name)
    held = sum(part.nbytes for part in model.initial_state(3, 10).parts.values())
    assert held == 3 * model.bytes_per_row(10) == 3 * model.bytes_per_row(10**9)


@pytest.mark.parametrize("name", STACKS)
def test_no_trial_is_too_long(name, trials_of):
    """What came thousands of steps ago changes no number into one that is not finite."""
    model = make(name)
    trials = trials_of(model, num_rows=2, num_steps=1500)
    assert trials.y.isfinite().all()
    state = model.initial_state(2, 1500)
    model.prefill(trials.x[:, :1490], trials.starts[:, :1490], state)
    for t in range(1490, 1500):
        y = model.step(trials.x[:, t], trials.starts[:, t], state)
        torch.testing.assert_close(y, trials.y[:, t], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", STACKS)
def test_old_steps_still_matter_at_the_start_of_training(name):
    """Else no gradient would teach the memory to keep anything."""
    model = make(name)
    x = torch.randn(1, 1000, 16, requires_grad=True)
    y = model(x, torch.zeros(1, 1000, dtype=torch.bool))[0, -1]
    (y * torch.randn(16)).sum().backward()
    assert x.grad is not None
    size = x.grad[0].norm(dim=-1)
    assert size[:10].mean() > 0.3 * size[490:500].mean()


@pytest.mark.parametrize("kept", [{}, {"0.matrix": torch.zeros(1, 1)}])
def test_a_state_that_is_read_in_part_is_refused(kept, monkeypatch):
    """What is absent would stay as it was, and what is smaller would spread over all rows."""
    model = make("delta_rule")
    x, starts = torch.randn(2, 3, 16), torch.zeros(2, 3, dtype=torch.bool)
    state = model.initial_state(2, 5)
    monkeypatch.setattr(model, "read", lambda x_NTE, *_: (x_NTE, kept))
    with pytest.raises(ValueError, match=r"DeltaRule\.read: must return all parts of the state"):
        model.step(x[:, 0], starts[:, 0], state)
    with pytest.raises(ValueError, match=r"DeltaRule\.read: must return all parts of the state"):
        model.prefill(x, starts, state)


def test_states_that_do_not_fit_are_refused():
    model = make("delta_rule")
    x, starts = torch.randn(2, 3, 16), torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(TypeError, match=r"DeltaRule: state must be .*0\.matrix.*got dict"):
        model.step(x[:, 0], starts[:, 0], {})  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="DeltaRule: state must be a FixedState with"):
        model.step(x[:, 0], starts[:, 0], make("lstm").initial_state(2, 5))
    with pytest.raises(ValueError, match="DeltaRule: state must have the 2 rows of x, got 3"):
        model(x, starts, model.initial_state(3, 5))
    saved = model.initial_state(3, 5).state_dict()
    with pytest.raises(ValueError, match=r"shapes must be \{.*Make the state with the saved sizes"):
        model.initial_state(2, 5).load_state_dict(saved)
