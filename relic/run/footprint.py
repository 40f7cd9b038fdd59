"""Peak memory of a pass through a policy, measured on a short one and scaled up.

Attention keeps nothing that grows with T x T, and slices are scaled down with the pass, so memory
is linear in the steps. Counted are tensors; compiled kernels work in scratch of their own.

Shapes: T steps of the one row that is measured.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from envs.core.answers import nothing_in
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch

MEASURED_STEPS = 512
"""Steps of the longer of two passes; a pass this short is not scaled."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a pass: a constant and so many for each token."""

    constant: float
    per_token: float

    def bytes(self, tokens: int) -> int:
        """Return what a pass over so many tokens holds at its peak."""
        return int(self.constant + self.per_token * tokens)


def learning_footprint(
    policy: Policy,
    steps: int,
    autocast: contextlib.AbstractContextManager[Any],
    *,
    keeps_keys: bool = False,
) -> Footprint:
    """Measure a pass with gradient, forward and back, its batch included.

    Args:
        policy: Unchanged afterwards.
        steps: Steps of a row in the real pass.
        autocast: As learning has it; may be entered several times.
        keeps_keys: The pass's keys and values are kept for the memory's state.
    """

    def learn(batch: SequenceBatch) -> None:
        watch = policy.memory.record_kv() if keeps_keys else contextlib.nullcontext()
        with autocast, watch as kept:  # held until the backward pass is done, as by the learner
            output = policy.evaluate_actions(batch)
        (output.log_prob.sum() + output.value.sum() + output.entropy.sum()).backward()
        del kept

    learned = [p for p in policy.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.grad = torch.zeros_like(parameter)
    try:
        return _measure(policy, steps, learn)
    finally:
        policy.zero_grad(set_to_none=True)


def reading_footprint(
    policy: Policy, steps: int, autocast: contextlib.AbstractContextManager[Any]
) -> Footprint:
    """Measure a pass without gradient that fills a memory, without the memory itself.

    Args:
        policy: Unchanged afterwards.
        steps: Steps of a row in the real pass.
        autocast: As refreshes have it; may be entered several times.
    """
    longest = min(steps, MEASURED_STEPS)
    state = policy.initial_state(1, longest)

    def read(batch: SequenceBatch) -> None:
        state.reset()
        with autocast:
            policy.replay(batch, state)

    return _measure(policy, steps, read)


def _measure(policy: Policy, steps: int, run: Any) -> Footprint:
    longest = min(steps, MEASURED_STEPS)
    config = policy.config
    lengths = sorted({max(longest // 2, 1), longest})
    peaks = []
    try:
        for length in lengths:
            size = max(1, round(config.encoder.slice_steps * length / steps))
            policy.config = replace(config, encoder=replace(config.encoder, slice_steps=size))
            run(_batch(policy, length))  # compiles what must be compiled
            with peak_memory(policy.device) as peak:
                run(_batch(policy, length))
            peaks.append(peak[0])
    finally:
        policy.config = config
    if len(lengths) == 1:
        return Footprint(0.0, peaks[0] / lengths[0])
    per_token = max((peaks[1] - peaks[0]) / (lengths[1] - lengths[0]), 0.0)
    return Footprint(max(peaks[1] - per_token * lengths[1], 0.0), per_token)


def _batch(policy: Policy, length: int) -> SequenceBatch:
    """Return steps of one row in which nothing happens."""
    device = policy.device

    def repeated(value: ArrayLike, dtype: torch.dtype) -> Tensor:
        one = torch.as_tensor(value, dtype=dtype, device=device)
        return one.expand(1, length, *one.shape).clone(memory_format=torch.contiguous_format)

    observation = {
        # Zero names no category where a space begins elsewhere.
        key: repeated(nothing_in(space), policy.stored_dtypes[key])
        for key, space in policy.stored_space.spaces.items()
    }
    is_index = policy.action_space.dtype is not None and policy.action_space.dtype.kind in "iu"
    kind = torch.int64 if is_index else torch.float32
    action = repeated(np.zeros(policy.action_space.shape or ()), kind)
    starts = torch.arange(length, device=device) % policy.max_episode_steps == 0
    return SequenceBatch(observation, action, action.clone(), starts[None])


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """Yield a list; afterwards its one number is the most that was held beyond what was before."""
    peak = [0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak[0] = torch.cuda.max_memory_allocated(device) - before
        return
    with _LiveTensors() as live:
        yield peak
    peak[0] = live.peak


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors that are made while it is entered, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count what it made."""
        before = {self._key(x) for x in tree_leaves((args, kwargs or {})) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and self._key(leaf) not in before:
                self._count(leaf)
        return result

    @staticmethod
    def _key(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        # By storage: views hold nothing of their own.
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size
