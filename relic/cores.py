"""How much of this machine a program may use."""

from __future__ import annotations

import os
from pathlib import Path


def cores() -> int:
    """Return how many cores this process may use: those it is bound to, within its quota."""
    bound = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on every system
        bound = len(os.sched_getaffinity(0))
    try:
        # Containers that may use two of many cores see all of them.
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(bound, max(round(int(quota) / int(period)), 1))
    except (OSError, ValueError):  # no such file, or "max"
        return bound
