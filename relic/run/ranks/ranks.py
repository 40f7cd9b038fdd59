"""The number of processes of a run on this machine: one per core, if there are enough rows.

What a run computes does not depend on their number, so nobody needs to choose it. Imports no torch:
whoever only starts processes is there at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from relic.cores import cores
from relic.ppo.config import most_ranks
from relic.run.config import RunConfig
from relic.schema import ConfigError

FEWEST_ROWS: Final = 4
"""Rows of a rank below which another one is not started by itself: the cost of a step is then that
of its operations, whatever the number of rows (`benchmarks/bench_train.py --ranks`)."""


def number_of_ranks(config: RunConfig) -> int:
    """Return how many processes shall train a run; 1 stands for this one.

    Raises:
        ConfigError: If a number is asked for that this start cannot have.
    """
    asked = config.ranks
    if started_by_launcher():
        if asked is not None:
            raise ConfigError(
                f"ranks: must be null under torchrun, which says how many, got {asked}. "
                "Use ranks=null."
            )
        return 1
    if asked == 1 or config.cluster.backend != "none":
        return 1
    if asked is not None:
        return asked
    # One process keeps a GPU busier than several that take turns, unless it is told otherwise.
    return 1 if uses_cuda(config.device) else suitable_ranks(config, cores())


def suitable_ranks(config: RunConfig, cores: int) -> int:
    """Return the largest number of ranks that cores and rows suffice for."""
    rows, groups = config.rollout.num_envs, config.rollout.groups
    most = most_ranks(config.ppo, config.updates, num_envs=rows)
    for count in range(min(most, cores // (config.threads or 1)), 1, -1):
        each = rows // count
        if most % count == 0 and each % groups == 0 and each >= FEWEST_ROWS:
            return count
    return 1


def started_by_launcher() -> bool:
    """Say whether torchrun, or something like it, has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def uses_cuda(device: str) -> bool:
    """Say whether a run on this device would use a GPU."""
    if device == "auto" and Path("/proc/driver/nvidia").exists():
        import torch  # only here: most machines without a GPU are known by the driver's absence

        return torch.cuda.is_available()
    return device == "cuda"
