"""How fast are the houses, how much memory do they take, and how do others compare?

    python benchmarks/bench_houses.py                          # everything, a quarter of an hour
    python benchmarks/bench_houses.py --quick                  # every part, few settings
    python benchmarks/bench_houses.py --parts threads memory   # some parts

Rates are env steps per second of CPU time, so per core; the wall clock's are beside them, as other
programs may share the machine. Agents move at random and stop once in a hundred steps on average:
episodes of the length that trained agents have, with their resets, distance fields and success
tests. Each row has had 14 episodes in its house before, as in the middle of a trial. Miniworld
and ViZDoom are measured in the same run if they are installed (`pip install -e '.[bench]'`). The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numba
import numpy as np
from bench_others import doom_rates, miniworld_rates
from houses_parts import (
    detection_table,
    generation_table,
    memory_table,
    rate,
    speed_table,
    thread_table,
)
from machine import cpu_name, load

from envs.houses.dataset import HouseDataset

BARS = {32: (14_000, 20_000), 64: (5_000, 6_000), 128: (1_500, 1_700)}
"""Steps per second and core that are required and hoped for, by resolution, medium houses."""
DETECTIONS = 20_000
"""Steps per second and core that are required where detections take the place of pictures, in small
houses and 64 rows."""
SPEEDUP = 1.8
"""Required of two threads on a free machine."""


def others_table(args: argparse.Namespace) -> dict[str, Any]:
    """Measure Miniworld and ViZDoom."""
    print(f"\nothers, RGB only, random moves, load {load()}")
    rates = miniworld_rates(rate, args.seconds, args.repeats)
    rates |= doom_rates(rate, args.seconds, args.repeats)
    for name, got in rates.items():
        print(f"{name:>33} {got['per_core']:>8,.0f}  {got['worst']:,.0f} - {got['best']:,.0f}")
    return rates


PARTS = {
    "speed": speed_table,
    "detections": detection_table,
    "threads": thread_table,
    "generation": generation_table,
    "memory": memory_table,
    "others": others_table,
}


def best_rate(result: dict[str, Any], resolution: int) -> float:
    """Return the best rate per core of medium houses and one thread, 0 if none was measured."""
    rates = [
        s["per_core"]
        for s in result.get("speed", [])
        if (s["size"], s["resolution"], s["threads"]) == ("medium", resolution, 1)
    ]
    return max(rates, default=0.0)


def judge(result: dict[str, Any]) -> dict[str, Any]:
    """Compare what was measured with what is required, and print it."""
    verdict: dict[str, Any] = {}
    print("\nagainst what is required; pictures: of medium houses")
    for resolution, (required, goal) in BARS.items():
        if got := best_rate(result, resolution):
            bar = {"required": required, "goal": goal, "met": got >= required}
            verdict[f"per_core_{resolution}"] = {"got": got, **bar}
            print(f"{resolution:>5}: {got:>8,.0f} per core, required {required:,}, goal {goal:,}")
    for measured in result.get("detections", []):
        if (measured["size"], measured["rows"]) == ("small", 64):
            got = measured["per_core"]
            verdict["detections"] = {"got": got, "required": DETECTIONS, "met": got >= DETECTIONS}
            print(f"detections in small houses: {got:,.0f} per core, required {DETECTIONS:,}")
    for resolution, measured in result.get("threads", {}).items():
        got = measured["speedup"]
        bar = {"got": got, "required": SPEEDUP, "met": got >= SPEEDUP}
        verdict[f"threads_{resolution}"] = bar
        print(f"{resolution:>5}: two threads {got:.2f} times as fast as one, required {SPEEDUP}")
    for name, measured in result.get("others", {}).items():
        if ours := best_rate(result, measured["compare"]):
            ratio = verdict[f"times_{name}"] = ours / measured["per_core"]
            print(
                f"{name:>33} {measured['per_core']:>8,.0f} per core; "
                f"houses at {measured['compare']} x {measured['compare']}: {ratio:.1f} times that"
            )
    return verdict


def setting(args: argparse.Namespace) -> dict[str, Any]:
    """Describe the machine and the run."""
    return {
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "load": load(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "gymnasium": gymnasium.__version__,
        "dataset": HouseDataset("val", "medium").name,
        "stop_rate": args.stop_rate,
        "command": " ".join(sys.argv),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--sizes", nargs="+", default=["small", "medium", "large"])
    parser.add_argument("--resolutions", nargs="+", type=int, default=[32, 64, 128])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8, 64, 256])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2.0, help="per setting")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--turns", type=int, default=40, help="of one thread and of two")
    parser.add_argument("--stop-rate", type=float, default=0.01, help="share of stops, 1/6: random")
    parser.add_argument("--memory-rows", type=int, default=256)
    parser.add_argument("--quick", action="store_true", help="medium houses, 64 rows, short")
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.rows, args.turns = ["medium"], [64], 10
        args.seconds, args.repeats = 1.0, 3
    return args


def main() -> None:
    args = parse()
    result: dict[str, Any] = {"setting": setting(args)}
    for name, value in result["setting"].items():
        print(f"{name}: {value}")
    for name, part in PARTS.items():
        if name in args.parts:
            result[name] = part(args)
    result["verdict"] = judge(result)
    print()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
