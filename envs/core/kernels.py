"""Compiled kernels that notice when a file which they are built from has changed.

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

import zlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType


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
