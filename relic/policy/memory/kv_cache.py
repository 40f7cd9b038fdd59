"""The transformer's memory of a trial: keys and values in one preallocated block.

Slots 0..K-1 of every row are its sinks. A step goes to slot K + (steps of its segment before it)
modulo the slots, where a segment is what its successors may see: the trial, or the episode where
attention stops at episodes, or what follows `drop_first` steps. A limit on what is seen is
therefore also a limit on memory. A step never moves to another slot: its key was rotated by its
position when it was written.

A step never copies what grows with the context. The host counts every row's length itself, so it
need not ask the device.

Shapes: N rows, L layers, H heads, D head dim, K sinks, C slots of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from relic.policy.memory.config import TransformerConfig
from relic.policy.memory.counted_state import CountedState
from relic.policy.memory.positions import Positions, positions
from relic.policy.memory.sequence_model import Rows, StaleStateError, row_indices


class KVCache(CountedState):
    """Keys, values and positions of N rows, each at its own length.

    Args:
        config: Of the transformer.
        num_rows: N.
        capacity: Steps that a trial may have.
        max_episode_steps: Steps that an episode may have.
        device: Where the cache lives.
        dtype: Of keys and values.
    """

    row_axes: ClassVar = {"kv": 2}

    def __init__(
        self,
        config: TransformerConfig,
        num_rows: int,
        capacity: int,
        *,
        max_episode_steps: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        device = torch.device(device)
        super().__init__(num_rows, capacity, device)
        self.config = config
        self.max_episode_steps = max_episode_steps
        self.num_sinks = config.sink_slots
        self.slots = config.slots_for(capacity, max_episode_steps)
        self.fixed_slots = 0
        """Slots that every step reads under a mask, besides the sinks: a CUDA graph needs a fixed
        number. 0: each step reads only the slots that it sees."""
        self.cuda_graph: Callable[[Tensor, Tensor], Tensor] | None = None
        """Runs the device's part of a step that is written (`CUDAGraphSteps`). None: the model."""
        self.step_views: object = None
        """Arrays that compiled steps keep of this cache and of the weights (`cpu/step.py`)."""
        # Tensors made in inference mode could not stand before a forward pass with gradient.
        with torch.inference_mode(False):
            self.kv = _allocate(config, num_rows, self.num_sinks + self.slots, device, dtype)
            zeros = torch.zeros(num_rows, dtype=torch.long, device=device)
            self.segment_steps = zeros.clone()
            """Steps of the running segment so far, (N,)."""
            self.last = Positions(zeros - 1, zeros.clone())
            """Facts of each row's newest step."""
        self.depth_mask_NL: Tensor | None = None
        """Factors of each row's layers for this trial (`set_depth_mask`); None: all one."""
        self.sink_version: object = None
        """What the sinks in the cache were made from."""
        self.sink_key: Tensor | None = None
        """Sink keys as made, (L, 1 or N, H, K, D), where queries against them are not rotated."""
        # Counts each row's resets: by it a snapshot notices that its slots hold another trial.
        self._generation = np.zeros(num_rows, np.int64)
        self._source: tuple[KVCache, np.ndarray, np.ndarray] | None = None

    @property
    def is_linear(self) -> bool:
        """Whether every step of a trial has a slot of its own, in order."""
        return self.slots > self.capacity and not self.has_segments

    @property
    def has_segments(self) -> bool:
        """Whether a trial is cut into parts that do not see each other."""
        return not self.config.inter_episode_attention or self.config.drop_first > 0

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.kv.numel() * self.kv.element_size()

    def host_steps(self) -> np.ndarray:
        """Return the steps of each row's running segment; asks the device if there are several."""
        if not self.has_segments:
            return self.host_lengths.copy()
        return self.segment_steps.cpu().numpy().copy()

    def most_steps(self) -> int:
        """Return a bound on the steps of any running segment; never asks the device."""
        return min(int(self.host_lengths.max()), self.slots)

    def note_steps(self, more: int | np.ndarray, rows: np.ndarray | None = None) -> None:
        """Advances the host's lengths; the device's are counted by what runs there."""
        self.host_lengths[slice(None) if rows is None else rows] += more

    def release(self) -> None:
        """Drop captured graphs: graph and cache refer to each other, so no count frees them."""
        self.cuda_graph = None

    def set_depth_mask(self, mask_NL: Tensor | None) -> None:
        """Set the layer factors of all rows; to be kept from a trial's first step to its last."""
        if mask_NL is not None and self.depth_mask_NL is not None:
            # In place, because a captured step goes on reading the old one.
            self.depth_mask_NL.copy_(mask_NL)
        else:
            with torch.inference_mode(False):
                self.depth_mask_NL = mask_NL if mask_NL is None else mask_NL.clone()
        # A sink token runs through the layers, so what it is depends on their factors.
        self.sink_version = None

    def reset(self, rows: Rows | None = None) -> None:
        """Empties rows, and clears what they held so that not even a NaN outlives its trial."""
        index = row_indices(rows, self.num_rows)
        if not index.size:
            return
        # One slot more than there are steps: a step that was only looked at has been written there.
        end = self.num_sinks + min(int(self.host_lengths[index].max()) + 1, self.slots)
        everything = len(index) == self.num_rows
        where = slice(None) if everything else torch.from_numpy(index).to(self.kv.device)
        # Sinks stay: they belong to the weights, not to the trial.
        self.kv[:, :, where, :, self.num_sinks : end] = 0
        for fact in (self.lengths, self.segment_steps, self.last.episode):
            fact[where] = 0
        self.last.in_episode[where] = -1
        self.host_lengths[index] = 0
        self._generation[index] += 1
        self.sink_version = None

    def snapshot(self) -> KVCache:
        """Return the state as it is now; see `SequenceState.snapshot`.

        A linear cache shares its slots, since later steps go elsewhere; others copy what they hold.
        """
        self.check_valid()
        view = self._with_facts_of(slice(None))
        with torch.inference_mode(False):
            if self.is_linear:
                view.kv = self.kv
                view._source = (self, np.arange(self.num_rows), self._generation.copy())
            else:
                view.kv = self.kv.clone()
        return view

    def select(self, rows: Rows) -> KVCache:
        """Return chosen rows as a constant prefix; neighbouring rows share their slots."""
        self.check_valid()
        index = row_indices(rows, self.num_rows)
        adjacent = index.size and (np.diff(index) == 1).all()
        where: Any = (
            slice(int(index[0]), int(index[-1]) + 1)
            if adjacent
            else torch.from_numpy(index).to(self.kv.device)
        )
        chosen = self._with_facts_of(where)
        chosen.host_lengths = self.host_lengths[index]
        chosen._generation = self._generation[index]
        with torch.inference_mode(False):
            end = self.kv.shape[4]
            # Scattered rows are copied, so what lies beyond the longest of them is left behind.
            if not adjacent and self.is_linear:
                end = self.num_sinks + int(chosen.host_lengths.max(initial=0))
            chosen.kv = self.kv[:, :, where, :, :end]
            if self.sink_key is not None and self.sink_key.shape[1] > 1:
                chosen.sink_key = self.sink_key[:, where]
        source = self._source or (self, np.arange(self.num_rows), self._generation)
        # A view holds what the source holds; a copy is good whatever becomes of the source.
        if adjacent:
            chosen._source = (source[0], source[1][index], source[2][index].copy())
        return chosen

    def rewound(self, episode_starts_NC: Tensor) -> KVCache:
        """Return the state as it was after the first C steps; see `SequenceState.rewound`.

        The slots are shared. A cache that reuses slots has lost what it would need.
        """
        steps = episode_starts_NC.shape[1]
        if not self.is_linear or (self.host_lengths < steps).any():
            raise ValueError(
                f"KVCache.rewound: must be asked of a cache that keeps every step, of at least "
                f"{steps} steps, got {self.host_lengths.min()} steps in {self.slots} slots. "
                "Rewind by less, or let the transformer see the whole trial."
            )
        view = self._with_facts_of(slice(None))
        view._source = self._source
        view.host_lengths = np.full_like(self.host_lengths, steps)
        with torch.inference_mode(False):
            view.lengths = torch.full_like(self.lengths, steps)
            # In a linear cache the trial is one segment.
            view.segment_steps = view.lengths.clone()
            if steps:
                facts = positions(episode_starts_NC.to(self.lengths.device))
                view.last = Positions(*(fact[:, -1].clone() for fact in facts))
        return view

    def _with_facts_of(self, where: Any) -> KVCache:
        """Return a cache like this one, with copies of chosen rows' facts and no slots yet."""
        view = object.__new__(KVCache)
        vars(view).update(vars(self))
        # Graphs write the tensors that they were recorded on, which are not the view's.
        view.cuda_graph = None
        view.step_views = None
        with torch.inference_mode(False):
            view.lengths = self.lengths[where].clone()
            view.segment_steps = self.segment_steps[where].clone()
            view.last = Positions(*(fact[where].clone() for fact in self.last))
            if self.depth_mask_NL is not None:
                view.depth_mask_NL = self.depth_mask_NL[where].clone()
        view.host_lengths = self.host_lengths.copy()
        view._generation = self._generation.copy()
        view._source = None
        return view

    def check_valid(self) -> None:
        """Check that the slots still hold what this snapshot or selection was taken of.

        Raises:
            StaleStateError: If rows of the state behind it were reset.
        """
        if self._source is None:
            return
        source, rows, generation = self._source
        if (source._generation[rows] != generation).any():
            raise StaleStateError(
                "KVCache: a snapshot must be used before its rows are reset, got one from before. "
                "Take it after the refresh."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on bit for bit."""
        used = self.num_sinks + self.most_steps()
        state: dict[str, Any] = {
            "kv": self.kv[..., :used, :].clone(),
            "lengths": self.lengths.clone(),
            "segment_steps": self.segment_steps.clone(),
            "in_episode": self.last.in_episode.clone(),
            "episode": self.last.episode.clone(),
            "capacity": self.capacity,
        }
        if self.depth_mask_NL is not None:
            state["depth_mask"] = self.depth_mask_NL.clone()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: If it is of another shape.
        """
        kv = state["kv"]
        # A saved state ends with the longest trial.
        own, got = ([*sizes[:4], sizes[5]] for sizes in (self.kv.shape, kv.shape))
        self.check_sizes(own, got, state["capacity"])
        self.reset()
        self.kv[..., : kv.shape[4], :] = kv
        self.take_lengths(state["lengths"])
        self.segment_steps.copy_(state["segment_steps"])
        self.last.in_episode.copy_(state["in_episode"])
        self.last.episode.copy_(state["episode"])
        depth = state.get("depth_mask")
        self.set_depth_mask(None if depth is None else depth.to(self.kv.device))


def _allocate(
    config: TransformerConfig, num_rows: int, slots: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return zeros of shape (L, 2, N, H, slots, D), laid out as the device reads it best.

    A CPU streams a head's slots one after the other; CUDA's packed kernels want a step's heads
    next to each other.
    """
    layers, heads, head_dim = config.num_layers, config.num_heads, config.head_dim
    if device.type == "cuda":
        shape = (layers, 2, num_rows, slots, heads, head_dim)
        return torch.zeros(shape, device=device, dtype=dtype).transpose(3, 4)
    shape = (layers, 2, num_rows, heads, slots, head_dim)
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    # NumPy asks for large pages where it allocates much, and PyTorch does not: streams of a head
    # are read a sixth faster when there are fewer pages to look up.
    memory = np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)
    return torch.from_numpy(memory).view(dtype).view(shape)
