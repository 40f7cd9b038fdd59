"""Rollouts that hold something without having been collected, and the memory that is in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import torch

from relic.ppo.loop import refresh
from relic.ppo.schedule import PlannedUpdate
from relic.run.components import Components

EPISODE = 100


def fill(parts: Components, planned: PlannedUpdate) -> None:
    """Fill a rollout with random steps, and the memory with those before the update's loss."""
    rollout = parts.rollout
    for column in rollout.observation.values():
        if column.dtype.is_floating_point:
            column.uniform_(0, 1)
        else:
            column.zero_()
    if rollout.action.dtype.is_floating_point:
        rollout.action.uniform_(-1, 1)
    else:
        rollout.action.random_(0, 4)
    rollout.log_prob_NT.fill_(-1.6)
    rollout.reward_NT[:] = np.random.default_rng(0).random(rollout.reward_NT.shape)
    rollout.episode_starts_NT[:] = np.arange(rollout.num_steps) % EPISODE == 0
    rollout.truncated_NT[:] = np.roll(rollout.episode_starts_NT, -1, axis=1)
    rollout.size = planned.loss_from
    if rollout.size:
        learner = parts.learner
        refresh(parts.collector, learner.updates, precision=learner.ppo.precision)
    for group in parts.collector.groups:
        group.prefix = group.state.memory.snapshot()
    rollout.size = planned.at_step


def learn(parts: Components, planned: PlannedUpdate) -> dict[str, float]:
    """Take one update on a filled rollout."""
    return parts.learner.update(
        parts.rollout,
        planned,
        groups=parts.collector.groups,
        bootstrap_N=torch.zeros(parts.rollout.num_envs),
        env_steps=parts.rollout.num_envs * planned.at_step,
    )


def reset_peak(device: torch.device) -> None:
    """Begin to measure the peak of memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes what is in use


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that was in use since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def bytes_in_use(device: torch.device) -> int:
    """Return the memory in use now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss
