"""All that one GPU is asked for: a rollout of 65,536 steps on houses, and what its parts reach.

    python benchmarks/gpu_report.py runs/gpu_report --limit-s 540     # again, until it says done
    python benchmarks/gpu_report.py runs/cpu_report --quick           # on a CPU, minutes

Trains experiment=houses_64k, the paper's small policy with 20 rows at 64 x 64 pixels, for one whole
rollout with all its updates, by reward alone. Where the seconds of a call run out it saves and
leaves, if it can just before a refresh of the context, where the cache need not be saved; the next
call goes on exactly there. The last, full update begins only if half of the limit is left, so that
a call can hold it. Then, once each and while there is time: a large matrix product and a large
copy, which are this device's limits, one decode step against the context, the attention of a full
pass, the simulator, on a GPU also as it draws there, and training in one, two and four processes
that take turns on it. A part that fails says so and is not tried again, unless it is deleted from
DIRECTORY/parts.json. The report says environment steps per second including all updates, where the
time went, and the share of the product's speed, in the same precision, that acting, refreshing and
learning reach (model-FLOP use: multiplications and additions of the transformer, the passes that
checkpointing repeats not counted, encoder and heads neither).

Needs what training needs: PyTorch, numba, numpy, gymnasium, pyyaml, safetensors,
psutil, scipy, matplotlib, pillow, imageio and tqdm. The report is printed, and its JSON object is
the last line and in DIRECTORY/report.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from bench_attention import Pass, candidates
from bench_attention import timed as timed_attention
from bench_policy_step import decode_rows, forward_flops
from houses_parts import rate, stepper
from timing import copy_bandwidth, finish, machine, precisions, product_tflops

from relic.files import write_text
from relic.ppo.config import Precision
from relic.ppo.schedule import UpdateSchedule
from relic.run.compose import compose
from relic.run.config import RunConfig
from relic.run.distributed import join_ranks
from relic.run.metrics import read_metrics
from relic.run.trainer import Trainer
from relic.schema import ConfigError

CHUNK = 256
SAVE_S, PART_S = 30.0, 45.0
"""Seconds that are kept for a checkpoint, and for each part, on a GPU."""
STARTED = psutil.Process().create_time()
"""The limit holds from here on: imports and compilation count."""
PARTS_OF_TIME = ("simulate", "act", "learn", "refresh", "other")


def rollout_config(args: argparse.Namespace) -> RunConfig:
    """Return the run: one rollout, nothing validated, no expert."""
    cuda = args.device == "cuda"
    refresh_every = {"updates.refresh_every": 2} if args.quick else {}  # it has few updates
    return compose(
        {
            "experiment": "houses_64k",
            "size": args.size if args.size != "tiny" else "none",
            "device": args.device,
            "run_dir": str(args.directory),
            "total_steps": args.rows * args.steps,
            "rollout": {
                "num_envs": args.rows,
                "num_steps": args.steps,
                "groups": args.groups,
                "cache_dtype": args.cache_dtype,
                "cuda_graph": args.cuda_graph,
            },
            "ppo.precision": args.precision,
            "updates.per_rollout": args.steps // CHUNK,
            **refresh_every,
            "ppo.clone_steps": 0,
            "env.options.threads": max(1, cpu_threads() // args.groups) if cuda else 1,
            "env.options.renderer": args.renderer,
            "checkpoint.best_metric": None,
            "validation": {"every_rollouts": None, "final_trials": 0},
            "logging.progress": False,
        }
    )


def cpu_threads() -> int:
    """Return how many threads the simulator may use: more than sixteen are of no use to it here."""
    return min(16, len(os.sched_getaffinity(0)))


def seconds_left(limit_s: float) -> float:
    """Return what is left of this call."""
    return STARTED + limit_s - time.time()


class Deadline:
    """Says after each update whether to save and leave."""

    def __init__(self, trainer: Trainer, limit_s: float):
        self._trainer, self._limit_s = trainer, limit_s
        self._updated = self._renewed = seconds_left(limit_s)
        self._update_s = self._stretch_s = 0.0

    def __call__(self) -> bool:
        """Judge by the slowest update and the slowest stretch between two refreshes so far."""
        left = seconds_left(self._limit_s)
        self._update_s, self._updated = max(self._update_s, self._updated - left), left
        config = self._trainer.config
        index = self._trainer.parts.rollout.size // CHUNK - 1
        last = config.schedule.per_rollout - 1
        half = self._limit_s / 2
        if index < last and (left < 2 * self._update_s or (index == last - 1 and left < half)):
            return True
        if index == last or not config.updates.renews_after(index):
            return False
        self._stretch_s, self._renewed = max(self._stretch_s, self._renewed - left), left
        ends = index + config.updates.refresh_every >= last
        return left < self._stretch_s + (half if ends else 2 * self._update_s)


def train(config: RunConfig, limit_s: float) -> bool:
    """Train until the rollout is done or this call's time is up; say whether it is done."""
    trainer = Trainer(config, join_ranks(config.device))
    try:
        trainer.resume()
        print(*trainer.parts.plan.lines(), sep="\n")
        for _ in trainer.updates(Deadline(trainer, limit_s)):
            pass
        return trainer.is_finished
    finally:
        trainer.close()


def model_flops(config: RunConfig, schedule: UpdateSchedule, done: int) -> dict[str, float]:
    """Count the transformer's operations in the first updates of a rollout, all rows.

    Forward passes for acting and refreshing, and three times one for learning.
    """
    part, updates = config.policy.transformer, config.updates
    flops = dict.fromkeys(("act", "refresh", "learn"), 0.0)
    for planned in schedule.table[:done]:
        passed = forward_flops(part, planned.begin, planned.at_step)
        flops["learn"] += 3 * config.ppo.update_epochs * passed
        flops["act"] += forward_flops(part, planned.chunk_from, planned.at_step)
        if not planned.last and updates.renews_after(planned.index):
            flops["refresh"] += forward_flops(part, 0, planned.at_step)
    return {name: count * config.rollout.num_envs for name, count in flops.items()}


def rollout_report(config: RunConfig, limits: dict[str, float]) -> dict[str, Any]:
    """Say of the updates so far what they took and reached, from the run's metrics."""
    half = config.device == "cuda" and config.ppo.precision is Precision.BF16
    products = dict.fromkeys(("act", "refresh", "learn"), limits.get("float32_tflops"))
    if half:
        products["learn"] = products["refresh"] = limits.get("bfloat16_tflops")
    lines = read_metrics(config.directory / "metrics.jsonl")
    times = {p: sum(line.get(f"time/{p}", 0.0) for line in lines) for p in PARTS_OF_TIME}
    steps, wall_s = lines[-1]["env_steps"], lines[-1]["wall_s"]
    flops = model_flops(config, config.schedule, len(lines))
    reached = {p: flops[p] / max(times[p], 1e-9) / 1e12 for p in flops}
    report = {
        "rows": config.rollout.num_envs,
        "context": config.rollout.num_steps,
        "updates": f"{len(lines)} of {config.schedule.per_rollout}",
        "env_steps": steps,
        "wall_s": wall_s,
        "env_steps_per_s": steps / wall_s,
        "seconds": times,
        "model_tflops": reached,
        "share_of_product": {p: reached[p] / best for p, best in products.items() if best},
        "last_update_s": lines[-1].get("time/learn"),
    }
    print(
        f"rollout: {report['updates']} updates, {steps:,} steps in {wall_s:,.0f} s, "
        f"{report['env_steps_per_s']:,.0f} steps per second with all updates"
    )
    for name, seconds in times.items():
        use = f", {reached[name]:.3f} TFLOP/s" if name in reached else ""
        share = report["share_of_product"].get(name)
        use += f", {share:.1%} of the product" if share is not None else ""
        print(f"  {name:9} {seconds / wall_s:4.0%} of the time{use}")
    return report


def limits(device: torch.device, repeats: int, *, quick: bool) -> dict[str, float]:
    """Measure what the device does at most: large products, and a copy."""
    reached = {
        f"{name}_tflops": product_tflops(device, repeats, dtype, quick=quick)
        for name, dtype in precisions(device).items()
    }
    reached["copy_gb_per_s"] = copy_bandwidth(device, repeats)
    print(", ".join(f"{name} {value:.3f}" for name, value in reached.items()))
    return reached


def attention(device: torch.device, repeats: int, *, quick: bool) -> list[dict[str, Any]]:
    """Measure the full pass of the small policy's attention, all backends that can."""
    on_gpu = device.type == "cuda" and not quick
    shape = (1, 8, 65_536, 32) if on_gpu else (1, 8, 512, 32)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    case = Pass("plain", shape, device, dtype)
    rows = []
    for backend in candidates(case, device, dtype):
        row = attempt(lambda b=backend: timed_attention(case, b, device, repeats))
        rows.append({"sizes": shape, "backend": backend.value, **row})
        if "error" not in row:
            print(
                f"attention {shape}, {row['backend']}: forward {row['forward_tflops']:.3f}, "
                f"with backward {row['both_tflops']:.3f} TFLOP/s"
            )
    return rows


def simulator(args: argparse.Namespace, renderer: str = "cpu") -> dict[str, Any]:
    """Measure environment steps per second of small houses: RGB, depth and semantics each."""
    threads = cpu_threads() if args.device == "cuda" else 1
    step, close = stepper("small", 64, args.rows, threads, 0.01, renderer=renderer)
    got = rate(step, 1.0 if args.quick else 5.0, 1 if args.quick else 5)
    close()
    print(
        f"simulator: {got['wall']:,.0f} steps per second, three pictures of 64 x 64 each, "
        f"{args.rows} rows, {threads} threads, drawn by {renderer}"
    )
    return {**got, "threads": threads}


def shared_gpu(args: argparse.Namespace) -> dict[str, Any]:
    """Measure training in several processes on one GPU, each with simulators of its own."""
    options = ["--experiment", "houses_small", "--ranks", "1", "2", "4", "--repeats", "1"]
    script = Path(__file__).with_name("bench_train.py")
    done = subprocess.run(
        [sys.executable, script, *options, "--device", args.device],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    said, _, last = done.stdout.strip().rpartition("\n")
    print(said)
    return json.loads(last)["results"]["turns"]


def attempt(run: Callable[[], Any]) -> Any:
    """Return what is measured; an error too, as it must not take the other numbers with it."""
    try:
        return run()
    except Exception as error:  # whatever a kernel or its compiler says
        print(f"failed: {error}")
        return {"error": f"{type(error).__name__}: {error}"}


def read_parts(path: Path) -> dict[str, Any]:
    """Return the parts that have been measured."""
    return json.loads(path.read_text()) if path.exists() else {}


def parts_of(args: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Return how each part is measured."""
    device = torch.device(args.device)
    repeats = 1 if args.quick else 10
    asked = argparse.Namespace(
        size=args.size, rows=args.rows, quick=args.quick, contexts=args.contexts
    )
    parts: dict[str, Callable[[], Any]] = {
        "limits": lambda: limits(device, repeats, quick=args.quick),
        "decode": lambda: decode_rows(asked, device, repeats),
        "attention": lambda: attention(device, repeats, quick=args.quick),
        "simulator": lambda: simulator(args),
    }
    if device.type == "cuda":
        parts["simulator_on_gpu"] = lambda: simulator(args, "cuda")
        parts["shared_gpu"] = lambda: shared_gpu(args)
    return parts


def measure_parts(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Measure the parts that no earlier call has measured, while there is time for them."""
    parts = read_parts(path)
    for name, run in parts_of(args).items():
        if name in parts or seconds_left(args.limit_s) < args.part_s:
            continue
        parts[name] = attempt(run)
        write_text(path, json.dumps(parts))
    return parts


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, nargs="?", default=Path("runs/gpu_report"))
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--rows", type=int, help="default: 20, on a CPU 2")
    parser.add_argument("--steps", type=int, help="of the rollout; default: 65,536")
    parser.add_argument(
        "--cache-dtype", choices=("float32", "bfloat16"), help="default: bfloat16, on a CPU float32"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="of learning and refreshes; default: likewise"
    )
    parser.add_argument(
        "--cuda-graph", action="store_true", help="replay the transformer's step from a graph"
    )
    parser.add_argument(
        "--renderer", choices=("cpu", "cuda"), default="cpu", help="what draws the rollout's houses"
    )
    parser.add_argument("--limit-s", type=float, default=540.0, help="of one call, all in all")
    parser.add_argument("--quick", action="store_true", help="rollout of 1,024 steps, tiny parts")
    args = parser.parse_args()
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    cuda = args.device == "cuda"
    args.size, args.groups = ("small", 2) if cuda else ("tiny", 1)
    args.cache_dtype = args.cache_dtype or ("bfloat16" if cuda else "float32")
    args.precision = args.precision or ("bf16" if cuda else "fp32")
    args.rows = args.rows or (20 if cuda else 2)
    args.steps = args.steps or (4 * CHUNK if args.quick else 65_536)
    args.contexts = [4096, 65_536] if cuda else [4096]
    args.save_s, args.part_s = (SAVE_S, PART_S) if cuda else (0.0, 0.0)
    return args


def main() -> None:
    args = parse()
    path = args.directory / "parts.json"
    try:
        config = rollout_config(args)
    except ConfigError as error:
        raise SystemExit(f"gpu_report: {error}") from None
    missing = parts_of(args).keys() - read_parts(path).keys()
    finished = train(config, args.limit_s - args.save_s - len(missing) * args.part_s)
    gc.collect()  # What the trainer held on the GPU is the parts' now.
    rollout_report(config, {})  # In case that a part takes the process with it.
    parts = measure_parts(args, path)
    report = {
        "done": finished and parts.keys() >= parts_of(args).keys(),
        "machine": machine(torch.device(args.device)),
        "rollout": rollout_report(config, parts.get("limits", {})),
        **parts,
    }
    print("done" if report["done"] else "not done: the same command goes on from here")
    write_text(args.directory / "report.json", json.dumps(report, indent=1))
    options = {**vars(args), "directory": str(args.directory)}
    finish("gpu", options, torch.device(args.device), report)


if __name__ == "__main__":
    main()
