"""Timing for the benchmarks of policy and training: warm up, repeat, median, one JSON line.

One thread on a CPU is measured by its CPU time, which other programs move less; everything else by
the clock on the wall.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from machine import cpu_name, load

from relic.policy.linear import linear

WARM_UPS = 3


def measure(run: Callable[[], Any], device: torch.device, repeats: int) -> dict[str, float]:
    """Return median, fastest and slowest time of a call in milliseconds."""
    for _ in range(WARM_UPS if repeats > 1 else 1):
        timed(run, device)
    return summary([timed(run, device) for _ in range(repeats)])


def measure_in_turns(
    calls: Mapping[str, Callable[[], Any]],
    device: torch.device,
    repeats: int,
    *,
    limit_s: float = math.inf,
) -> dict[str, dict[str, float]]:
    """Measure rivals that take turns, so that all meet the same neighbours; nothing warms up.

    Args:
        calls: What is measured, by name.
        device: Where it computes.
        repeats: Turns of each.
        limit_s: After so many seconds no further round of turns begins; the first one counts.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + limit_s
    for turn in range(repeats):
        if turn and time.perf_counter() > end:
            break
        for name, run in calls.items():
            times[name].append(timed(run, device))
    return {name: summary(took) for name, took in times.items()}


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Return the milliseconds of one call."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (clock() - begin) * 1e3


def summary(times: list[float]) -> dict[str, float]:
    """Return the median and the spread of times in milliseconds."""
    return {"ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times)}


def machine(device: torch.device) -> dict[str, Any]:
    """Return what a number depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": device.type,
        "name": name,
        "load": load(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def precisions(device: torch.device) -> dict[str, torch.dtype]:
    """Return the number formats that are worth measuring on a device, by name."""
    half = {"bfloat16": torch.bfloat16} if device.type == "cuda" else {}
    return {"float32": torch.float32} | half


def product_tflops(
    device: torch.device, repeats: int, dtype: torch.dtype, *, quick: bool = False
) -> float:
    """Return the TFLOP/s of a large product of matrices: what a device does at most."""
    side = 1024 if device.type == "cpu" or quick else 8192
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    # On a CPU the library that layers take can be faster than PyTorch's choice.
    ways = (lambda: a @ b, lambda: linear(a, b))
    return 2 * side**3 / min(measure(way, device, repeats)["ms"] for way in ways) / 1e9


def copy_bandwidth(device: torch.device, repeats: int) -> float:
    """Return the gigabytes per second that a large copy reads and writes."""
    # On a GPU so large that the start of the copy does not count.
    source = torch.empty(2**26 if device.type == "cpu" else 2**28, device=device)
    target = torch.empty_like(source)
    took = measure(lambda: target.copy_(source), device, repeats)["ms"]
    return 2 * source.numel() * 4 / took / 1e6


def finish(name: str, options: dict[str, Any], device: torch.device, results: Any) -> None:
    """Print the one JSON object that ends a benchmark."""
    print(
        json.dumps(
            {
                "benchmark": name,
                "options": options,
                "machine": machine(device),
                "results": results,
            }
        )
    )
