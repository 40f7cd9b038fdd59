"""The memory plan of a run, printed before it starts; a plan that cannot fit is refused.

Rollout and cache are computed exactly; what a pass through the policy holds is measured on short
ones (`footprint.py`). What the interpreter, compiled code and environments take is not in the plan,
nor what `heap.py` keeps of memory that was freed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from gymnasium import spaces

from relic.policy.policy import Policy
from relic.ppo.lessons import lesson_weights
from relic.ppo.schedule import PrefixGradient
from relic.ppo.update_batch import microbatch_rows
from relic.run.config import RunConfig
from relic.run.footprint import learning_footprint, reading_footprint
from relic.schema import ConfigError

_RESERVE = 0.9
"""Share of the free memory that a plan may use."""
_TARGET_BYTES = 6 * 4
"""Columns of a rollout, in float32, that an update adds to it for a while."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes by use, on the host and on the policy's device."""

    parameters: int
    """Weights, gradients and the optimiser's two moments."""
    rollout: int
    cache: int
    activations: int
    rollout_on_device: bool
    rows: int
    device: torch.device
    free_host: int
    """An equal share where processes share the machine."""
    free_device: int
    processes: int = 1
    """Those that share this machine's memory, each with a plan like this one."""

    @property
    def on_device(self) -> int:
        """Bytes that the policy's device needs."""
        total = self.parameters + self.cache + self.activations
        return total + (self.rollout if self.rollout_on_device else 0)

    @property
    def on_host(self) -> int:
        """Bytes that the host needs; all of them where the device is the CPU."""
        if self.device.type == "cpu":
            return self.on_device
        return 0 if self.rollout_on_device else self.rollout

    @property
    def _free(self) -> int:
        return self.free_host if self.device.type == "cpu" else self.free_device

    def lines(self) -> list[str]:
        """Say the plan in a few lines."""
        per_row = (self.rollout + self.cache) // self.rows
        parts = (
            f"parameters and optimiser {human(self.parameters)}, rollout {human(self.rollout)}, "
            f"cache {human(self.cache)}, activations {human(self.activations)}"
        )
        where = "" if self.device.type == "cpu" else f" on {self.device}"
        who = f"each of {self.processes} ranks" if self.processes > 1 else "the run"
        return [
            f"memory: {parts}; {human(per_row)} a row.",
            f"memory: {who} needs {human(self.on_device)}{where}; {human(self._free)} are free.",
        ]

    def check(self, config: RunConfig) -> None:
        """Refuse a plan that cannot fit, and say what would.

        Raises:
            ConfigError: Names the largest part and a setting that fits.
        """
        room = _RESERVE * self._free
        if self.on_device <= room and self.on_host <= _RESERVE * self.free_host:
            return
        raise ConfigError(
            f"rollout: must fit into memory, got {human(max(self.on_device, self.on_host))} for "
            f"{human(int(room))} that may be used ({', '.join(self._parts())}). "
            f"{self._remedy(config, room)}"
        )

    def _parts(self) -> list[str]:
        parts = {n: getattr(self, n) for n in ("parameters", "rollout", "cache", "activations")}
        return [f"{n} {human(v)}" for n, v in sorted(parts.items(), key=lambda p: -p[1])]

    def _remedy(self, config: RunConfig, room: float) -> str:
        growing = self.rollout + self.cache
        fixed = self.parameters + self.activations
        if self.activations > growing:
            tokens = config.ppo.microbatch_tokens or self.rows * config.rollout.num_steps
            share = max(room - self.parameters - growing, 0) / max(self.activations, 1)
            fitting = max(int(tokens * share), 1)
            return f"Use ppo.microbatch_tokens={fitting} or less (one row at the least)."
        rows = int(max(room - fixed, 0) / max(growing / self.rows, 1))
        if rows >= 1:
            rows *= config.rollout.num_envs // self.rows  # of all ranks
            return f"Use rollout.num_envs={rows} or less, or a shorter rollout.num_steps."
        return "Use a shorter rollout.num_steps, or a smaller policy."


def plan_memory(
    config: RunConfig,
    policy: Policy,
    *,
    rows: int,
    free_device: int | None = None,
    processes: int = 1,
    on_device: int = 1,
) -> MemoryPlan:
    """Compute what a run needs, before anything large is allocated.

    Args:
        config: The run.
        policy: Its policy, on its device.
        rows: Rows of this process.
        free_device: Free bytes of the device; None asks it.
        processes: Those that share this machine's memory, each with as many rows.
        on_device: Those that share the policy's GPU.
    """
    device = policy.device
    num_steps = config.rollout.num_steps
    demonstrations = config.ppo.expert_steps > 0
    rollout = rollout_bytes(
        policy.stored_space.spaces, policy.action_space, policy.stored_dtypes,
        rows=rows, num_steps=num_steps, demonstrations=demonstrations,
    )  # fmt: skip
    cache = policy.memory.bytes_per_row(num_steps, config.rollout.torch_cache_dtype) * rows
    if not policy.config.memory_can.keeps_steps:
        cache *= 2  # as it was when the chunk began: such memories write over what they hold
    weights = sum(p.nbytes for p in policy.parameters())
    learned = sum(p.nbytes for p in policy.parameters() if p.requires_grad)
    activations = activation_bytes(config, policy, rows)
    host = psutil.virtual_memory().available // processes
    if free_device is None:
        on_cpu = device.type == "cpu"
        free_device = host if on_cpu else torch.cuda.mem_get_info(device)[0] // on_device
    # What is learned has a gradient and two moments beside it.
    resident = weights + 3 * learned + cache + activations
    fits = resident + rollout <= _RESERVE * free_device
    placed = {"auto": fits, "policy": True, "host": False}[config.rollout.device]
    return MemoryPlan(
        parameters=weights + 3 * learned,
        rollout=rollout,
        cache=cache,
        activations=activations,
        rollout_on_device=placed or device.type == "cpu",
        rows=rows,
        device=device,
        free_host=host,
        free_device=free_device,
        processes=processes,
    )


def rollout_bytes(
    stored: Mapping[str, spaces.Space],
    action_space: spaces.Space,
    dtypes: Mapping[str, torch.dtype],
    *,
    rows: int,
    num_steps: int,
    demonstrations: bool = False,
) -> int:
    """Return the bytes of all columns of a rollout."""
    if isinstance(action_space, spaces.Box):  # in the policy's units
        action_space = spaces.Box(-1.0, 1.0, action_space.shape, np.float32)
    action = _space_bytes(action_space) * (2 if demonstrations else 1)
    # Log-prob, value, final value and reward are float32; four flags; the context's order.
    scalars = 4 * 4 + 4 + 8
    observed = sum(_size(space) * dtypes[key].itemsize for key, space in stored.items())
    per_step = observed + action + scalars
    return per_step * rows * num_steps


def activation_bytes(config: RunConfig, policy: Policy, rows: int) -> int:
    """Return what the largest pass of an update or refresh holds at its peak.

    Args:
        config: The run.
        policy: Its policy, on which short passes are measured.
        rows: Rows of this process.
    """
    steps, limit = config.rollout.num_steps, config.updates.refresh_tokens
    at_once = rows if limit is None else min(max(limit // steps, 1), rows)
    format_of_passes = config.ppo.precision.autocast(policy.device)
    sizes = [reading_footprint(policy, steps, format_of_passes).bytes(at_once * steps)]
    # The longest of each kind: over the context or what follows a prefix, with keys kept or not.
    longest: dict[tuple[bool, bool], tuple[int, int]] = {}
    for update in config.schedule.table:
        begin, length = update.begin, update.at_step - update.begin
        kind = (begin > 0, config.updates.keeps_pass(update))
        longest[kind] = max(longest.get(kind, (0, 0)), (length, begin))
    if lesson_weights(policy):
        longest[False, False] = (steps, 0)
    for (_, keeps), (length, begin) in longest.items():
        taken = microbatch_rows(
            rows // config.ppo.num_minibatches, length, config.ppo.microbatch_tokens
        )
        footprint = learning_footprint(policy, length, format_of_passes, keeps_keys=keeps)
        size = footprint.bytes(taken * length)
        if begin and taken > 1 and config.updates.prefix_gradient is PrefixGradient.DETACHED:
            # Scattered rows are copied.
            size += taken * policy.memory.bytes_per_row(begin, config.rollout.torch_cache_dtype)
        size += policy.memory.scratch_bytes(begin + length)
        sizes.append(size)
    # Returns, advantages and what they are made of, while an update lasts.
    return max(sizes) + _TARGET_BYTES * rows * steps


def human(size: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _space_bytes(space: spaces.Space) -> int:
    assert space.dtype is not None
    return _size(space) * np.dtype(space.dtype).itemsize


def _size(space: spaces.Space) -> int:
    return int(np.prod(space.shape or (), dtype=np.int64))
