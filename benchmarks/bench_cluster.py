"""The cluster job against the local trainer, in one run: start-up, speed, and what is shipped.

The same Darkroom training runs locally, colocated and split, each for some rollouts after a first
one that is not counted; one learner and one EnvRunner, one thread each. Chunk and weights are then
sent through Ray's object store alone, with pixels of the size that is asked for.
Run: python benchmarks/bench_cluster.py [--rollouts 3] [--num-envs 64] [--pixels 64] [--quick]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from gymnasium import spaces
from timing import finish

from relic.cluster import ReLIC, ReLICConfig
from relic.cluster.remote import pack, unpack
from relic.ppo.rollout import Rollout
from relic.run.compose import compose
from relic.run.config import RunConfig
from relic.run.distributed import join_ranks
from relic.run.trainer import Trainer

CHUNK = 256
PARAMETERS = 5_800_000
"""Of the policy that the paper trains on houses, without its frozen encoder."""
REPEATS = 7


def run_config(args: argparse.Namespace, run_dir: Path, **options: Any) -> RunConfig:
    """Return the Darkroom training that all placements do."""
    rollouts = args.rollouts + 1
    return compose(
        {
            "experiment": "darkroom",
            "device": "cpu",
            "threads": 1,
            "rollout.num_envs": args.num_envs,
            "total_steps": rollouts * args.num_envs * 512,
            "validation.every_rollouts": None,
            "checkpoint.best_metric": None,
            "logging.progress": False,
            "run_dir": str(run_dir),
            **options,
        }
    )


def local(config: RunConfig) -> dict[str, float]:
    """Train without Ray and return steps per second and the parts of the time."""
    trainer = Trainer(config, join_ranks("cpu"))
    lines = []
    began = [time.perf_counter()]
    for metrics in trainer.updates(lambda: False):
        lines.append(metrics)
        began.append(time.perf_counter())
    trainer.close()
    return summarise(config, lines, began)


def on_ray(config: RunConfig) -> dict[str, float]:
    """Train as a cluster job; also say how long its actors took to start."""
    before = time.perf_counter()
    algorithm = ReLIC(config=ReLICConfig.of(config))
    built = time.perf_counter()
    lines: list[dict[str, Any]] = []
    began = [built]

    def note(metrics: dict[str, Any]) -> None:
        lines.append(metrics)
        began.append(time.perf_counter())

    algorithm.on_update = note
    while not algorithm.is_finished:
        algorithm.train()
    algorithm.stop()
    return {"build_s": built - before, **summarise(config, lines, began)}


def summarise(config: RunConfig, lines: list[dict], began: list[float]) -> dict[str, float]:
    """Return the speed without the first rollout, which compiles and allocates."""
    skip = config.updates.per_rollout
    steps = lines[-1]["env_steps"] - lines[skip - 1]["env_steps"]
    parts = {
        name: sum(line.get(f"time/{name}", 0.0) for line in lines[skip:])
        for name in ("simulate", "act", "learn", "refresh", "other")
    }
    return {"steps_per_s": steps / (began[-1] - began[skip]), **parts}


def milliseconds(call: Callable[[], Any]) -> float:
    """Return the median time of a call after a first one."""
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[1:])


def shipping(num_envs: int, pixels: int) -> dict[str, float]:
    """Send a chunk of pixels, and weights, as an EnvRunner and a learner do."""
    space = spaces.Dict({"rgb": spaces.Box(0, 255, (pixels, pixels, 3), np.uint8)})
    rollout = Rollout(num_envs, CHUNK, space, action_space=spaces.Discrete(6))
    chunk = pack(rollout.chunk_state(0, CHUNK))
    weights = pack({"weights": torch.randn(PARAMETERS)})

    def round_trip(content: Any) -> None:
        unpack(ray.get(ray.put(content)))

    return {
        "chunk_mb": chunk["observation"]["rgb"].array.nbytes / 1e6,
        "chunk_pack_ms": milliseconds(lambda: pack(rollout.chunk_state(0, CHUNK))),
        "chunk_send_ms": milliseconds(lambda: round_trip(chunk)),
        "chunk_write_ms": milliseconds(lambda: rollout.load_chunk(unpack(chunk))),
        "weights_mb": 4 * PARAMETERS / 1e6,
        "weights_send_ms": milliseconds(lambda: round_trip(weights)),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=3)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="one rollout of 16 rows, 32 pixels")
    args = parser.parse_args()
    if args.quick:
        args.rollouts, args.num_envs, args.pixels = 1, 16, 32
    results: dict[str, Any] = {"load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        results["local"] = local(run_config(args, directory / "local"))
        began = time.perf_counter()
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        results["ray_init_s"] = time.perf_counter() - began
        for placement in ("colocated", "split"):
            config = run_config(args, directory / placement, **{"cluster.placement": placement})
            cluster = replace(config.cluster, backend="ray")
            results[placement] = on_ray(replace(config, cluster=cluster))
        results["shipping"] = shipping(20, args.pixels)
        ray.shutdown()
    for name, result in results.items():
        print(f"{name}: {result}")
    finish("bench_cluster", vars(args), torch.device("cpu"), results)


if __name__ == "__main__":
    main()
