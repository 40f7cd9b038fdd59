import pytest
import torch

from relic.policy.memory.config import RecurrentConfig
from relic.policy.memory.states.recurrent import GRU, LSTM

CELLS = [LSTM, GRU]


def make(cell, num_layers=2):
    return cell(RecurrentConfig(num_layers=num_layers, width=16), max_episode_steps=9)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_every_cached_way_equals_the_full_pass(check_memory, cell, num_layers):
    check_memory(make(cell, num_layers))


@pytest.mark.parametrize("cell", CELLS)
def test_memory_crosses_episodes_and_ends_with_the_trial(cell, trials_of):
    model = make(cell)
    trials = trials_of(model)
    none = torch.zeros_like(trials.starts)
    torch.testing.assert_close(model(trials.x, none), trials.y)
    state = model.initial_state(4, 36)
    model.prefill(trials.x, trials.starts, state)
    assert all(part.abs().amax(dim=(1, 2)).min() > 0 for part in state.parts.values())
    state.reset([2])
    assert not any(part[2].any() for part in state.parts.values())
    assert state.lengths.tolist() == [36, 36, 0, 36]


def test_a_gru_is_the_equations_of_a_gru():
    model = make(GRU, num_layers=1)
    x = torch.randn(1, 7, 16)
    y = model(x, torch.zeros(1, 7, dtype=torch.bool))
    w_x, w_h = model.cells.weight_ih_l0, model.cells.weight_hh_l0
    b_x, b_h = model.cells.bias_ih_l0, model.cells.bias_hh_l0
    h = torch.zeros(16)
    for t in range(7):
        from_x, from_h = (w_x @ x[0, t] + b_x).chunk(3), (w_h @ h + b_h).chunk(3)
        reset, update = (torch.sigmoid(from_x[i] + from_h[i]) for i in (0, 1))
        h = (1 - update) * torch.tanh(from_x[2] + reset * from_h[2]) + update * h
        torch.testing.assert_close(h, y[0, t])


@pytest.mark.parametrize(("cell", "parts"), [(LSTM, 2), (GRU, 1)])
def test_bytes_do_not_grow_with_the_trial(cell, parts):
    model = make(cell)
    assert model.bytes_per_row(10) == model.bytes_per_row(10_000) == parts * 2 * 16 * 4
    held = sum(part.nbytes for part in model.initial_state(3, 10).parts.values())
    assert held == 3 * model.bytes_per_row(10)
