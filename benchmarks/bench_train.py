"""How fast does training go as a whole, and what is done for each step of a rollout?

    python benchmarks/bench_train.py                      # everything, minutes
    python benchmarks/bench_train.py --quick              # every part, smallest settings
    python benchmarks/bench_train.py --parts steps

`run` trains an experiment and says where the time goes. `steps` compares advantages and the
shuffle's order at 20 rows x 65,536 steps with loops over the steps. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from machine import OtherLoad
from timing import finish, measure
from torch import Tensor

from relic.ppo.loop import run_rollout
from relic.ppo.returns import gae
from relic.ppo.rollout import shuffle_episodes, time_order
from relic.run.components import build_components
from relic.run.compose import compose
from relic.run.distributed import join_ranks
from relic.run.trainer import prepare_process

ROWS, STEPS, EPISODE = 20, 65_536, 500
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


PARTS = {"run": run_table, "steps": steps_table}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--experiment", default="darkroom")
    parser.add_argument("--rollouts", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="smallest settings of every part")
    args = parser.parse_args()
    args.overrides = {"threads": args.threads}
    if args.quick:
        args.rollouts, args.repeats = 1, 1
        args.overrides |= {"rollout.num_envs": 16, "rollout.num_steps": 128}
    torch.set_num_threads(args.threads)
    results = {name: PARTS[name](args) for name in args.parts}
    finish("train", vars(args), torch.device(args.device), results)


if __name__ == "__main__":
    main()
