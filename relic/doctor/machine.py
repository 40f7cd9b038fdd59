"""Memory, disk and caches of this machine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from relic.doctor.finding import Finding, State, World

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
    repair = "python train.py run_dir=ELSEWHERE/NAME"
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
