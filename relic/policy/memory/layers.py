"""Parts that memories are made of: gated MLP, residual gates, tables, initialisation.

Shapes: E width, M hidden width of the MLP.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
INIT_STD = 0.02


class GeGLU(nn.Module):
    """MLP whose hidden layer is gated by a GELU: down(gelu(gate(x)) * up(x)); no biases."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        # One matrix for gate and up: half the calls where calls are what costs.
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branch's output; the residual is the caller's."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.gelu(gate, approximate="tanh") * up)


class Residual(nn.Module):
    """The plain sum of a stream and a branch."""

    def forward(self, stream: Tensor, branch: Tensor) -> Tensor:
        """Return the new stream."""
        return stream + branch


class GRUGate(nn.Module):
    """GTrXL's gate in place of a residual sum; its bias lets it start as nearly the identity."""

    BIAS = 2.0

    def __init__(self, width: int):
        super().__init__()
        self.of_branch = nn.Linear(width, 3 * width, bias=False)
        self.of_stream = nn.Linear(width, 2 * width, bias=False)
        self.of_reset = nn.Linear(width, width, bias=False)
        self.bias = nn.Parameter(torch.full((width,), self.BIAS))

    def forward(self, stream: Tensor, branch: Tensor) -> Tensor:
        """Return the new stream."""
        reset_y, update_y, candidate_y = self.of_branch(branch).chunk(3, dim=-1)
        reset_x, update_x = self.of_stream(stream).chunk(2, dim=-1)
        update = torch.sigmoid(update_y + update_x - self.bias)
        kept = torch.sigmoid(reset_y + reset_x) * stream
        candidate = torch.tanh(candidate_y + self.of_reset(kept))
        # Under autocast the stream keeps its precision, and lerp takes one type only.
        return torch.lerp(stream, candidate.to(stream.dtype), update.to(stream.dtype))


def residual(width: int, *, gated: bool) -> nn.Module:
    """Return what joins a branch to its stream."""
    return GRUGate(width) if gated else Residual()


def init_weights(module: nn.Module) -> None:
    """Draw matrices and embeddings of a transformer from N(0, 0.02); for `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)


def look_up(table: nn.Embedding, index: Tensor, what: str) -> Tensor:
    """Return rows of a table of positions.

    Raises:
        ValueError: On a CPU, if it has no such row.
    """
    # On a GPU the comparison would make every step wait; there the lookup itself fails.
    if index.device.type == "cpu" and int(index.max()) >= table.num_embeddings:
        raise ValueError(
            f"Transformer: a step's {what} must be below {table.num_embeddings}, got "
            f"{int(index.max())}. Build the policy for longer episodes, or use rotary positions."
        )
    return table(index)
