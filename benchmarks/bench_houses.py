"""How fast are the houses, how much memory do they take, and how do others compare?

    python benchmarks/bench_houses.py            # everything, about ten minutes
    python benchmarks/bench_houses.py --quick    # every part, few settings

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
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numba
import numpy as np
import psutil
from bench_others import doom_rates, miniworld_rates

from envs.houses.dataset import HouseDataset
from envs.houses.env import HousesVectorEnv

SENSORS = ["rgb", "depth", "semantic"]
BARS = {32: (14_000, 20_000), 64: (5_000, 6_000), 128: (1_500, 1_700)}
"""Steps per second and core that are required and hoped for, by resolution, medium houses."""
EPISODES_BEFORE = 14


def random_actions(steps: int, rows: int, stop_rate: float) -> np.ndarray:
    """Uniform over the moves, with a stop now and then."""
    rng = np.random.default_rng(0)
    action_TN = rng.integers(1, 6, (steps, rows))
    action_TN[rng.random(action_TN.shape) < stop_rate] = 0
    return action_TN


def cpu_time() -> float:
    """CPU seconds of this process and of its children, such as ViZDoom's engine."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(t.user + t.system for t in times)


def rate(step: Callable[[], int], seconds: float, repeats: int) -> dict[str, float]:
    """Call `step`, which returns how many steps it took; median of steps per second."""
    step()
    cpu, wall = [], []
    for _ in range(repeats):
        taken, start_cpu, start = 0, cpu_time(), time.perf_counter()
        while time.perf_counter() - start < seconds / repeats:
            taken += step()
        wall.append(taken / (time.perf_counter() - start))
        cpu.append(taken / (cpu_time() - start_cpu))
    return {
        "per_core": statistics.median(cpu),
        "worst": min(cpu),
        "best": max(cpu),
        "wall": statistics.median(wall),
    }


def stepper(
    size: str, resolution: int, rows: int, threads: int, args: argparse.Namespace
) -> tuple[Callable[[], int], Callable[[], None]]:
    """Return functions that take 16 steps of a vector environment, and that close it."""
    env = HousesVectorEnv(
        rows, split="val", size=size, resolution=resolution, sensors=SENSORS, threads=threads
    )
    env.reset(seed=0)
    for _ in range(EPISODES_BEFORE):
        env.reset()
    action_TN = random_actions(256, rows, args.stop_rate)
    position = 0

    def step() -> int:
        nonlocal position
        for _ in range(16):
            env.step(action_TN[position % len(action_TN)])
            position += 1
        return 16 * rows

    return step, env.close


def house_rate(
    size: str, resolution: int, rows: int, threads: int, args: argparse.Namespace
) -> dict[str, float]:
    """Measure the vector environment at one setting."""
    step, close = stepper(size, resolution, rows, threads, args)
    result = rate(step, args.seconds, args.repeats)
    close()
    return result


def thread_table(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure two threads against one by turns, so that both meet the same neighbours."""
    rows = max(args.rows)
    print(f"\ntwo threads against one, medium houses, {rows} rows, by turns")
    table = {}
    for resolution in args.resolutions:
        both = [stepper("medium", resolution, rows, threads, args) for threads in (1, 2)]
        wall: list[list[float]] = [[], []]
        cpu: list[list[float]] = [[], []]
        for turn in range(2 + max(10, 4 * args.repeats)):
            for k, (step, _) in enumerate(both):
                start_cpu, start = time.process_time(), time.perf_counter()
                step()
                if turn >= 2:
                    wall[k].append(time.perf_counter() - start)
                    cpu[k].append(time.process_time() - start_cpu)
        for _, close in both:
            close()
        table[str(resolution)] = got = {
            "speedup_median": statistics.median(wall[0]) / statistics.median(wall[1]),
            "speedup_best": min(wall[0]) / min(wall[1]),
            "cpu_time_ratio": statistics.median(cpu[1]) / statistics.median(cpu[0]),
        }
        print(
            f"{resolution:>5}: {got['speedup_median']:.2f} times as fast in the median, "
            f"{got['speedup_best']:.2f} at best, with {got['cpu_time_ratio']:.2f} of the CPU time"
        )
    return table


def speed_table(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all settings and print them as they come."""
    print(f"\nenv steps per second and core, {'+'.join(SENSORS)}, hfov 90")
    print(
        f"{'size':>7} {'pixels':>6} {'rows':>5} {'threads':>7} {'per core':>9} {'wall':>9}  range"
    )
    table = []
    for size in args.sizes:
        for resolution in args.resolutions:
            for rows in args.rows:
                for threads in args.threads:
                    got = house_rate(size, resolution, rows, threads, args)
                    print(
                        f"{size:>7} {resolution:>6} {rows:>5} {threads:>7} "
                        f"{got['per_core']:>9,.0f} {got['wall']:>9,.0f}"
                        f"  {got['worst']:,.0f} - {got['best']:,.0f}"
                    )
                    setting = {"size": size, "resolution": resolution, "rows": rows}
                    table.append({**setting, "threads": threads, **got})
    return table


def generation_table(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure how fast houses with an arrangement are made."""
    print("\nhouse generation with one arrangement, per minute of CPU time")
    table = {}
    for size in args.sizes:
        dataset = HouseDataset("train", size)
        number, primitives = 0, []

        def make(dataset: HouseDataset = dataset, primitives: list[int] = primitives) -> int:
            nonlocal number
            primitives.append(len(dataset.scene(number, 0).primitives))
            number += 1
            return 1

        got = rate(make, args.seconds, args.repeats)
        table[size] = {
            "houses_per_minute": 60.0 * got["per_core"],
            "primitives": statistics.mean(primitives),
        }
        print(
            f"{size:>7} {60 * got['per_core']:>9,.0f}  "
            f"({statistics.mean(primitives):.0f} primitives in the mean)"
        )
    return table


def memory_of(size: str, rows: int, steps: int) -> dict[str, float]:
    """Resident memory of rows that each live in a house of their own, in MiB. Run in a child."""
    process = psutil.Process()

    def resident() -> float:
        return process.memory_info().rss / 2**20

    HousesVectorEnv(1, split="val", size=size, resolution=64, sensors=SENSORS).reset()
    before = resident()
    env = HousesVectorEnv(rows, split="val", size=size, resolution=64, sensors=SENSORS, copy=False)
    env.reset(options={"trial": np.arange(rows)})
    after_reset = resident()
    for action_N in random_actions(steps, rows, stop_rate=0.01):
        env.step(action_N)
    for _ in range(2 * env.simulator.place(0).num_categories):
        env.reset()  # new goals: fills the cache of distance fields
    return {
        "process_mib": resident(),
        "rows_mib": resident() - before,
        "per_house_kib": 1024.0 * (after_reset - before) / rows,
        "base_mib": before,
    }


def memory_table(args: argparse.Namespace) -> dict[str, Any]:
    """Measure memory in fresh processes."""
    print(f"\nresident memory of {args.memory_rows} rows, each with an own house, 64 x 64")
    table = {}
    for size in args.sizes:
        command = [sys.executable, __file__, "--memory-of", size, str(args.memory_rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        got = table[size] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{size:>7} process {got['process_mib']:,.0f} MiB, of which rows "
            f"{got['rows_mib']:,.0f} MiB; {got['per_house_kib']:,.0f} KiB per house at the start"
        )
    return table


def best_rate(result: dict[str, Any], resolution: int) -> float:
    """Return the best rate per core of medium houses and one thread, 0 if none was measured."""
    rates = [
        s["per_core"]
        for s in result["speed"]
        if (s["size"], s["resolution"], s["threads"]) == ("medium", resolution, 1)
    ]
    return max(rates, default=0.0)


def judge(result: dict[str, Any]) -> dict[str, Any]:
    """Compare with what is required, and print it."""
    verdict: dict[str, Any] = {}
    print("\nmedium houses, one thread, against what is required")
    for resolution, (required, goal) in BARS.items():
        got = best_rate(result, resolution)
        if got:
            verdict[f"per_core_{resolution}"] = {
                "got": got,
                "required": required,
                "goal": goal,
                "met": got >= required,
            }
            print(f"{resolution:>5}: {got:>8,.0f} per core, required {required:,}, goal {goal:,}")
    for name, got in result["others"].items():
        ours = best_rate(result, got["compare"])
        if ours:
            ratio = verdict[f"times_{name}"] = ours / got["per_core"]
            print(
                f"{name:>33} {got['per_core']:>8,.0f} per core; "
                f"houses at {got['compare']} x {got['compare']}: {ratio:.1f} times that"
            )
    return verdict


def cpu_name() -> str:
    """Return the processor's name, or its kind where the system does not say."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", default=["small", "medium", "large"])
    parser.add_argument("--resolutions", nargs="+", type=int, default=[32, 64, 128])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8, 64, 256])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2.0, help="per setting")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stop-rate", type=float, default=0.01, help="share of stops, 1/6: random")
    parser.add_argument("--memory-rows", type=int, default=256)
    parser.add_argument("--quick", action="store_true", help="medium houses, 64 rows, short")
    parser.add_argument("--no-others", action="store_true", help="leave Miniworld and ViZDoom out")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.rows, args.seconds, args.repeats = ["medium"], [64], 1.0, 3
    return args


def main() -> None:
    args = parse()
    if args.memory_of:
        print(json.dumps(memory_of(args.memory_of[0], int(args.memory_of[1]), steps=32)))
        return
    setting = {
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "gymnasium": gymnasium.__version__,
        "dataset": HouseDataset("val", "medium").name,
        "stop_rate": args.stop_rate,
        "command": " ".join(sys.argv),
    }
    for name, value in setting.items():
        print(f"{name}: {value}")
    result: dict[str, Any] = {"setting": setting, "speed": speed_table(args)}
    result["threads"] = thread_table(args)
    result["generation"] = generation_table(args)
    result["memory"] = memory_table(args)
    others: dict[str, Any] = {}
    if not args.no_others:
        print("\nothers, RGB only, random moves")
        others |= miniworld_rates(rate, args.seconds, args.repeats)
        others |= doom_rates(rate, args.seconds, args.repeats)
    result["others"] = others
    result["verdict"] = judge(result)
    print()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
