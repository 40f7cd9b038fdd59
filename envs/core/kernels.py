"""Compiled kernels: they notice changed sources, and are compiled once for all processes.

Numba caches a kernel under the state of the file that holds it. A change of a function that another
file lends to the kernel goes unnoticed, and old machine code runs. A kernel with such functions is
therefore built by a function that takes `source_fingerprint(...)` of those files and holds the
number in a closure, because the values of a closure are part of Numba's key:

    def build(fingerprint):
        @njit(cache=True)
        def kernel(...):
            ...
            return fingerprint  # a name that the kernel does not use is not in its closure

        return kernel

    kernel = build(source_fingerprint(geometry, tables))
"""

from __future__ import annotations

import fcntl
import importlib
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import llvmlite.binding
import numba
from numba.core import config


def source_fingerprint(*modules: ModuleType) -> int:
    """Return a number that changes with the source of these modules.

    Args:
        modules: those whose functions a kernel calls; a package stands for all files in its folder.
    """
    sources = (path for module in modules for path in _sources(module))
    return zlib.crc32(b"".join(path.read_bytes() for path in sources))


def _sources(module: ModuleType) -> Iterable[Path]:
    """Return the files of a module, in an order that does not depend on the file system."""
    if hasattr(module, "__path__"):
        return sorted(path for folder in module.__path__ for path in Path(folder).glob("*.py"))
    return [Path(str(module.__file__))]


def compile_ahead(parts: Mapping[str, str]) -> None:
    """Compile kernels before they are first called: side by side, once for all processes.

    Numba compiles a kernel when it is called, one at a time and without a word, and each process
    that calls it does so anew until one has written it into the cache. Here each part runs in a
    process of its own, as many at once as there are cores; other processes wait for them and read
    the cache. A line on stderr says what is compiled and how long it took. Nothing happens where
    the cache has everything, nor where there can be no cache.

    Args:
        parts: What is compiled, in a word, and `module:function` of what calls the kernels.
    """
    if _compiles_a_part or _setting("DISABLE_JIT"):
        return
    stamps = {name: stamp_of(name, path) for name, path in parts.items()}
    if all(stamp.exists() for stamp in stamps.values()):
        return
    folder = _cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "kernels.lock").open("w")
    except OSError:
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another process may have compiled them while this one waited.
        missing = {name: parts[name] for name, stamp in stamps.items() if not stamp.exists()}
        if missing:
            _compile(missing, stamps)


def compile_part(path: str) -> None:
    """Call the function `module:function`, whose kernels are compiled by that."""
    global _compiles_a_part
    _compiles_a_part = True
    # The pipe from whoever waits for it ends with them, and then nobody needs it.
    Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    module, _, function = path.partition(":")
    getattr(importlib.import_module(module), function)()


_compiles_a_part = False
"""Whether this process was started to compile: what it builds must not wait for itself."""


def _compile(parts: Mapping[str, str], stamps: Mapping[str, Path]) -> None:
    say = partial(print, file=sys.stderr, flush=True)
    say(f"Compiling kernels for this machine, once: {', '.join(parts)} ...", end=" ")
    began = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = list(filter(None, pool.map(lambda n: _in_process(n, parts[n], stamps[n]), parts)))
    say(f"{time.monotonic() - began:.0f} s.", *failed)


def _in_process(name: str, path: str, stamp: Path) -> str | None:
    """Compile a part; return what went wrong, in a sentence."""
    command = f"from envs.core.kernels import compile_part; compile_part({path!r})"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", command],  # or a folder `envs` from here would come first
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read().strip().splitlines()
    if process.returncode:
        reason = said[-1] if said else f"status {process.returncode}"
        return f"Not {name}, which is compiled when it is first called: {reason}"
    for old in stamp.parent.glob(f"kernels.{name}.*"):
        old.unlink(missing_ok=True)
    stamp.touch()
    return None


def stamp_of(name: str, path: str) -> Path:
    """Return the file that is there when a part is in the cache."""
    cpu = llvmlite.binding.get_host_cpu_name()
    versions = f"{path} {sys.version} {numba.__version__} {_setting('CPU_NAME') or cpu}"
    number = zlib.crc32(versions.encode(), _sources_of_kernels())
    # Deleted with Numba's own files of this ending.
    return _cache_folder() / f"kernels.{name}.{number:08x}.nbi"


@cache
def _sources_of_kernels() -> int:
    """Return a number that changes with any file that may have a part in a kernel."""
    root = Path(__file__).parents[2]
    files = (file for name in ("envs", "relic") for file in sorted((root / name).rglob("*.py")))
    return zlib.crc32(b"".join(s for s in (file.read_bytes() for file in files) if b"numba" in s))


def _cache_folder() -> Path:
    return Path(_setting("CACHE_DIR") or Path(__file__).parents[1] / "__pycache__")


def _setting(name: str) -> Any:
    """Return one of Numba's settings, which come from the environment."""
    return getattr(config, name)
