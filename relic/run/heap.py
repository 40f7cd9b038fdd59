"""How the C library keeps memory that was freed."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
_KEPT = 2**29
_LARGEST = 2**25  # the most that glibc takes
_PAGES = 2**16


def keep_freed_memory() -> None:
    """Let the process keep up to 512 MiB that were freed, where the C library is glibc.

    A step or a pass frees tensors of some megabytes and asks for as many a moment later. In between
    glibc gives them back to the system, which clears every page anew: with 64 rows of pictures that
    takes as long as the convolutions.
    """
    _set_thresholds(_KEPT, _LARGEST)


def give_freed_memory_back() -> None:
    """Undo `keep_freed_memory`: what is freed goes back to the system at once, to be measured."""
    _set_thresholds(_PAGES, _PAGES)


def _set_thresholds(trim: int, mmap: int) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # another C library
        return
    mallopt(_TRIM_THRESHOLD, trim)
    mallopt(_MMAP_THRESHOLD, mmap)
