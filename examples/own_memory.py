"""Bring a memory of your own, and train an agent that has it.

    python examples/own_memory.py

The memory keeps the mean of all tokens of a trial. It is small on purpose: `docs/own_memory.md`
says what every method promises, and what a memory may offer beyond.
"""

from dataclasses import dataclass

import torch
from torch import nn

from relic.policy.memory.sequence_model import (
    SequenceModel,
    SequenceState,
    as_lengths,
    row_indices,
)
from relic.run.compose import compose
from relic.train import train_run


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanConfig:
    """Fields of `policy.memory_options`."""

    width: int = 64


class MeanState(SequenceState):
    """The sum of each row's tokens so far, and their number."""

    def __init__(self, sum_NE, lengths):
        self.sum_NE, self.lengths = sum_NE, lengths

    @property
    def num_rows(self):
        """Rows."""
        return len(self.lengths)

    def reset(self, rows=None):
        """Begin new trials."""
        index = row_indices(rows, self.num_rows)
        self.sum_NE[index] = 0
        self.lengths[index] = 0

    def select(self, rows):
        """Return a constant copy of some rows, for learning."""
        index = row_indices(rows, self.num_rows)
        with torch.inference_mode(False):  # acting runs in inference mode, learning must not
            return MeanState(self.sum_NE[index], self.lengths[index])

    def snapshot(self):
        """Return a copy of all rows."""
        return self.select(range(self.num_rows))

    def state_dict(self):
        """Return what a checkpoint keeps."""
        return {"sum": self.sum_NE.clone(), "lengths": self.lengths.clone()}

    def load_state_dict(self, state):
        """Go on from a checkpoint."""
        self.sum_NE.copy_(state["sum"])
        self.lengths.copy_(state["lengths"])


class Mean(SequenceModel):
    """Answers each token with what it makes of the token and of the mean of all so far."""

    Config = MeanConfig

    def __init__(self, config, *, max_episode_steps):
        super().__init__(config, max_episode_steps=max_episode_steps)
        self.config = config
        self.width = config.width
        self.read = nn.Linear(config.width, config.width)
        self.answer = nn.Linear(2 * config.width, config.width)

    def forward(self, x_NTE, episode_starts_NT, state=None, *, depth_mask_NL=None):
        """Answer all steps at once, with gradient."""
        if state is None:
            counts_N = torch.zeros(len(x_NTE), dtype=torch.long, device=x_NTE.device)
            return self._run(x_NTE, torch.zeros_like(x_NTE[:, 0]), counts_N)[0]
        return self._run(x_NTE, state.sum_NE, state.lengths)[0]

    @torch.no_grad()
    def step(self, x_NE, episode_starts_N, state, write=True):
        """Answer one step."""
        y_N1E, sum_N1E = self._run(x_NE[:, None], state.sum_NE, state.lengths)
        if write:
            state.sum_NE.copy_(sum_N1E[:, 0])
            state.lengths += 1
        return y_N1E[:, 0]

    @torch.no_grad()
    def prefill(self, x_NTE, episode_starts_NT, state, rows=None, lengths=None):
        """Answer and remember steps that were taken."""
        index = row_indices(rows, state.num_rows)
        counts = as_lengths(lengths, len(index), x_NTE.shape[1])
        y_NTE, sum_NTE = self._run(x_NTE, state.sum_NE[index], state.lengths[index])
        some = counts > 0  # rows of a batch may have no steps at all
        state.sum_NE[index[some]] = sum_NTE[torch.from_numpy(some), counts[some] - 1]
        state.lengths[index] += torch.from_numpy(counts).to(state.lengths)
        return y_NTE

    def initial_state(self, num_rows, capacity, device=None, dtype=None):
        """Return the state before the first step."""
        weight = self.read.weight
        device, dtype = device or weight.device, dtype or weight.dtype
        return MeanState(
            torch.zeros(num_rows, self.width, device=device, dtype=dtype),
            torch.zeros(num_rows, dtype=torch.long, device=device),
        )

    def bytes_per_row(self, steps, dtype=torch.float32):
        """Return what a row's state takes, whatever the steps."""
        return self.width * dtype.itemsize

    def _run(self, x_NTE, sum_NE, counts_N):
        """Return the answers, and the sum after each step."""
        sums = []
        for read_NE in self.read(x_NTE).unbind(1):  # one by one, so that step and forward agree
            sum_NE = sum_NE + read_NE
            sums.append(sum_NE)
        sum_NTE = torch.stack(sums, dim=1)
        steps_T = torch.arange(1, x_NTE.shape[1] + 1, device=x_NTE.device)
        mean_NTE = sum_NTE / (counts_N[:, None] + steps_T)[..., None]
        return x_NTE + self.answer(torch.cat([x_NTE, mean_NTE], dim=-1)), sum_NTE


def main(**keys: object) -> None:
    """Train an agent with this memory in Darkroom."""
    chosen = {
        "experiment": "darkroom",
        "policy.memory": "own_memory:Mean",
        "policy.memory_options": {"width": 64},
        "run_dir": "runs/mean",
        "total_steps": 500_000,
    }
    train_run(compose({**chosen, **keys}))


if __name__ == "__main__":
    main()
