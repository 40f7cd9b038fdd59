"""The interface of all memories, which carry a trial's context from step to step.

A sequence model reads tokens and writes tokens. It knows nothing of observations, actions or
losses. Its two ways of running must agree: `forward` over all steps at once, with gradient, and
`step` or `prefill` against a state that remembers the steps before.

What only some memories can do is declared in `Capabilities`, which says no by default. Others ask
there, never for a class.

Shapes: N rows, T steps, E width, L layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from relic.policy.attention.layer_attention import LayerAttention
from relic.policy.memory.config import Capabilities, capabilities_of

Rows = Sequence[int] | np.ndarray | Tensor
"""Chosen rows: a bool mask over all of them, or their indices."""
StateT = TypeVar("StateT", bound="SequenceState")


class ContextOverflowError(RuntimeError):
    """A step that would not fit into its row's memory; nothing has been written."""


class StaleStateError(RuntimeError):
    """A snapshot that is used after the state it points into was reset."""


class Reach(NamedTuple):
    """How far a memory's tables of positions go; None: there is no table."""

    episodes: int | None = None
    """Episodes of a trial."""
    steps: int | None = None
    """Steps of a trial."""


class KVRecorder(ABC):
    """The keys and values of one pass, layer by layer, to be written into a state."""

    @abstractmethod
    def write(self, state: SequenceState, rows: np.ndarray, first_step: int) -> None:
        """Overwrite the keys and values that a state holds of the same steps.

        Call it after the pass's own backward, which still reads the state.

        Args:
            state: Holds the steps already, from older weights; its lengths stay as they are.
            rows: Its rows that went through the pass, in order.
            first_step: Step of the trial at which the pass began.
        """


class SequenceState(ABC):
    """What a sequence model remembers of each row's trial. Rows are independent."""

    lengths: Tensor
    """Steps of the trial that each row has seen, int64 (N,)."""
    depth_mask_NL: Tensor | None = None
    """Factors of each row's layers for this trial (`set_depth_mask`); None: all one."""
    row_axes: ClassVar[Mapping[str, int]] = {}
    """Tensors of `state_dict` whose rows do not lie along the first axis, and along which instead;
    so a saved state can be shared out among other numbers of processes."""

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Rows of the state."""

    def set_depth_mask(self, mask_NL: Tensor | None) -> None:
        """Set the layer factors of all rows; to be kept from a trial's first step to its last."""
        self.depth_mask_NL = mask_NL

    def make_room(  # noqa: B027 - a state of one size has room for any trial
        self, more: int | np.ndarray, rows: np.ndarray | None = None, look: int = 0
    ) -> None:
        """Check that steps fit before anything is written.

        Args:
            more: Steps to come, per row or for all.
            rows: Rows they come to; None: all.
            look: Steps beyond the capacity that are allowed because they will not be kept.

        Raises:
            ContextOverflowError: If a row would hold more than the capacity.
        """

    @abstractmethod
    def reset(self, rows: Rows | None = None) -> None:
        """Empties rows: their next step is the first of a new trial.

        Args:
            rows: A bool mask or indices; None empties all.
        """

    def snapshot(self) -> SequenceState:
        """Return the state as it is now, for use as the constant prefix of a `forward`.

        It stays as it is while this state goes on stepping, and is void once its rows are reset. By
        default it is what `select` returns of all rows, which is right where that is a copy.
        """
        return self.select(np.arange(self.num_rows))

    @abstractmethod
    def select(self, rows: Rows) -> SequenceState:
        """Return chosen rows, for use as the constant prefix of a `forward`."""

    def rewound(self, episode_starts_NC: Tensor) -> SequenceState:
        """Return the state as it was after the first C steps, as a constant prefix of a `forward`.

        Args:
            episode_starts_NC: Where episodes began in those steps, in context order.

        Raises:
            ValueError: If the model does not keep what it remembered then.
        """
        _refuse("rewound", "keeps every step of a trial", self)

    def release(self) -> None:  # noqa: B027 - most states have nothing to free
        """Free what acts in the state's place, such as captured graphs; the state stays."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on bit for bit, as tensors and integers."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; shapes must agree."""


class SequenceModel(nn.Module, ABC):
    """A memory: tokens in, tokens out, and never a look at the future.

    `episode_starts` is true at the first step of an episode. The first step of a trial begins
    episode 0 whatever its flag says.
    """

    Config: ClassVar[type]
    """The configuration's class, a `MemoryConfig` with defaults."""
    width: int
    """Size of tokens read and written."""

    def __init__(self, config: Any, *, max_episode_steps: int) -> None:
        """Build the memory of a configuration.

        Args:
            config: An instance of `Config`.
            max_episode_steps: Steps that an episode may have; may size tables of positions.
        """
        del config, max_episode_steps
        super().__init__()

    @abstractmethod
    def forward(
        self,
        x_NTE: Tensor,
        episode_starts_NT: Tensor,
        state: SequenceState | None = None,
        *,
        depth_mask_NL: Tensor | None = None,
    ) -> Tensor:
        """Read all steps at once, with gradient.

        Args:
            x_NTE: Tokens, in context order. Rows may be padded at their end.
            episode_starts_NT: Where episodes begin, in the same order.
            state: What came before x, as a constant; it is not written. None: x begins the trial.
            depth_mask_NL: Factors of each row's layers (`draw_depth_mask`), where the model has
                depth dropout and there is no state that holds them.

        Returns:
            Tokens (N, T, E).
        """

    @abstractmethod
    def step(
        self, x_NE: Tensor, episode_starts_N: Tensor, state: SequenceState, write: bool = True
    ) -> Tensor:
        """Read the next step of every row; advances `state` unless `write` is off.

        Raises:
            ContextOverflowError: If a row is full; nothing has been written then.
        """

    @torch.no_grad()
    def prefill(
        self,
        x_NTE: Tensor,
        episode_starts_NT: Tensor,
        state: SequenceState,
        rows: Rows | None = None,
        lengths: Sequence[int] | np.ndarray | Tensor | None = None,
    ) -> Tensor:
        """Append many steps to chosen rows, without gradient; advances `state`.

        Args:
            x_NTE: Tokens of the chosen rows, in the order of `rows`.
            episode_starts_NT: Where episodes begin.
            state: What came before; written.
            rows: Rows of the state that x belongs to; None: all of them.
            lengths: Steps of each row of x that count; None: all T.

        Raises:
            ContextOverflowError: If a row would be overfull; nothing has been written then.
        """
        index = row_indices(rows, state.num_rows)
        counts = as_lengths(lengths, len(index), x_NTE.shape[1])
        state.make_room(counts, index)
        return self.append(x_NTE, episode_starts_NT, state, index, counts)

    @abstractmethod
    def append(
        self,
        x_NTE: Tensor,
        episode_starts_NT: Tensor,
        state: SequenceState,
        rows: np.ndarray,
        counts: np.ndarray,
    ) -> Tensor:
        """Append steps that there is room for; `prefill` calls it, without gradient.

        Args:
            x_NTE: Tokens of the chosen rows.
            episode_starts_NT: Where episodes begin.
            state: What came before; written.
            rows: Indices of the chosen rows, int64.
            counts: Steps of each of them that count, int64. What stands behind them is padding.
        """

    @abstractmethod
    def initial_state(
        self,
        num_rows: int,
        capacity: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> SequenceState:
        """Return an empty state.

        Args:
            num_rows: Rows N.
            capacity: Steps that a trial may have; one more fits where `write` is off.
            device: Default: where the parameters are.
            dtype: Of what is remembered. Default: that of the parameters.
        """

    @abstractmethod
    def bytes_per_row(self, steps: int, dtype: torch.dtype = torch.float32) -> int:
        """Return the bytes that one row's state takes for a trial of so many steps."""

    @classmethod
    def capabilities(cls, config: Any) -> Capabilities:
        """Return what a memory of this configuration can do beyond the interface."""
        return capabilities_of(config)

    @classmethod
    def limit_context(cls, config: Any, *, newest: int | None, drop_first: int) -> Any:
        """Return a configuration of the same weights that remembers less of a trial.

        Args:
            config: Whose limits are replaced.
            newest: Steps that a step sees, itself included; None: all.
            drop_first: From this step of the trial on, the steps before it are forgotten; 0: none.
        """
        del config, newest, drop_first
        _refuse("limit_context", "can leave out old steps", cls)

    def use_cuda_graph(self, state: SequenceState) -> None:
        """Replay the steps of a state from CUDA graphs from now on, until `state.release()`."""
        del state
        _refuse("use_cuda_graph", "can be captured", self)

    def record_kv(self) -> AbstractContextManager[KVRecorder]:
        """Record keys and values of the one `forward` in the `with` block; yields the recorder."""
        _refuse("record_kv", "keeps every step of a trial", self)

    def watch_attention(self) -> AbstractContextManager[list[LayerAttention]]:
        """Record what heads attend to in the `with` block; yields a list with an entry a layer."""
        _refuse("watch_attention", "attends to all steps", self)

    def scratch_bytes(self, steps: int) -> int:
        """Return the bytes of a learning pass over so many steps that are in no tensor."""
        del steps
        return 0

    @property
    def reach(self) -> Reach:
        """How long trials may be."""
        return Reach()

    def draw_depth_mask(
        self, num_rows: int, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Draw each row's layer factors for one rollout; None without depth dropout."""
        del num_rows, generator
        return None


def _refuse(method: str, ability: str, owner: object) -> NoReturn:
    name = owner.__name__ if isinstance(owner, type) else type(owner).__name__
    raise ValueError(
        f"{method}: must be asked of a memory that {ability}, got {name}. Use a transformer that "
        "sees the whole trial."
    )


def as_state(model: SequenceModel, state: SequenceState, kind: type[StateT]) -> StateT:
    """Return a state as what a model's own are.

    Raises:
        TypeError: If it is of another kind of model.
    """
    if not isinstance(state, kind):
        raise TypeError(
            f"{type(model).__name__}: state must be of class {kind.__name__}, got "
            f"{type(state).__name__}. Take it from initial_state of the same model."
        )
    return state


def check_rows(model: SequenceModel, state: SequenceState, x_NTE: Tensor) -> None:
    """Refuse a constant prefix of other rows than those that follow it.

    Raises:
        ValueError: If their numbers differ.
    """
    if state.num_rows != x_NTE.shape[0]:
        raise ValueError(
            f"{type(model).__name__}: state must have the {x_NTE.shape[0]} rows of x, got "
            f"{state.num_rows}. Use state.select(rows)."
        )


def row_indices(rows: Rows | None, num_rows: int) -> np.ndarray:
    """Return chosen rows as int64 indices on the host.

    Args:
        rows: A bool mask over all rows, indices, or None for all.
        num_rows: Rows to choose from.

    Raises:
        ValueError: If a mask has another length or an index is out of range.
    """
    if rows is None:
        return np.arange(num_rows)
    array = rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
    if array.dtype == bool:
        if array.shape != (num_rows,):
            raise ValueError(
                f"rows: a mask must have one flag per row ({num_rows}), got shape {array.shape}. "
                "Pass indices to name single rows."
            )
        return np.flatnonzero(array)
    array = array.astype(np.int64).reshape(-1)
    if array.size and not (0 <= array.min() and array.max() < num_rows):
        raise ValueError(
            f"rows: must be in [0, {num_rows}), got {array.tolist()}. Name existing rows."
        )
    return array


def as_lengths(
    lengths: Sequence[int] | np.ndarray | Tensor | None, num_rows: int, num_steps: int
) -> np.ndarray:
    """Return the steps that count in each row as int64 on the host.

    Raises:
        ValueError: If there is not one per row, or one is out of range.
    """
    if lengths is None:
        return np.full(num_rows, num_steps, np.int64)
    counts = lengths.cpu().numpy() if isinstance(lengths, Tensor) else np.asarray(lengths)
    if counts.shape != (num_rows,) or (counts < 0).any() or (counts > num_steps).any():
        raise ValueError(
            f"prefill: lengths must be one number in [0, {num_steps}] for each of {num_rows} "
            f"rows, got {counts.tolist()}. Leave them out where all steps count."
        )
    return counts.astype(np.int64)
