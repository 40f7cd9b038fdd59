"""The command line of the doctor."""

from __future__ import annotations

import argparse
import difflib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from relic.console import started_as
from relic.doctor.check import Finding, World
from relic.doctor.habitat import check_data, check_egl, check_simulator
from relic.doctor.machine import (
    check_disk,
    check_kernels,
    check_packages,
    check_python,
    check_ray,
    check_shared_memory,
    check_wandb,
)
from relic.doctor.torch_checks import check_torch
from relic.stops import guarded

CHECKS: tuple[tuple[Callable[[World], list[Finding]], tuple[str, ...]], ...] = (
    (check_python, ("python",)),
    (check_packages, ("packages",)),
    (check_shared_memory, ("shared memory",)),
    (check_disk, ("disk",)),
    (check_kernels, ("kernels",)),
    (check_torch, ("torch", "cuda", "attention", "flash-attn")),
    (check_egl, ("egl",)),
    (check_simulator, ("simulator",)),
    (check_data, ("datasets",)),
    (check_ray, ("ray",)),
    (check_wandb, ("wandb",)),
)
"""Each check, and the parts that it speaks of."""
PARTS = tuple(part for _, parts in CHECKS for part in parts)
ALWAYS = ("python", "packages", "disk", "torch", "attention")
"""Parts that every run needs."""
SIMULATOR = ("simulator", "egl")
"""Parts that a run with an interpreter for the simulator needs."""


def examine(world: World) -> Iterator[Finding]:
    """Run all checks at once and yield what they find, in order, as soon as it is known."""
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        for answers in [pool.submit(check, world) for check, _ in CHECKS]:
            yield from answers.result()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings; return 1 if a required part is broken."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    options = _parse(arguments)
    required = {*ALWAYS, *options.require, *(SIMULATOR if options.habitat_python else ())}
    world = World(
        habitat_python=options.habitat_python,
        run_dir=options.run_dir,
        data=options.folder,
        environment=dict(os.environ),
    )
    findings = []
    for finding in examine(world):
        findings.append(finding)
        if not options.json:
            print(_line(finding, finding.part in required), flush=True)
    found = {f.part for f in findings}
    failed = [f.part for f in findings if f.part in required and not f.works]
    failed += [part for part in PARTS if part in required and part not in found]
    if options.json:
        print(json.dumps({"sound": not failed, "failed": failed, "parts": _plain(findings)}))
    elif failed:
        print(f"\nBroken, missing or without an answer, but required: {', '.join(failed)}.")
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=started_as("python -m relic.doctor"),
        description="Say what works on this machine, and what repairs the rest. "
        "Exit status 1 if a required part is broken.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument(
        "--habitat-python", metavar="PYTHON", help="interpreter of habitat-sim; makes it required"
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="holds `data`")
    parser.add_argument("--run-dir", type=Path, default=Path("runs"), help="where runs go")
    parser.add_argument(
        "--require",
        type=_part,
        nargs="+",
        default=(),
        metavar="PART",
        help=f"parts that must work too, of: {', '.join(PARTS)}",
    )
    return parser.parse_args(arguments)


def _part(name: str) -> str:
    if name in PARTS:
        return name
    close = difflib.get_close_matches(name, PARTS, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Choose of: {', '.join(PARTS)}."
    raise argparse.ArgumentTypeError(f"unknown part {name!r}. {hint}")


def _line(finding: Finding, required: bool) -> str:
    mark = finding.state.value
    if required and not finding.works:
        mark = mark.upper()
    line = f"{mark:<9}{finding.part:<15}{finding.found}"
    return f"{line}\n{'':<24}repair: {finding.repair}" if finding.repair else line


def _plain(findings: Sequence[Finding]) -> list[dict[str, str | None]]:
    return [
        {"part": f.part, "state": f.state.value, "found": f.found, "repair": f.repair}
        for f in findings
    ]
