"""How fast is rendering alone, by resolution, sensors, antialiasing, house size and threads?

    python benchmarks/bench_renderer.py                  # the CPU, a few minutes
    python benchmarks/bench_renderer.py --device cuda    # a GPU; needs numba-cuda
    python benchmarks/bench_renderer.py --quick          # every part, few settings

Poses are free places in generated houses, with the headings and pitches that agents have. On the
CPU, rates are pictures per second of thread time, so per core and little disturbed by other
programs; those with several threads come by the wall clock too, which is disturbed. On a GPU they
are per second of the wall clock, the images staying on the device. The first call compiles and is
not counted. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numba
import numpy as np
from machine import cores_to_be_had, cpu_name, load
from numpy.typing import NDArray

from envs.houses.dataset import HouseDataset
from envs.houses.navigation.grid import build_grid
from envs.houses.rendering.renderer import BatchRenderer
from envs.houses.scene import Scene

ALL = ("rgb", "depth", "semantic")
RESOLUTIONS = (32, 64, 128, 256)
PITCHES = np.radians([-60.0, -30.0, 0.0, 0.0, 0.0, 30.0])
HOUSES = 16


def scenes_of(size: str, count: int = HOUSES) -> list[Scene]:
    dataset = HouseDataset("val", size)
    return [dataset.scene(house, 0) for house in range(count)]


def poses_in(scenes: list[Scene], rows: int) -> NDArray[np.float64]:
    """Return a free pose (x, y, heading, pitch) for each row; row n is in scene n % len(scenes)."""
    rng = np.random.default_rng(0)
    grids = [build_grid(scene, cell=0.1) for scene in scenes]
    poses = []
    for n in range(rows):
        grid = grids[n % len(scenes)]
        cells = np.argwhere(grid.free_YX)
        y, x = (cells[rng.integers(len(cells))] + 0.5) * grid.cell
        poses.append((x, y, rng.uniform(-math.pi, math.pi), rng.choice(PITCHES)))
    return np.array(poses)


def measure(
    draw: Callable[[], Any], pictures: int, seconds: float, clock: Callable[[], float]
) -> dict[str, float]:
    """Call `draw`, which makes `pictures`; median and spread of pictures per second."""
    for _ in range(3):
        draw()
    rates = []
    end = time.perf_counter() + seconds
    while len(rates) < 10 or time.perf_counter() < end:
        start = clock()
        calls = 0
        while calls == 0 or clock() - start < 0.05:
            draw()
            calls += 1
        rates.append(calls * pictures / (clock() - start))
    tenths = statistics.quantiles(rates, n=10)
    return {"median": round(tenths[4]), "low": round(tenths[0]), "high": round(tenths[8])}


def cpu_rate(
    scenes: list[Scene],
    args: argparse.Namespace,
    clock: Callable[[], float] = time.thread_time,
    **settings: Any,
) -> dict[str, Any]:
    """Measure the CPU's renderer with some settings."""
    poses = poses_in(scenes, args.rows)
    with BatchRenderer(args.rows, **settings) as renderer:
        for row in range(args.rows):
            renderer.set_scene(row, scenes[row % len(scenes)])
        out = renderer.render(*poses.T)
        result = measure(lambda: renderer.render(*poses.T, out=out), args.rows, args.seconds, clock)
    return {**result, "bytes_per_scene": renderer.bytes_per_scene}


def cuda_rate(scenes: list[Scene], args: argparse.Namespace, **settings: Any) -> dict[str, Any]:
    """Measure the GPU's renderer with some settings."""
    from envs.houses.rendering.cuda import CudaBatchRenderer, cuda

    poses = poses_in(scenes, args.rows)
    renderer = CudaBatchRenderer(args.rows, **settings)
    for row in range(args.rows):
        renderer.set_scene(row, scenes[row % len(scenes)])

    def draw() -> None:
        renderer.render(*poses.T)
        cuda.synchronize()

    return measure(draw, args.rows, args.seconds, time.perf_counter)


def table(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure by house size, resolution, sensors and antialiasing; print as it goes."""
    rate = cuda_rate if args.device == "cuda" else cpu_rate
    variants: list[tuple[str, dict[str, Any]]] = [("rgb+depth+semantic", {"sensors": ALL})]
    if not args.quick:
        variants += [
            ("depth+semantic", {"sensors": ALL[1:]}),
            ("rgb", {"sensors": ALL[:1]}),
            ("rgb+depth+semantic, antialias 2", {"sensors": ALL, "antialias": 2}),
        ]
    rows = []
    for size in ("small", "medium", "large"):
        scenes = scenes_of(size)
        solids = round(statistics.mean(len(scene.primitives) for scene in scenes))
        for resolution in RESOLUTIONS[1:2] if args.quick else RESOLUTIONS:
            for name, settings in variants:
                result = rate(scenes, args, width=resolution, height=resolution, **settings)
                row = {"house": size, "primitives": solids, "resolution": resolution}
                rows.append({**row, "images": name, **result})
                print(
                    f"{size:<7}{solids:>5} primitives {resolution:>4}  {name:<32}"
                    f"{result['median']:>8,} ({result['low']:,} to {result['high']:,})",
                    flush=True,
                )
    return rows


def thread_table(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure medium houses with more threads: by the wall clock, and by CPU time for the work."""
    scenes, result = scenes_of("medium"), {}
    for threads in (1, 2) if args.quick else (1, 2, 4):
        if threads > (os.cpu_count() or 1):
            break
        settings = {"width": 64, "height": 64, "sensors": ALL, "threads": threads}
        wall = cpu_rate(scenes, args, time.perf_counter, **settings)
        work = cpu_rate(scenes, args, time.process_time, **settings)
        cores = round(cores_to_be_had(threads), 2)
        result[str(threads)] = {"wall": wall, "cpu": work, "cores_to_be_had": cores}
        print(
            f"threads {threads}: {wall['median']:,} pictures per second, "
            f"{work['median']:,} per second of CPU time, {cores} cores to be had"
        )
    return result


def setting(args: argparse.Namespace) -> dict[str, Any]:
    """Describe the machine and the run."""
    device = cpu_name()
    if args.device == "cuda":
        from envs.houses.rendering.cuda import cuda

        name = cuda.get_current_device().name
        device = name.decode() if isinstance(name, bytes) else name
    return {
        "device": device,
        "cores": os.cpu_count(),
        "load": load(),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "rows": args.rows,
        "houses": HOUSES,
        "hfov_deg": 90,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rows", type=int, help="rows of a batch; 64 on the CPU, 4096 on a GPU")
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    parser.add_argument("--quick", action="store_true", help="few settings")
    args = parser.parse_args()
    args.rows = args.rows or (4096 if args.device == "cuda" else 64)
    where = setting(args)
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    result = {"setting": where, "rates": table(args)}
    if args.device == "cpu":
        result["threads"] = thread_table(args)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
