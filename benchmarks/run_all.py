"""Run every benchmark that this machine can, one after the other: `make bench`.

    python benchmarks/run_all.py                       # everything; --quick takes minutes
    python benchmarks/run_all.py --only update memory  # some, by name
    python benchmarks/run_all.py --habitat-python /path/to/python/with/habitat_sim

Each benchmark has a process of its own, prints its tables as it goes, and ends with one JSON
object, which becomes benchmarks/results/<name>.json: options, machine and results. What cannot run
here is skipped with the reason; one that fails is named at the end, and the others go on. The exit
status is 1 if any failed.

Not among them: partial_updates.py, baselines.py and memories.py, which train for hours, recall.py
and sightings.py, which study one agent, and cluster_scale.py, a calculation from measured numbers.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One script, and how it is called on a CPU."""

    script: str
    options: tuple[str, ...] = ()
    """Of a full run; `--quick` replaces them."""
    needs: tuple[str, ...] = ()
    """Packages of the extra `bench` or others, without which it is skipped."""
    quick: tuple[str, ...] = ("--quick",)


BENCHMARKS: dict[str, Benchmark] = {
    "policy_step": Benchmark("bench_policy_step.py", ("--threads", "1", "--repeats", "5")),
    "encoder": Benchmark("bench_encoder.py"),
    "attention": Benchmark("bench_attention.py", ("--threads", "1", "--repeats", "3")),
    "update": Benchmark("bench_update.py"),
    "steps": Benchmark(
        "bench_train.py", ("--parts", "steps"), quick=("--parts", "steps", "--quick")
    ),
    "memory": Benchmark("bench_memory.py", ("--contexts", "4096", "16384", "65536", "--rows", "1")),
    "library": Benchmark("bench_library.py", needs=("sb3_contrib",)),
    "houses": Benchmark(
        "bench_houses.py",
        ("--quick", "--parts", "speed", "threads", "others"),
        quick=("--quick", "--parts", "speed", "--resolutions", "64"),
    ),
    "renderer": Benchmark("bench_renderer.py", ("--quick",)),
    "cluster": Benchmark("bench_cluster.py", needs=("ray",)),
    "habitat": Benchmark("bench_habitat.py"),
    "gpu": Benchmark("gpu_report.py", ("--device", "cuda"), quick=("--device", "cuda", "--quick")),
}


def has_cuda() -> bool:
    """Ask in a process of its own, which leaves the GPU alone here."""
    ask = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", ask], capture_output=True).returncode == 0


def reason_to_skip(name: str, habitat_python: str | None) -> str | None:
    """Say why a benchmark cannot run here; None if it can."""
    missing = [n for n in BENCHMARKS[name].needs if importlib.util.find_spec(n) is None]
    if missing:
        return f"{missing[0]} is not installed; make bench installs it."
    if name == "habitat" and habitat_python is None:
        return "no interpreter with habitat-sim was named; give one as --habitat-python."
    if name == "gpu" and not has_cuda():
        return "this machine has no CUDA device."
    return None


def command(name: str, *, quick: bool, habitat_python: str | None) -> list[str]:
    """Return the call of a benchmark."""
    benchmark = BENCHMARKS[name]
    options = benchmark.quick if quick else benchmark.options
    extra = ["--python", habitat_python] if name == "habitat" and habitat_python else []
    return [sys.executable, str(HERE / benchmark.script), *options, *extra]


def run(call: Sequence[str]) -> tuple[int, dict[str, Any] | None]:
    """Run a benchmark, show what it prints, and return its status and the object it ends with."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    last = ""
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("{"):
                print(line, end="", flush=True)
            last = line
    try:
        said = json.loads(last)
    except json.JSONDecodeError:
        said = None
    return process.returncode, said if isinstance(said, dict) else None


def measure(name: str, args: argparse.Namespace) -> bool:
    """Run one benchmark and write its result; say whether it went well."""
    call = command(name, quick=args.quick, habitat_python=args.habitat_python)
    shown = " ".join([Path(call[1]).name, *call[2:]])
    print(f"\n=== {name}: {shown}", flush=True)
    began = time.perf_counter()
    status, said = run(call)
    if status or said is None:
        print(f"{name}: failed with status {status}.", file=sys.stderr)
        return False
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"{name}.json"
    seconds = round(time.perf_counter() - began, 1)
    path.write_text(json.dumps({"command": shown, "seconds": seconds, **said}, indent=1) + "\n")
    print(f"{name}: {seconds:,.0f} s, {path}")
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=tuple(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="smallest settings of every one")
    parser.add_argument("--habitat-python", help="interpreter that has habitat-sim")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    failed = []
    for name in args.only:
        if reason := reason_to_skip(name, args.habitat_python):
            print(f"\n=== {name}: skipped, {reason}")
        elif not measure(name, args):
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
