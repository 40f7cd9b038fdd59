"""Holds a memory to what its interface promises (docs/own_memory.md).

Shapes: N rows, T steps, E width.
"""

from __future__ import annotations

import copy as copying
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from relic.policy.memory.sequence_model import SequenceModel

TOLERANCE: Final = 1e-5
"""Beside the largest answer, or beside one."""


@dataclass
class Trials:
    """Random tokens of N trials, (N, T, E), and what a memory makes of them in one full pass."""

    model: SequenceModel
    x: Tensor
    starts: Tensor
    y: Tensor

    def steps(self, at: list[int]) -> tuple[Tensor, Tensor]:
        """Return each row's token at its own step, and whether an episode starts there."""
        rows = range(len(at))
        x = torch.stack([self.x[n, at[n]] for n in rows])
        return x, torch.stack([self.starts[n, at[n]] for n in rows])

    def outputs(self, at: list[int]) -> Tensor:
        """Return what the full pass answered to each row's own step."""
        return torch.stack([self.y[n, at[n]] for n in range(len(at))])


def _roughen(model: torch.nn.Module, std: float = 0.25) -> None:
    """Move every weight away from its start, so that zeros and ones hide nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * std)


def _close(got: Tensor, want: Tensor, tolerance: float = TOLERANCE) -> None:
    """Compare on the scale of the outputs, which random weights make larger than one."""
    scale = max(1.0, float(want.detach().abs().max()))
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance * scale)


def make_trials(model: SequenceModel, num_rows: int = 4, num_steps: int = 36) -> Trials:
    """Move a memory's weights away from their start, and run it over random trials."""
    _roughen(model)
    x = torch.randn(num_rows, num_steps, model.width)
    starts = torch.rand(num_rows, num_steps) < 0.15
    with torch.no_grad():
        return Trials(model, x, starts, model(x, starts))


def _steps(trials: Trials) -> None:
    """Cached steps equal the full pass, from an empty cache to a full one."""
    num_rows, num_steps = trials.starts.shape
    state = trials.model.initial_state(num_rows, num_steps)
    for t in range(num_steps):
        y = trials.model.step(trials.x[:, t], trials.starts[:, t], state)
        _close(y, trials.y[:, t])
    if state.lengths.tolist() != [num_steps] * num_rows:
        raise AssertionError(f"lengths must be {num_steps} in each row, got {state.lengths}.")


def _ragged(trials: Trials) -> None:
    """Rows at their own lengths; steps that are not written leave no trace."""
    model = trials.model
    num_rows, num_steps = trials.starts.shape
    state = model.initial_state(num_rows, num_steps)
    at = [0, 5, 17, 25][:num_rows]
    width = max(at)
    y = model.prefill(trials.x[:, :width], trials.starts[:, :width], state, lengths=at)
    for n, length in enumerate(at[1:], start=1):
        _close(y[n, :length], trials.y[n, :length])
    for _ in range(num_steps - width):
        x, starts = trials.steps(at)
        _close(model.step(x, starts, state, write=False), trials.outputs(at))
        model.step(torch.randn_like(x), ~starts, state, write=False)
        _close(model.step(x, starts, state), trials.outputs(at))
        at = [t + 1 for t in at]


def _resets(trials: Trials) -> None:
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
        _close(model.step(x, starts, state), trials.outputs(at))
        at = [a + 1 for a in at]


def _prefix(trials: Trials) -> None:
    """A pass on a constant prefix equals the tail of the full pass, while acting goes on."""
    model = trials.model
    num_rows, num_steps = trials.starts.shape
    half = num_steps // 2
    state = model.initial_state(num_rows, num_steps)
    model.prefill(trials.x[:, :half], trials.starts[:, :half], state)
    prefix = state.snapshot()
    for t in range(half, half + 6):
        model.step(trials.x[:, t], trials.starts[:, t], state)
    _close(model(trials.x[:, half:], trials.starts[:, half:], prefix), trials.y[:, half:])
    for rows in ([2, 0], [1, 2]):
        y = model(trials.x[rows, half:], trials.starts[rows, half:], prefix.select(rows))
        _close(y, trials.y[rows, half:])
    # Rows of their own lengths, some of them empty, take a prefill in pieces.
    state.reset([0])
    model.prefill(trials.x[:1, : half + 6], trials.starts[:1, : half + 6], state, rows=[0])
    y = model.prefill(trials.x[:, half + 6 :], trials.starts[:, half + 6 :], state)
    _close(y, trials.y[:, half + 6 :])


def _rows(trials: Trials) -> None:
    """What a row answers depends on no other row."""
    x, starts = trials.x.clone(), trials.starts.clone()
    x[1:], starts[1:] = torch.randn_like(x[1:]), ~starts[1:]
    with torch.no_grad():
        _close(trials.model(x, starts)[0], trials.y[0])
    num_rows, num_steps = starts.shape
    state = trials.model.initial_state(num_rows, num_steps)
    for t in range(9):
        _close(trials.model.step(x[:, t], starts[:, t], state)[0], trials.y[0, t])


def _causality(trials: Trials) -> None:
    """Changing a step changes nothing before it, and something at it or after."""
    for cut in (1, 13, trials.x.shape[1] - 1):
        x, starts = trials.x.clone(), trials.starts.clone()
        x[:, cut:] = torch.randn_like(x[:, cut:])
        starts[:, cut:] = ~starts[:, cut:]
        with torch.no_grad():
            y = trials.model(x, starts)
        _close(y[:, :cut], trials.y[:, :cut])
        if torch.allclose(y[:, cut], trials.y[:, cut]):
            raise AssertionError("Another token changed no answer to it.")


def _state_dict(trials: Trials) -> None:
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
        if not torch.equal(model.step(*args, state), model.step(*args, copy)):
            raise AssertionError(f"They differ from the {t - 8}. step on.")


CHECKS: Final[tuple[Callable[[Trials], None], ...]] = (
    _steps,
    _ragged,
    _resets,
    _prefix,
    _rows,
    _causality,
    _state_dict,
)


class MemoryCheckError(AssertionError):
    """A memory breaks a promise. `findings` holds a few lines for each."""

    def __init__(self, model: SequenceModel, findings: list[str]) -> None:
        self.findings = findings
        super().__init__(
            f"{type(model).__name__} breaks what memories promise:\n" + "\n".join(findings)
        )


def check_memory(model: SequenceModel) -> None:
    """Check that a memory keeps the promises of `SequenceModel`, on a CPU in float32.

    It reads random tokens of 4 trials of 36 steps, with random weights. The model is not changed.

    Args:
        model: Of any sizes; small ones take a second.

    Raises:
        MemoryCheckError: It breaks promises; the text names each of them.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trials = make_trials(copying.deepcopy(model))
        findings = [said for check in CHECKS if (said := _finding(check, trials))]
    if findings:
        raise MemoryCheckError(model, findings)


def _finding(check: Callable[[Trials], None], trials: Trials) -> str:
    """Return which promise a check found broken, and how; nothing if it is kept."""
    promise = (check.__doc__ or "").rstrip(".")
    try:
        check(trials)
    except AssertionError as error:
        return f"- {promise}: " + " ".join(str(error).split())
    except Exception as error:  # whatever a memory raises is a finding
        return f"- {promise}: {type(error).__name__} was raised: {error}"
    return ""
