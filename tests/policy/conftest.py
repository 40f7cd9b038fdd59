"""What every memory must do, whatever it is made of."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from relic.policy.memory.sequence_model import SequenceModel

TOLERANCE = 1e-5


@dataclass
class Trials:
    """Random tokens of N trials and what a memory makes of them in one full pass."""

    model: SequenceModel
    x: Tensor
    starts: Tensor
    y: Tensor

    def steps(self, at: list[int]) -> tuple[Tensor, Tensor]:
        rows = range(len(at))
        x = torch.stack([self.x[n, at[n]] for n in rows])
        return x, torch.stack([self.starts[n, at[n]] for n in rows])

    def outputs(self, at: list[int]) -> Tensor:
        return torch.stack([self.y[n, at[n]] for n in range(len(at))])


def roughen(model: torch.nn.Module, std: float = 0.25) -> None:
    """Move every weight away from its start, so that zeros and ones hide nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * std)


def close(got: Tensor, want: Tensor, tolerance: float = TOLERANCE) -> None:
    """Compare on the scale of the outputs, which random weights make larger than one."""
    scale = max(1.0, float(want.detach().abs().max()))
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance * scale)


def make_trials(model: SequenceModel, num_rows: int = 4, num_steps: int = 36) -> Trials:
    roughen(model)
    x = torch.randn(num_rows, num_steps, model.width)
    starts = torch.rand(num_rows, num_steps) < 0.15
    with torch.no_grad():
        return Trials(model, x, starts, model(x, starts))


def check_steps(trials: Trials) -> None:
    """Cached steps equal the full pass, from an empty cache to a full one."""
    num_rows, num_steps = trials.starts.shape
    state = trials.model.initial_state(num_rows, num_steps)
    for t in range(num_steps):
        y = trials.model.step(trials.x[:, t], trials.starts[:, t], state)
        close(y, trials.y[:, t])
    assert state.lengths.tolist() == [num_steps] * num_rows


def check_ragged(trials: Trials) -> None:
    """Rows at their own lengths; steps that are not written leave no trace."""
    model = trials.model
    num_rows, num_steps = trials.starts.shape
    state = model.initial_state(num_rows, num_steps)
    at = [0, 5, 17, 25][:num_rows]
    width = max(at)
    y = model.prefill(trials.x[:, :width], trials.starts[:, :width], state, lengths=at)
    for n, length in enumerate(at[1:], start=1):
        close(y[n, :length], trials.y[n, :length])
    for _ in range(num_steps - width):
        x, starts = trials.steps(at)
        close(model.step(x, starts, state, write=False), trials.outputs(at))
        model.step(torch.randn_like(x), ~starts, state, write=False)
        close(model.step(x, starts, state), trials.outputs(at))
        at = [t + 1 for t in at]


def check_resets(trials: Trials) -> None:
    """A reset row begins a new trial; the others do not notice."""
    model = trials.model
    num_rows, num_steps = trials.starts.shape
    state = model.initial_state(num_rows, num_steps)
    at = [0] * num_rows
    for t in range(num_steps):
        if t in (7, 20):
            mask = torch.arange(num_rows) % 2 == (t == 7)
            state.reset(mask)
            at = [0 if m else a for a, m in zip(at, mask.tolist(), strict=True)]
        x, starts = trials.steps(at)
        close(model.step(x, starts, state), trials.outputs(at))
        at = [a + 1 for a in at]


def check_prefix(trials: Trials) -> None:
    """A pass on a constant prefix equals the tail of the full pass, while acting goes on."""
    model = trials.model
    num_rows, num_steps = trials.starts.shape
    half = num_steps // 2
    state = model.initial_state(num_rows, num_steps)
    model.prefill(trials.x[:, :half], trials.starts[:, :half], state)
    prefix = state.snapshot()
    for t in range(half, half + 6):
        model.step(trials.x[:, t], trials.starts[:, t], state)
    close(model(trials.x[:, half:], trials.starts[:, half:], prefix), trials.y[:, half:])
    for rows in ([2, 0], [1, 2]):
        y = model(trials.x[rows, half:], trials.starts[rows, half:], prefix.select(rows))
        close(y, trials.y[rows, half:])
    # Rows of their own lengths, some of them empty, take a prefill in pieces.
    state.reset([0])
    model.prefill(trials.x[:1, : half + 6], trials.starts[:1, : half + 6], state, rows=[0])
    y = model.prefill(trials.x[:, half + 6 :], trials.starts[:, half + 6 :], state)
    close(y, trials.y[:, half + 6 :])


def check_rows(trials: Trials) -> None:
    """What a row answers depends on no other row."""
    x, starts = trials.x.clone(), trials.starts.clone()
    x[1:], starts[1:] = torch.randn_like(x[1:]), ~starts[1:]
    with torch.no_grad():
        close(trials.model(x, starts)[0], trials.y[0])
    state = trials.model.initial_state(*starts.shape)
    for t in range(9):
        close(trials.model.step(x[:, t], starts[:, t], state)[0], trials.y[0, t])


def check_causality(trials: Trials) -> None:
    """Changing a step changes nothing before it, and something at it or after."""
    for cut in (1, 13, trials.x.shape[1] - 1):
        x, starts = trials.x.clone(), trials.starts.clone()
        x[:, cut:] = torch.randn_like(x[:, cut:])
        starts[:, cut:] = ~starts[:, cut:]
        with torch.no_grad():
            y = trials.model(x, starts)
        close(y[:, :cut], trials.y[:, :cut])
        assert not torch.allclose(y[:, cut], trials.y[:, cut])


def check_state_dict(trials: Trials) -> None:
    """A state that was saved goes on bit for bit."""
    model = trials.model
    num_rows, num_steps = trials.starts.shape
    state = model.initial_state(num_rows, num_steps)
    model.prefill(trials.x[:, :9], trials.starts[:, :9], state, lengths=[9, 3, 0, 7][:num_rows])
    saved = state.state_dict()
    copy = model.initial_state(num_rows, num_steps)
    copy.load_state_dict(saved)
    for t in range(9, 20):
        args = trials.x[:, t], trials.starts[:, t]
        assert torch.equal(model.step(*args, state), model.step(*args, copy))


ALL_CHECKS = (
    check_steps,
    check_ragged,
    check_resets,
    check_prefix,
    check_rows,
    check_causality,
    check_state_dict,
)


@pytest.fixture
def check_memory() -> Callable[[SequenceModel], None]:
    """Hold a memory to everything that its interface promises."""

    def check(model: SequenceModel) -> None:
        torch.manual_seed(0)
        trials = make_trials(model)
        for one in ALL_CHECKS:
            one(trials)

    return check


@pytest.fixture
def trials_of() -> Callable[..., Trials]:
    return make_trials


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
