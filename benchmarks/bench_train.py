"""How fast does training go as a whole, and what is done for each step of a rollout?

    python benchmarks/bench_train.py                      # everything, minutes
    python benchmarks/bench_train.py --quick              # every part, smallest settings
    python benchmarks/bench_train.py --parts steps
    python benchmarks/bench_train.py --ranks 1 2 --experiment houses_small
    python benchmarks/bench_train.py --ranks 2 --against ../older --experiment houses_small

`run` trains an experiment and says where the time goes. `steps` compares advantages and the
shuffle's order at 20 rows x 65,536 steps with loops over the steps. With `--ranks`, `train.py`
itself is started with these numbers of processes, in turns, and in turns with another checkout of
the project where `--against` names one; learning is included, the start and the first rollout are
not. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import OtherLoad, cpu_time
from timing import finish, measure
from torch import Tensor

from relic.arguments import split
from relic.cores import cores
from relic.files import PROJECT
from relic.ppo.loop import run_rollout
from relic.ppo.returns import gae
from relic.ppo.rollout import shuffle_episodes, time_order
from relic.run.components import build_components
from relic.run.compose import compose
from relic.run.distributed import join_ranks
from relic.run.metrics import read_metrics
from relic.run.trainer import prepare_process

ROWS, STEPS, EPISODE = 20, 65_536, 500
QUIET = (
    "validation.every_rollouts=null",
    "validation.final_trials=0",
    "checkpoint.best_metric=null",
    "checkpoint.interval_s=1e6",
    "logging.progress=false",
)
"""What a run that is only timed leaves out."""
CPU = torch.device("cpu")


def run_table(args: argparse.Namespace) -> dict[str, Any]:
    """Train an experiment for a few rollouts, after one that compiles and warms up."""
    config = compose({"experiment": args.experiment, **args.overrides})
    prepare_process(config)
    parts = build_components(config, join_ranks(args.device))
    collector, learner = parts.collector, parts.learner
    list(run_rollout(collector, learner, learner.schedule))
    times: dict[str, float] = defaultdict(float)
    began, cpu_began = time.perf_counter(), time.process_time()
    with OtherLoad() as others:
        for _ in range(args.rollouts):
            for report in run_rollout(collector, learner, learner.schedule):
                for name, seconds in report.times.items():
                    times[name] += seconds
    took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    parts.close()
    times["other"] = took - sum(times.values())
    steps = args.rollouts * config.steps_per_rollout
    print(f"run: {args.experiment}, {steps:,} steps, others used {others.cores:.1f} cores")
    print(f"{steps / took:,.0f} steps per second, {steps / cpu:,.0f} per second of CPU time")
    for name, seconds in sorted(times.items(), key=lambda item: -item[1]):
        alone = steps / max(seconds / took * cpu, 1e-9)
        print(f"{name:12} {seconds / took:4.0%} of the time, {alone:10,.0f} per CPU second alone")
    shares = {name: seconds / took for name, seconds in times.items()}
    return {
        "steps": steps,
        "sps": steps / took,
        "per_cpu_second": steps / cpu,
        "shares": shares,
        "other_cores": others.cores,
    }


def turns_table(args: argparse.Namespace) -> dict[str, Any]:
    """Train an experiment with several numbers of ranks, and by other code, in turns."""
    cases = {f"ranks={count}": (PROJECT, [f"ranks={count}"]) for count in args.ranks}
    if args.against is not None:
        cases = {"against": (args.against.resolve(), []), **cases}
    speeds: dict[str, list[Speed]] = {name: [] for name in cases}
    for turn in range(args.repeats):
        for name, (project, keys) in cases.items():
            speed, others = trained_speed(project, keys, args)
            speeds[name].append(speed)
            print(f"turn {turn} {name:12} {speed}; others used {others:.1f} cores", flush=True)
    medians = {
        name: Speed(*map(statistics.median, zip(*turns, strict=True)))
        for name, turns in speeds.items()
    }
    first = next(iter(medians.values()))
    print(f"\nturns: {args.experiment}, {cores()} cores, medians of {args.repeats}")
    for name, median in medians.items():
        times = (
            f"{median.sps / first.sps:.2f}x, {median.per_cpu_second / first.per_cpu_second:.2f}x"
        )
        print(f"{name:12} {median}: {times}")
    return {name: [speed._asdict() for speed in turns] for name, turns in speeds.items()}


class Speed(NamedTuple):
    """Environment steps of a training run, learning included."""

    sps: float
    per_cpu_second: float
    """By all its processes, waiting for each other not counted."""

    def __str__(self) -> str:
        """Say both."""
        return f"{self.sps:,.0f} steps per second, {self.per_cpu_second:,.0f} per CPU second"


def trained_speed(
    project: Path, keys: Sequence[str], args: argparse.Namespace
) -> tuple[Speed, float]:
    """Train with a checkout's `train.py`; measure from the end of the first rollout on.

    Returns:
        The speed, and how many cores other programs used meanwhile.
    """
    config = compose({"experiment": args.experiment, **args.overrides})
    first, last = (n * config.steps_per_rollout for n in (1, 1 + args.rollouts))
    with tempfile.TemporaryDirectory() as name, (Path(name) / "said").open("w+") as said:
        metrics = Path(name) / "run" / "metrics.jsonl"
        wanted = {"experiment": args.experiment, **args.overrides}
        wanted |= {"total_steps": last, "run_dir": metrics.parent}
        options = [f"{key}={value}" for key, value in wanted.items()]
        process = subprocess.Popen(
            [sys.executable, "train.py", *options, *keys, *QUIET],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(project)},
            stdout=said,
            stderr=said,
        )
        cpu: dict[int, float] = {}
        others = OtherLoad()
        while len(cpu) < 2:
            ended = process.poll()
            steps = read_metrics(metrics)[-1:]
            for mark in (first, last):
                if mark not in cpu and steps and steps[0]["env_steps"] >= mark:
                    cpu[mark] = cpu_time()
                    others.begin() if mark == first else others.end()
            if ended:
                said.seek(0)
                raise RuntimeError(f"train.py: must train, but it ended with:\n{said.read()}")
            time.sleep(0.02)
        process.wait()
        wall = {line["env_steps"]: line["wall_s"] for line in read_metrics(metrics)}
    steps = last - first
    speed = Speed(steps / (wall[last] - wall[first]), steps / (cpu[last] - cpu[first]))
    return speed, others.cores


def gae_by_loop(reward_NT: Tensor, value_NT: Tensor, cut_NT: Tensor, bootstrap_N: Tensor) -> Tensor:
    """Return the advantages of `gae` with gamma 0.99 and lambda 0.95, step by step."""
    advantage_NT = torch.zeros_like(reward_NT)
    carried, following = torch.zeros_like(bootstrap_N), bootstrap_N
    for t in range(reward_NT.shape[1] - 1, -1, -1):
        goes_on = 1.0 - cut_NT[:, t].float()
        delta = reward_NT[:, t] + 0.99 * following * goes_on - value_NT[:, t]
        carried = delta + 0.99 * 0.95 * goes_on * carried
        advantage_NT[:, t], following = carried, value_NT[:, t]
    return advantage_NT


def shuffle_by_loop(starts_NT: np.ndarray) -> np.ndarray:
    """Return a context order with completed episodes permuted, step by step."""
    rng = np.random.default_rng(0)
    orders = []
    for starts_T in starts_NT.tolist():
        episodes: list[list[int]] = []
        for t, start in enumerate(starts_T):
            if start or not episodes:
                episodes.append([])
            episodes[-1].append(t)
        picks = [*rng.permutation(len(episodes) - 1), len(episodes) - 1]
        orders.append([t for pick in picks for t in episodes[pick]])
    return np.array(orders)


def steps_table(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare what is done for each step of a rollout with loops over the steps."""
    steps = 2048 if args.quick else STEPS
    reward, value = torch.randn(2, ROWS, steps)
    starts_NT = np.tile(np.arange(steps) % EPISODE == 0, (ROWS, 1))
    cut, bootstrap = torch.from_numpy(np.roll(starts_NT, -1, axis=1)), torch.randn(ROWS)
    final, order, rows = torch.zeros(ROWS, steps), time_order(ROWS, steps), np.arange(ROWS)
    running_N = np.zeros(ROWS, bool)

    def advantages() -> Tensor:
        return gae(
            reward, value, cut, final_value_NT=final, bootstrap_N=bootstrap,
            gamma=0.99, gae_lambda=0.95,
        )[0]  # fmt: skip

    def shuffled() -> np.ndarray:
        shuffle_episodes(order, starts_NT, running_N, seed=0, global_row_N=rows, draw=0)
        return order

    expected = gae_by_loop(reward, value, cut, bootstrap)
    torch.testing.assert_close(advantages(), expected, rtol=1e-4, atol=1e-4)
    assert (np.sort(shuffled(), axis=1) == np.sort(shuffle_by_loop(starts_NT), axis=1)).all()
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "advantages": (advantages, lambda: gae_by_loop(reward, value, cut, bootstrap)),
        "shuffle": (shuffled, lambda: shuffle_by_loop(starts_NT)),
    }
    print(f"\nsteps: {ROWS} x {steps:,}, episodes of {EPISODE}")
    results = []
    for name, (ours, loop) in pairs.items():
        took, slow = measure(ours, CPU, args.repeats), measure(loop, CPU, 1)
        ratio = slow["ms"] / took["ms"]
        print(
            f"{name:12} {took['ms']:9.2f} ms ({took['min_ms']:.2f} - {took['max_ms']:.2f}), "
            f"loop {slow['ms']:10.1f} ms, {ratio:7.0f}x"
        )
        results.append({"what": name, **took, "loop_ms": slow["ms"], "ratio": ratio})
    return results


PARTS = {"run": run_table, "steps": steps_table, "turns": turns_table}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--ranks", nargs="+", type=int, help="numbers of processes that take turns")
    parser.add_argument("--against", type=Path, help="another checkout that takes turns with them")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--experiment", default="darkroom")
    parser.add_argument("--keys", nargs="+", default=[], help="further key=value of the experiment")
    parser.add_argument("--rollouts", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="smallest settings of every part")
    args = parser.parse_args()
    args.overrides = {"threads": args.threads, "device": args.device}
    args.overrides |= dict(map(split, args.keys))
    if args.quick:
        args.rollouts, args.repeats = 1, 1
        args.overrides |= {"rollout.num_envs": 16, "rollout.num_steps": 128}
    torch.set_num_threads(args.threads)
    args.ranks = args.ranks or sorted({1, cores()})
    parts = args.parts or (["turns"] if "--ranks" in sys.argv else ["run", "steps"])
    results = {name: PARTS[name](args) for name in parts}
    finish("train", {k: str(v) for k, v in vars(args).items()}, torch.device(args.device), results)


if __name__ == "__main__":
    main()
