"""Does a run keep to the memory that it said it would need?

    python benchmarks/bench_memory.py                          # 4k and 16k steps
    python benchmarks/bench_memory.py --contexts 65536 --experiment houses_64k
    python benchmarks/bench_memory.py --device cuda --contexts 65536

Builds an experiment, fills its rollout and memory with random steps, takes the last partial update
and a full one, which every rollout ends with here, and holds the peak against the plan that a run
prints before it starts. Each case has a process of its own. On a CPU the peak is that of the whole
process beyond what it had when everything was imported and compiled; freed memory goes back to the
system at once there, of which a training run keeps up to 512 MiB (`--keep-freed` does, too). The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from filled import bytes_in_use, fill, learn, peak_bytes, reset_peak
from timing import finish

from relic.run.components import build_components
from relic.run.compose import compose
from relic.run.distributed import join_ranks
from relic.run.heap import give_freed_memory_back
from relic.run.trainer import prepare_process

CHUNK = 256


def case(options: dict[str, Any], steps: int, rows: int) -> dict[str, Any]:
    """Measure one size, in this process."""
    device = join_ranks(options["device"]).device
    updates(options, 2 * CHUNK, rows)
    reset_peak(device)
    before = bytes_in_use(device)
    began = time.perf_counter()
    planned, on_device = updates(options, steps, rows)
    peak = peak_bytes(device) - before
    return {
        "experiment": options["experiment"],
        "rows": rows,
        "steps": steps,
        "plan_bytes": on_device,
        "peak_bytes": peak,
        "ratio": peak / on_device,
        "plan": planned,
        "seconds": time.perf_counter() - began,
    }


def updates(options: dict[str, Any], steps: int, rows: int) -> tuple[list[str], int]:
    """Build a run and take its last two kinds of updates; return its plan."""
    config = compose(
        {
            "experiment": options["experiment"],
            "size": options["size"],
            "device": options["device"],
            "threads": options["threads"],
            "rollout": {"num_envs": rows, "num_steps": steps, "groups": 1},
            "updates": {"per_rollout": steps // CHUNK, "full_per_rollout": 1},
            "ppo": {"update_epochs": 1},
            **options["overrides"],
        }
    )
    prepare_process(config)
    if not options["keep_freed"]:
        give_freed_memory_back()
    parts = build_components(config, join_ranks(options["device"]))
    partial, full = parts.learner.schedule.table[-2:]
    fill(parts, partial)
    learn(parts, partial)
    learn(parts, full)
    parts.close()
    return parts.plan.lines(), parts.plan.on_device


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", default="darkroom_64k")
    parser.add_argument("--size", default="none")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--contexts", type=int, nargs="+", default=[4096, 16_384])
    parser.add_argument("--rows", type=int, nargs="+", default=[2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--keep-freed", action="store_true", help="as a training run does")
    parser.add_argument("--quick", action="store_true", help="the smallest case only")
    args = parser.parse_args()
    options = vars(args) | {"overrides": dict(item.split("=", 1) for item in args.set)}
    results = []
    print(f"{'rows':>5} {'steps':>7} {'plan':>10} {'peak':>10} {'peak/plan':>9}")
    for steps in (1024,) if args.quick else args.contexts:
        for rows in args.rows:
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=spawn) as alone:
                row = alone.submit(case, options, steps, rows).result()
            results.append(row)
            print(
                f"{rows:5} {steps:7,} {row['plan_bytes'] / 2**20:6,.0f} MiB "
                f"{row['peak_bytes'] / 2**20:6,.0f} MiB {row['ratio']:9.2f}"
            )
            print("\n".join(row["plan"]))
    finish("memory", vars(args), torch.device(args.device), results)


if __name__ == "__main__":
    main()
