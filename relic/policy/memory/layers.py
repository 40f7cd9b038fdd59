"""Parts that memories are made of: gated MLP, tables, initialisation.

Shapes: E width, M hidden width of the MLP.
"""

from __future__ import annotations

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
