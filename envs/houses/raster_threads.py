"""Threads that share the rows of a call, each with working memory of its own.

The kernels hold no lock of Python's, so threads suffice and nothing is forked. Slices are handed
out one by one: a thread that is done early takes the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from envs.houses.camera import Camera
from envs.houses.raster import Scratch, new_scratch
from envs.houses.raster_tables import Tables

SLICES_PER_THREAD: Final = 4
ROWS_PER_SLICE: Final = 8
"""At least, where there are rows enough: handing a slice out costs as much as drawing some rows."""


def slices(num: int, threads: int) -> int:
    """Return into how many slices to cut `num` rows: as many for each thread, if rows suffice."""
    per_thread = min(max(num // (ROWS_PER_SLICE * threads), 1), SLICES_PER_THREAD)
    return min(num, per_thread * threads)


class Workers:
    """A pool of threads, the caller's among them."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads - 1, "renderer") if threads > 1 else None
        self._scratch: dict[tuple[Camera, Camera], list[Scratch]] = {}
        self._capacity = (0, 0)

    def share(
        self,
        work: Callable[[int, int, Scratch], None],
        num: int,
        tables: Tables,
        cameras: tuple[Camera, Camera],
    ) -> None:
        """Run `work(start, stop, scratch)` on slices that cover `num` rows."""
        scratches = self._scratches(tables, cameras)
        if self._executor is None or num <= 1:
            work(0, num, scratches[0])
            return
        num_slices = slices(num, self._threads)
        edges = np.linspace(0, num, num_slices + 1).astype(int).tolist()
        next_slice = itertools.count()

        def loop(scratch: Scratch) -> None:
            while (k := next(next_slice)) < num_slices:
                work(edges[k], edges[k + 1], scratch)

        others = [self._executor.submit(loop, scratch) for scratch in scratches[1:]]
        loop(scratches[0])
        for other in others:
            other.result()

    def close(self) -> None:
        """End the threads."""
        if self._executor is not None:
            self._executor.shutdown()

    def _scratches(self, tables: Tables, cameras: tuple[Camera, Camera]) -> list[Scratch]:
        """Return working memory for each thread that is large enough for all scenes."""
        capacity = (tables.rooms_SP.shape[1], tables.room_SR4.shape[1])
        if capacity != self._capacity:
            self._scratch.clear()
            self._capacity = capacity
        if cameras not in self._scratch:
            self._scratch[cameras] = [new_scratch(cameras, tables) for _ in range(self._threads)]
        return self._scratch[cameras]
