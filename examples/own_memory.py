"""Bring a memory of your own, and train an agent that has it.

    .venv/bin/python examples/own_memory.py

The memory keeps the mean of all tokens of a trial. It is small on purpose: `docs/own_memory.md`
says what is promised, and what a memory may offer beyond.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from relic.policy.memory.states.fixed_state import FixedStateModel, Parts
from relic.run.compose import compose
from relic.train import train_run


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanConfig:
    """Fields of `policy.memory_options`."""

    width: int = 64


class Mean(FixedStateModel):
    """Answers each token with what it makes of the token and of the mean of all so far."""

    Config = MeanConfig

    def __init__(self, config: MeanConfig, *, max_episode_steps: int):
        super().__init__(config, max_episode_steps=max_episode_steps)
        self.width = config.width
        self.shapes = {"sum": (config.width,), "count": (1,)}  # of what a row remembers
        self.take = nn.Linear(config.width, config.width)
        self.answer = nn.Linear(2 * config.width, config.width)

    def read(
        self, x_NTE: Tensor, episode_starts_NT: Tensor, parts: Parts
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the answers to T tokens of N rows, and what the rows remember after them."""
        sum_NE, count_N1, answers = parts["sum"], parts["count"], []
        for x_NE, taken_NE in zip(x_NTE.unbind(1), self.take(x_NTE).unbind(1), strict=True):
            sum_NE, count_N1 = sum_NE + taken_NE, count_N1 + 1
            answers.append(x_NE + self.answer(torch.cat([x_NE, sum_NE / count_N1], dim=-1)))
        return torch.stack(answers, dim=1), {"sum": sum_NE, "count": count_N1}


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
