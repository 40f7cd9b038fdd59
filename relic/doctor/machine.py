"""This machine without PyTorch and simulators: Python, packages, memory, disk, caches, services."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from relic.console import OLDEST
from relic.doctor.check import Finding, NoAnswer, State, World, ask
from relic.extras import DISTRIBUTION

_GIB = 2**30
ENOUGH_SHARED = 1 * _GIB
"""Docker gives 64 MiB, in which neither Ray nor many rows of pictures fit."""
ENOUGH_DISK = 5 * _GIB
"""A few checkpoints of long rollouts of pictures."""
_PROBE = 2**20
"""Bytes that are written to see whether they can be."""


def why_not_writable(directory: Path) -> str | None:
    """Write a mebibyte into a directory and say why that failed; None: it did not."""
    try:
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return None


def check_shared_memory(world: World) -> list[Finding]:
    """Look at where pictures pass between processes."""
    name = str(world.shared)
    in_container = Path("/.dockerenv").exists()
    resize = f"sudo mount -o remount,size=2G {shlex.quote(name)}"
    repair = "docker run --shm-size=2g ..." if in_container else resize
    if not world.shared.is_dir():
        found = f"{name} is not there; files elsewhere take its place"
        return [Finding("shared memory", State.ABSENT, found, repair)]
    problem = why_not_writable(world.shared)
    usage = shutil.disk_usage(world.shared)
    found = f"{name}: {_size(usage.free)} of {_size(usage.total)} free"
    if problem:
        return [Finding("shared memory", State.BROKEN, f"{found}; {problem}", repair)]
    if usage.free < ENOUGH_SHARED:
        found = f"{found}; Ray and large pictures need {_size(ENOUGH_SHARED)}"
        return [Finding("shared memory", State.LIMITED, found, repair)]
    return [Finding("shared memory", State.OK, found)]


def check_disk(world: World) -> list[Finding]:
    """Look at where runs are written."""
    target = world.run_dir.absolute()
    usage = shutil.disk_usage(_nearest(target))
    found = f"{target}: {_size(usage.free)} free"
    repair = "train with run_dir=ELSEWHERE/NAME"
    problem = _why_no_files(target)
    if problem:
        return [Finding("disk", State.BROKEN, f"{found}; cannot write: {problem}", repair)]
    if usage.free < ENOUGH_DISK:
        found = f"{found}; checkpoints of long rollouts need {_size(ENOUGH_DISK)}"
        return [Finding("disk", State.LIMITED, found, repair)]
    return [Finding("disk", State.OK, found)]


def check_kernels(world: World) -> list[Finding]:
    """Look at where compiled kernels are kept, and whether they fit the source.

    Numba does not notice that a kernel which another file inlines has changed.
    """
    sources = list(_kernel_sources(world.source))
    cache = world.environment.get("NUMBA_CACHE_DIR")
    places = {Path(cache)} if cache else {p.parent / "__pycache__" for p in sources}
    for place in sorted(places):
        problem = _why_no_files(place)
        if problem:
            found = f"{place}: {problem}; every start compiles again"
            return [Finding("kernels", State.LIMITED, found, "export NUMBA_CACHE_DIR=~/.numba")]
    kept = [p for place in places if place.is_dir() for p in place.rglob("*.nbi")]
    if not kept:
        return [Finding("kernels", State.OK, "none compiled yet; the first start takes longer")]
    oldest = min(p.stat().st_mtime for p in kept)
    newer = sorted(str(p.relative_to(world.source)) for p in sources if p.stat().st_mtime > oldest)
    found = f"{len(kept)} compiled"
    if not newer:
        return [Finding("kernels", State.OK, found)]
    folders = shlex.join(sorted(map(str, places)))
    return [
        Finding(
            "kernels",
            State.LIMITED,
            f"{found}, some before {newer[0]} changed; they may hold old code",
            f"find {folders} -name '*.nb[ci]' -delete",
        )
    ]


def _kernel_sources(root: Path) -> Iterable[Path]:
    """Yield the project's files that numba compiles."""
    for package in ("envs", "relic"):
        for path in (root / package).rglob("*.py"):
            if re.search(r"^from numba import .*njit", path.read_text(), re.M):
                yield path


def _nearest(place: Path) -> Path:
    """Return a place, or the first above it that is there."""
    return next(p for p in [place, *place.parents] if p.exists())


def _why_no_files(place: Path) -> str | None:
    """Say why a folder, which need not be there yet, cannot take files."""
    directory = _nearest(place)
    return why_not_writable(directory) if directory.is_dir() else f"{directory} is a file"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.1f} GiB" if num_bytes >= _GIB else f"{num_bytes / 2**20:.0f} MiB"


def check_python(world: World) -> list[Finding]:
    """Look at the interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    found = f"{version}, {world.python}"
    if sys.version_info >= OLDEST:
        return [Finding("python", State.OK, found)]
    oldest = ".".join(map(str, OLDEST))
    repair = f"make setup PYTHON=python{oldest}"
    return [Finding("python", State.BROKEN, f"{found}; needs {oldest} or newer", repair)]


def check_packages(world: World) -> list[Finding]:
    """Compare what is installed with what the project asks for."""
    try:
        asked = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        found = f"the project is not installed for {world.python}"
        return [Finding("packages", State.BROKEN, found, world.pip_project())]
    core = [line for line in asked if "extra ==" not in line]
    wrong = [complaint for line in core if (complaint := check_requirement(line))]
    if wrong:
        return [Finding("packages", State.BROKEN, "; ".join(wrong), world.pip_project())]
    return [Finding("packages", State.OK, f"all {len(core)} of the core")]


def check_requirement(line: str) -> str | None:
    """Say what is wrong with a requirement such as `numpy>=2`; None: it is met."""
    match = re.match(r"[\w.-]+", line)
    assert match, line
    name = match[0]
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return None  # a package of the core brings it, and that one is missing then
    asked = Requirement(line).specifier
    return None if asked.contains(version, prereleases=True) else f"{name} {version}, not {asked}"


def check_extra(extra: str, name: str) -> str | None:
    """Say what is wrong with a package that an extra asks for; None: nothing, as far as is known.

    Where the project is not installed, nothing is: `check_packages` says so.
    """
    try:
        asked = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None
    lines = [line for line in asked if re.match(rf"{name}\b", line) and f'"{extra}"' in line]
    return check_requirement(lines[0]) if lines else None


_CONNECT_S = 3.0
_WANDB = "https://api.wandb.ai"


def check_ray(world: World) -> list[Finding]:
    """Import Ray, and knock at the cluster of RAY_ADDRESS."""
    install = world.pip_project("cluster")
    if importlib.util.find_spec("ray") is None:
        found = "not installed; only cluster=ray needs it"
        return [Finding("ray", State.ABSENT, found, install)]
    wrong = check_extra("cluster", "ray")
    if wrong:
        return [Finding("ray", State.BROKEN, wrong, install)]
    script = "import json, ray; print(json.dumps({'version': ray.__version__}))"
    try:
        answer = ask(world.python, ["-c", script], timeout=60.0, environment=world.environment)
    except NoAnswer as error:
        return [error.finding("ray", install, found="does not start: {}")]
    return [_knock(answer["version"], world.environment.get("RAY_ADDRESS", ""))]


def _knock(version: str, address: str) -> Finding:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return Finding("ray", State.OK, f"{version}; RAY_ADDRESS names no cluster")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        found = f"{version}, but nothing answers at RAY_ADDRESS={address}: {error}"
        return Finding("ray", State.BROKEN, found, f"ray start --head --port={port}  # on {host}")
    return Finding("ray", State.OK, f"{version}; {address} answers")


def check_wandb(world: World) -> list[Finding]:
    """Ask the server of Weights & Biases for any answer."""
    if importlib.util.find_spec("wandb") is None:
        found = "not installed; only logging.wandb needs it"
        return [Finding("wandb", State.ABSENT, found, world.pip_project("logging"))]
    server = world.environment.get("WANDB_BASE_URL", _WANDB)
    try:
        urllib.request.urlopen(server, timeout=_CONNECT_S).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        found = f"installed, but {server} does not answer: {reason}"
        repair = "train with logging.wandb=offline  # wandb sync sends the run later"
        return [Finding("wandb", State.LIMITED, found, repair)]
    return [Finding("wandb", State.OK, f"{server} answers")]
