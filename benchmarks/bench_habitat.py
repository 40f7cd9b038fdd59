"""How fast is habitat-sim in its workers, beside the embedded simulator in the same houses?

    python benchmarks/bench_habitat.py --python /path/to/python/with/habitat_sim [--quick]

`speed`: the same generated houses, exported for habitat-sim, the same sensors and resolutions,
agents that move at random and stop once in a hundred steps, one row each; the whole path counts:
actions in, observations out. Rates are env steps per second of CPU time of this process and its
worker, so per core; the clock on the wall is beside them, as others may share the machine.
`expert`: how often, and how directly, the expert finds its goals in ten exported houses with two
arrangements each, an equal number of episodes in each. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import cpu_name, cpu_time, load
from timing import finish

from envs.core.vector import TrialVectorEnv
from envs.habitat.env import HabitatVectorEnv
from envs.habitat.start import HabitatStartError
from envs.houses.dataset import HouseDataset
from envs.houses.env import HousesVectorEnv
from envs.houses.export.scene_dataset import export_houses

SENSORS = (("rgb",), ("rgb", "depth"), ("rgb", "depth", "semantic"))
SEEDS = {"small": [1, 4], "medium": [1, 4]}


def rates(env: TrialVectorEnv, steps: int, repeats: int) -> dict[str, float]:
    """Return env steps per second of CPU and of the clock, the medians of some repeats."""
    rng = np.random.default_rng(0)
    per_core, per_second = [], []
    for _ in range(repeats):
        actions = rng.choice(6, (steps, env.num_envs), p=[0.01, 0.49, 0.2, 0.2, 0.05, 0.05])
        cpu, wall = cpu_time(), time.perf_counter()
        for action in actions:
            env.step(action)
        per_core.append(steps * env.num_envs / (cpu_time() - cpu))
        per_second.append(steps * env.num_envs / (time.perf_counter() - wall))
    return {
        "per_core": statistics.median(per_core),
        "worst": min(per_core),
        "best": max(per_core),
        "wall": statistics.median(per_second),
    }


def measure(make: Callable[[], TrialVectorEnv], args: argparse.Namespace) -> dict[str, float]:
    """Build an environment, warm it up and measure it."""
    env = make()
    env.reset(options={"trial": np.zeros(env.num_envs, np.int64)})
    rates(env, args.steps // 4, 1)
    result = rates(env, args.steps, args.repeats)
    env.close()
    return result


def row_of(sensors: str, side: int, name: str, got: dict[str, float]) -> str:
    """Return a line of the table."""
    spread = f"{got['worst']:,.0f} - {got['best']:,.0f}"
    return (
        f"{sensors:>22} {side:>5} {name:>10}  {got['per_core']:>12,.0f}  {spread:>15}  "
        f"{got['wall']:>7,.0f}"
    )


def compare(size: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure both simulators in one size of houses."""
    dataset = HouseDataset("val", size, houses=SEEDS[size])
    config = export_houses([dataset.house(n) for n in range(dataset.num_houses)], folder / size)
    found: dict[str, Any] = {}
    print(f"\n{size} houses, load {load()}")
    print(
        f"{'sensors':>22} {'side':>5} {'simulator':>10}  {'steps/s/core':>12}  "
        f"{'worst - best':>15}  {'wall':>7}"
    )
    for side in args.sides:
        for sensors in SENSORS:
            options = {"sensors": list(sensors), "resolution": side}
            habitat = {**habitat_options(config, folder, args), **options}
            houses = {"split": "val", "size": size, "houses": SEEDS[size], **options}
            for name, make in (
                ("habitat", lambda habitat=habitat: HabitatVectorEnv(1, **habitat)),
                ("embedded", lambda houses=houses: HousesVectorEnv(1, **houses)),
            ):
                got = measure(make, args)
                found[f"{name} {size} {'+'.join(sensors)} {side}"] = got
                print(row_of("+".join(sensors), side, name, got))
    return found


def expert(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Let the expert play episodes of every arrangement of ten small houses."""
    dataset = HouseDataset("val", "small")
    houses = [dataset.house(n) for n in range(10)]
    config = export_houses(houses, folder / "expert", arrangements=(0, 1))
    env = HabitatVectorEnv(
        2, resolution=64, task={"max_episode_steps": 100}, **habitat_options(config, folder, args)
    )
    records: list[dict[str, float]] = []
    for first in range(0, env.num_trials, 2):
        trials = np.arange(first, first + 2)
        env.reset(options={"new_trial": np.ones(2, bool), "trial": trials})
        wanted = np.full(2, args.episodes // env.num_trials)
        while wanted.any():
            infos = env.step(env.expert_actions())[4]
            for row in np.flatnonzero(
                infos.get("_episode_record", np.zeros(2, bool)) & (wanted > 0)
            ):
                wanted[row] -= 1
                records.append({k: float(v[row]) for k, v in infos["episode_record"].items()})
    env.close()
    means = {k: statistics.fmean(r[k] for r in records) for k in ("success", "spl", "length")}
    found = {"episodes": len(records), **means, "crashes": sum(r["crashed"] for r in records)}
    print("\nexpert: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
    return found


def habitat_options(config: Path, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of an environment over exported houses."""
    return {
        "scene_dataset": config,
        "episodes": config.parent / "episodes.json.gz",
        "python": args.python,
        "navmesh": "compute",
        "image_lighting": False,
        "cache": folder / "cache",
        "viewpoint_spacing": 0.3,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--python", required=True, help="interpreter that has habitat-sim")
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--sizes", nargs="+", choices=tuple(SEEDS), default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=("speed", "expert"), default=["speed"])
    parser.add_argument("--episodes", type=int, default=200, help="of the expert")
    parser.add_argument("--quick", action="store_true", help="small houses, 64 pixels, one repeat")
    args = parser.parse_args(arguments)
    if args.quick:
        args.sides, args.sizes, args.repeats = [64], ["small"], 1
    print(f"{cpu_name()}, Python {platform.python_version()}, one row, one core each")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for size in args.sizes if "speed" in args.parts else ():
                found |= compare(size, Path(folder), args)
            if "expert" in args.parts:
                found["expert"] = expert(Path(folder), args)
        except HabitatStartError as error:
            parser.exit(1, f"{error}\n")
    finish("habitat", vars(args), torch.device("cpu"), found)


if __name__ == "__main__":
    main()
