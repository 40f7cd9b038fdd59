"""All that one GPU is asked for: a rollout of 65,536 steps on houses, and what its parts reach.

    python benchmarks/gpu_report.py runs/gpu_report --limit-s 540     # again, until it says done
    python benchmarks/gpu_report.py runs/cpu_report --quick           # on a CPU, minutes

Trains experiment=houses_64k, the paper's small policy with 20 rows at 64 x 64 pixels, for one whole
rollout with all its updates, by reward alone. After `--limit-s` seconds it saves at the next update
and leaves; the next call goes on exactly there. The last, full update begins only if half of the
limit is left, so that a call can hold it. Then, once each: one decode step against the context, the
attention of a full pass, the simulator, and beside them a large copy and a large matrix product,
which are this device's limits. The report says environment steps per second including all updates,
where the time went, and the share of the matrix product's speed that acting, refreshing and
learning reach (model-FLOP use: multiplications and additions of the transformer, the passes that
checkpointing repeats not counted, encoder and heads neither).

Needs what training needs: PyTorch, numba, numpy, gymnasium, hydra-core, omegaconf, safetensors,
psutil, scipy, matplotlib, pillow, imageio and tqdm. The report is printed, and its JSON object is
the last line and in DIRECTORY/report.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_attention import Pass, candidates
from bench_attention import timed as timed_attention
from bench_policy_step import decode_rows, forward_flops
from houses_parts import rate, stepper
from timing import copy_bandwidth, finish, machine, measure

from relic.ppo.schedule import UpdateSchedule
from relic.run.checkpoint import write_atomically
from relic.run.cli import compose
from relic.run.config import RunConfig
from relic.run.distributed import join_ranks
from relic.run.metrics import read_metrics
from relic.run.trainer import Trainer

CHUNK = 256
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
            "rollout": {"num_envs": args.rows, "num_steps": args.steps, "groups": args.groups},
            "updates.per_rollout": args.steps // CHUNK,
            **refresh_every,
            "ppo.clone_steps": 0,
            "env.options.threads": max(1, (os.cpu_count() or 1) // args.groups) if cuda else 1,
            "checkpoint.best_metric": None,
            "validation": {"every_rollouts": None, "final_trials": 0},
            "logging.progress": False,
        }
    )


class Deadline:
    """Says after each update whether to save and leave."""

    def __init__(self, trainer: Trainer, limit_s: float):
        self._trainer, self._limit_s = trainer, limit_s
        self._began = self._last = time.monotonic()
        self._slowest = 0.0

    def __call__(self) -> bool:
        """Judge by the slowest update so far, and before the full one by half of the limit."""
        now = time.monotonic()
        self._slowest, self._last = max(self._slowest, now - self._last), now
        left = self._began + self._limit_s - now
        config = self._trainer.config
        chunk_steps = config.rollout.num_envs * CHUNK
        if self._trainer.env_steps + chunk_steps >= config.total_steps and left < self._limit_s / 2:
            return not self._trainer.is_finished
        return left < 2 * self._slowest


def train(config: RunConfig, limit_s: float) -> bool:
    """Train until the rollout is done or the time is up; say whether it is done."""
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
    for planned in schedule.updates[:done]:
        begin = updates.first_step(planned)
        passed = forward_flops(part, begin, planned.at_step)
        flops["learn"] += 3 * config.ppo.update_epochs * passed
        flops["act"] += forward_flops(part, planned.chunk_from, planned.at_step)
        if not planned.last and updates.refresh_memory and updates.renews_after(planned.index):
            flops["refresh"] += forward_flops(part, 0, planned.at_step)
    return {name: count * config.rollout.num_envs for name, count in flops.items()}


def rollout_report(config: RunConfig, matmul_tflops: float) -> dict[str, Any]:
    """Say of the updates so far what they took and reached, from the run's metrics."""
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
        "share_of_matmul": {p: value / matmul_tflops for p, value in reached.items()},
        "last_update_s": lines[-1].get("time/learn"),
    }
    print(
        f"rollout: {report['updates']} updates, {steps:,} steps in {wall_s:,.0f} s, "
        f"{report['env_steps_per_s']:,.0f} steps per second with all updates"
    )
    for name, seconds in times.items():
        use = f", {reached[name]:.3f} TFLOP/s" if name in reached else ""
        use += f", {report['share_of_matmul'][name]:.1%} of the product" if name in reached else ""
        print(f"  {name:9} {seconds / wall_s:4.0%} of the time{use}")
    return report


def limits(device: torch.device, repeats: int, *, quick: bool) -> dict[str, float]:
    """Measure what the device does at most: a large product, as training computes, and a copy."""
    side = 1024 if device.type == "cpu" or quick else 8192
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    took = measure(lambda: a @ b, device, repeats)
    reached = {"matmul_tflops": 2 * side**3 / took["ms"] / 1e9}
    reached["copy_gb_per_s"] = copy_bandwidth(device, repeats)
    print(", ".join(f"{name} {value:.3f}" for name, value in reached.items()))
    return reached


def attention(device: torch.device, repeats: int, *, quick: bool) -> list[dict[str, Any]]:
    """Measure the full pass of the small policy's attention, all backends that can."""
    on_gpu = device.type == "cuda" and not quick
    shape = (1, 8, 65_536, 32) if on_gpu else (1, 8, 512, 32)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    case = Pass("plain", shape, device, dtype)
    rows = [timed_attention(case, b, device, repeats) for b in candidates(case, device, dtype)]
    for row in rows:
        print(
            f"attention {shape}, {row['backend']}: forward {row['forward_tflops']:.3f}, "
            f"with backward {row['both_tflops']:.3f} TFLOP/s"
        )
    return [{"sizes": shape, **row} for row in rows]


def simulator(args: argparse.Namespace) -> dict[str, float]:
    """Measure environment steps per second of small houses: RGB, depth and semantics each."""
    threads = os.cpu_count() or 1 if args.device == "cuda" else 1
    step, close = stepper("small", 64, args.rows, threads, 0.01)
    got = rate(step, 1.0 if args.quick else 5.0, 1 if args.quick else 5)
    close()
    print(
        f"simulator: {got['wall']:,.0f} steps per second, three pictures of 64 x 64 each, "
        f"{args.rows} rows, {threads} threads"
    )
    return {**got, "threads": threads}


def parts_report(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the parts, or return what an earlier call has measured."""
    path = args.directory / "parts.json"
    if path.exists():
        return json.loads(path.read_text())
    device = torch.device(args.device)
    repeats = 1 if args.quick else 10
    asked = argparse.Namespace(
        size=args.size, rows=args.rows, quick=args.quick, contexts=args.contexts
    )
    measured: dict[str, Callable[[], Any]] = {
        "limits": lambda: limits(device, repeats, quick=args.quick),
        "decode": lambda: decode_rows(asked, device, repeats),
        "attention": lambda: attention(device, repeats, quick=args.quick),
        "simulator": lambda: simulator(args),
    }
    parts = {"machine": machine(device)} | {name: run() for name, run in measured.items()}
    write_atomically(path, json.dumps(parts))
    return parts


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, nargs="?", default=Path("runs/gpu_report"))
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--rows", type=int, help="default: 20, on a CPU 2")
    parser.add_argument("--steps", type=int, help="of the rollout; default: 65,536")
    parser.add_argument("--limit-s", type=float, default=540.0, help="of one call's training")
    parser.add_argument("--quick", action="store_true", help="rollout of 1,024 steps, tiny parts")
    args = parser.parse_args()
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    cuda = args.device == "cuda"
    args.size, args.groups = ("small", 2) if cuda else ("tiny", 1)
    args.rows = args.rows or (20 if cuda else 2)
    args.steps = args.steps or (4 * CHUNK if args.quick else 65_536)
    args.contexts = [4096, 65_536] if cuda else [4096]
    return args


def main() -> None:
    args = parse()
    config = rollout_config(args)
    done = train(config, args.limit_s)
    parts = parts_report(args)
    report = {
        "done": done,
        "rollout": rollout_report(config, parts["limits"]["matmul_tflops"]),
        **parts,
    }
    print("done" if done else "not done: the same command goes on from here")
    write_atomically(args.directory / "report.json", json.dumps(report, indent=1))
    options = {**vars(args), "directory": str(args.directory)}
    finish("gpu", options, torch.device(args.device), report)


if __name__ == "__main__":
    main()
