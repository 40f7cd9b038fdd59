"""Resident memory of rows that each live in a house of their own; run by `bench_houses.py`.

    python benchmarks/houses_memory.py medium 256

It takes a process of its own, because memory that a process once had is not always given back.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil

from envs.houses.env import HousesVectorEnv

STEPS = 32


def resident() -> float:
    """Return the memory of this process in MiB."""
    return psutil.Process().memory_info().rss / 2**20


def measure(size: str, rows: int) -> dict[str, float]:
    """Fill rows with houses, act in them, and ask for every goal, which fills all caches."""
    options = {"split": "val", "size": size, "sensors": ["rgb", "depth", "semantic"]}
    HousesVectorEnv(1, **options).reset()  # compiles
    before = resident()
    env = HousesVectorEnv(rows, **options, copy=False)
    env.reset(options={"trial": np.arange(rows)})
    after_reset = resident()
    for action_N in np.random.default_rng(0).integers(0, 6, (STEPS, rows)):
        env.step(action_N)
    for _ in range(2 * env.simulator.task_scene(0).num_categories):
        env.reset()
    return {
        "process_mib": resident(),
        "rows_mib": resident() - before,
        "per_house_kib": 1024.0 * (after_reset - before) / rows,
        "base_mib": before,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
