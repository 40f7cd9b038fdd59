"""The parts of `bench_houses.py` that measure the houses themselves, each printing its table."""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import OtherLoad, cores_to_be_had, cpu_time, load

from envs.houses.dataset import HouseDataset
from envs.houses.env import HousesVectorEnv

SENSORS = ["rgb", "depth", "semantic"]
EPISODES_BEFORE = 14
"""In each row's house, as in the middle of a trial."""
STEPS_A_TURN = 16


def random_actions(steps: int, rows: int, stop_rate: float) -> np.ndarray:
    """Uniform over the moves, with a stop now and then."""
    rng = np.random.default_rng(0)
    action_TN = rng.integers(1, 6, (steps, rows))
    action_TN[rng.random(action_TN.shape) < stop_rate] = 0
    return action_TN


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
    size: str,
    resolution: int,
    rows: int,
    threads: int,
    stop_rate: float,
    sensors: Sequence[str] = tuple(SENSORS),
    renderer: str = "cpu",
) -> tuple[Callable[[], int], Callable[[], None]]:
    """Return functions that take 16 steps of a vector environment, and that close it."""
    env = HousesVectorEnv(
        rows,
        split="val",
        size=size,
        resolution=resolution,
        sensors=sensors,
        threads=threads,
        renderer=renderer,
    )
    env.reset(seed=0)
    for _ in range(EPISODES_BEFORE):
        env.reset()
    actions = itertools.cycle(random_actions(256, rows, stop_rate))

    def step() -> int:
        for action_N in itertools.islice(actions, STEPS_A_TURN):
            env.step(action_N)
        return STEPS_A_TURN * rows

    return step, env.close


def speed_table(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all settings and print them as they come."""
    print(f"\nenv steps per second and core, {'+'.join(SENSORS)}, hfov 90, load {load()}")
    print(
        f"{'size':>7} {'pixels':>6} {'rows':>5} {'threads':>7} {'per core':>9} {'wall':>9}  range"
    )
    table = []
    for setting in itertools.product(args.sizes, args.resolutions, args.rows, args.threads):
        step, close = stepper(*setting, args.stop_rate)
        got = rate(step, args.seconds, args.repeats)
        close()
        size, resolution, rows, threads = setting
        print(
            f"{size:>7} {resolution:>6} {rows:>5} {threads:>7} "
            f"{got['per_core']:>9,.0f} {got['wall']:>9,.0f}"
            f"  {got['worst']:,.0f} - {got['best']:,.0f}"
        )
        table.append(dict(zip(("size", "resolution", "rows", "threads"), setting, strict=True)))
        table[-1] |= got
    return table


def detection_table(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the houses with detections in the place of pictures, and print it."""
    print(f"\nenv steps per second and core, detections at 64 x 64, one thread, load {load()}")
    table = []
    for size, rows in itertools.product(args.sizes, args.rows):
        step, close = stepper(size, 64, rows, 1, args.stop_rate, ["detections"])
        got = rate(step, args.seconds, args.repeats)
        close()
        spread = f"{got['worst']:,.0f} - {got['best']:,.0f}"
        print(f"{size:>7} {rows:>5} {got['per_core']:>9,.0f}  {spread}")
        table.append({"size": size, "rows": rows, **got})
    return table


def thread_table(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure two threads against one in short turns, so that both meet the same neighbours.

    Both take the same steps in the same houses. The speed-up is the median over pairs of
    neighbouring turns. What other programs used meanwhile, and what two bare loops got, say how
    much of it was to be had.
    """
    rows = max(args.rows)
    print(f"\ntwo threads against one, medium houses, {rows} rows, by turns, load {load()}")
    table = {}
    for resolution in args.resolutions:
        both = [stepper("medium", resolution, rows, n, args.stop_rate) for n in (1, 2)]
        bare = cores_to_be_had(2)
        with OtherLoad() as others:
            wall_2P, cpu_2P = _turns([step for step, _ in both], args.turns)
        for _, close in both:
            close()
        speedups = sorted(one / two for one, two in zip(*wall_2P, strict=True))
        low, _, high = statistics.quantiles(speedups, n=4)
        table[str(resolution)] = got = {
            "speedup": statistics.median(speedups),
            "low": low,
            "high": high,
            "cpu_time_ratio": statistics.median(cpu_2P[1]) / statistics.median(cpu_2P[0]),
            "cores_used_by_others": others.cores,
            "cores_of_two_bare_loops": (bare + cores_to_be_had(2)) / 2,
        }
        print(
            f"{resolution:>5}: {got['speedup']:.2f} times as fast in the median of {args.turns} "
            f"turns (middle half {low:.2f} - {high:.2f}), {got['cpu_time_ratio']:.2f} of the CPU "
            f"time; others used {others.cores:.2f} cores, two bare loops got "
            f"{got['cores_of_two_bare_loops']:.2f}"
        )
    return table


def _turns(
    steps: list[Callable[[], int]], pairs: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Let two functions take turns; return wall and CPU seconds of each in every pair of turns."""
    wall_2P: list[list[float]] = [[], []]
    cpu_2P: list[list[float]] = [[], []]
    for step in steps:
        step()
    for pair in range(pairs):
        for k in (0, 1) if pair % 2 == 0 else (1, 0):  # so that a drift favours neither
            start_cpu, start = time.process_time(), time.perf_counter()
            steps[k]()
            wall_2P[k].append(time.perf_counter() - start)
            cpu_2P[k].append(time.process_time() - start_cpu)
    return wall_2P, cpu_2P


def generation_table(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure how fast houses with an arrangement are made."""
    print(f"\nhouse generation with one arrangement, per minute of CPU time, load {load()}")
    table = {}
    for size in args.sizes:
        dataset = HouseDataset("train", size)
        numbers, primitives = itertools.count(), []

        def make(
            dataset: HouseDataset = dataset,
            numbers: itertools.count[int] = numbers,
            primitives: list[int] = primitives,
        ) -> int:
            primitives.append(len(dataset.scene(next(numbers), 0).primitives))
            return 1

        got = rate(make, args.seconds, args.repeats)
        table[size] = {
            "houses_per_minute": 60.0 * got["per_core"],
            "worst": 60.0 * got["worst"],
            "best": 60.0 * got["best"],
            "primitives": statistics.mean(primitives),
        }
        print(
            f"{size:>7} {60 * got['per_core']:>9,.0f}"
            f"  {60 * got['worst']:,.0f} - {60 * got['best']:,.0f}"
            f"  ({statistics.mean(primitives):.0f} primitives in the mean)"
        )
    return table


def memory_table(args: argparse.Namespace) -> dict[str, Any]:
    """Measure memory in fresh processes."""
    print(f"\nresident memory of {args.memory_rows} rows, each with an own house, 64 x 64")
    table = {}
    script = Path(__file__).with_name("houses_memory.py")
    for size in args.sizes:
        command = [sys.executable, str(script), size, str(args.memory_rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        got = table[size] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{size:>7} process {got['process_mib']:,.0f} MiB, of which rows "
            f"{got['rows_mib']:,.0f} MiB; {got['per_house_kib']:,.0f} KiB per house at the start"
        )
    return table
