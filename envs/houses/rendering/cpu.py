"""Many rows on the CPU: the compiled entry points, and the threads that share a call's rows.

The kernels release Python's lock, so threads suffice and nothing is forked. Slices of the rows are
handed out one by one: a thread that is done early takes the next. Each thread has working memory
of its own. What is drawn into it is in `draw.py`.

Shapes as in `draw.py`, and N rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.core.kernels import source_fingerprint
from envs.houses import rendering, scene
from envs.houses.rendering.camera import Camera
from envs.houses.rendering.draw import (
    Canvas,
    count_instances,
    draw_solids,
    new_canvas,
    paint_color,
    paint_depth,
    paint_label,
    to_depth,
)
from envs.houses.rendering.tables import INSTANCE, SEMANTIC, Atlas, Tables
from envs.houses.scene import FloatArray

SLICES_PER_THREAD: Final = 4
ROWS_PER_SLICE: Final = 8
"""At least, where there are rows enough: handing a slice out costs as much as drawing some rows."""


class Images(NamedTuple):
    """What a call writes; images that are not wanted have no rows."""

    rgb_NHW3: NDArray[np.uint8]
    depth_NHW: FloatArray
    semantic_NHW: NDArray[np.int16]
    instance_NHW: NDArray[np.int16]


class Views(NamedTuple):
    """Where a call draws: slots of the tables, packed cameras, pixels.

    Colours are drawn by the fine camera and averaged where `fine_size_W` is not `size_W`.
    """

    slot_N: NDArray[np.int64]
    camera_NC: FloatArray
    size_W: NDArray[np.int32]
    fine_camera_NC: FloatArray
    fine_size_W: NDArray[np.int32]


class Scratch(NamedTuple):
    """Working memory of one thread."""

    canvas: Canvas
    fine_canvas: Canvas
    fine_rgb_HW3: NDArray[np.uint8]
    """Empty without antialiasing."""


def views_of(
    slot_N: NDArray[np.int64], pose_4N: NDArray[np.float64], cameras: tuple[Camera, Camera]
) -> Views:
    """Return the views of poses (x, y, heading, pitch) through a camera and a fine one."""
    camera, fine = cameras
    camera_NC = camera.pack(pose_4N)
    return Views(
        slot_N=slot_N,
        camera_NC=camera_NC,
        size_W=np.array([camera.width, camera.height], np.int32),
        fine_camera_NC=camera_NC if fine == camera else fine.pack(pose_4N),
        fine_size_W=np.array([fine.width, fine.height], np.int32),
    )


def new_scratch(cameras: tuple[Camera, Camera], tables: Tables) -> Scratch:
    """Return working memory for pictures of any slot of the tables."""
    camera, fine = cameras
    canvas = new_canvas(camera.width, camera.height, tables)
    if fine == camera:
        return Scratch(canvas, canvas, np.empty((0, 0, 3), np.uint8))
    fine_rgb_HW3 = np.empty((fine.height, fine.width, 3), np.uint8)
    return Scratch(canvas, new_canvas(fine.width, fine.height, tables), fine_rgb_HW3)


@njit
def _average(fine_HW3: NDArray[np.uint8], rgb_HW3: NDArray[np.uint8]) -> None:
    """Write the rounded mean of each 2 x 2 block."""
    height, width, _ = rgb_HW3.shape
    for j in range(height):
        for i in range(width):
            for n in range(3):
                # int32, as a sum of bytes would overflow. The 2 below is half of 4, which rounds.
                above = np.int32(fine_HW3[2 * j, 2 * i, n]) + fine_HW3[2 * j, 2 * i + 1, n]
                below = np.int32(fine_HW3[2 * j + 1, 2 * i, n]) + fine_HW3[2 * j + 1, 2 * i + 1, n]
                rgb_HW3[j, i, n] = (above + below + 2) >> 2


# With _nrt=True, numba counts the references of every view of an array by atomic operations: twice
# as dear as the drawing at 32 x 32. The kernels allocate nothing and their arguments outlive them,
# so nothing needs counting.
_compile: Final = cast("Any", njit)(cache=True, nogil=True, _nrt=False)


def _build(fingerprint: int) -> tuple[Any, Any]:
    """Return the two kernels.

    Both are cached under the fingerprint of the files that they are compiled from; nothing else
    here is cached alone.
    """

    @_compile
    def render(
        tables: Tables,
        views: Views,
        rows: tuple[int, int],
        scratch: Scratch,
        atlas: Atlas,
        images: Images,
    ) -> int:
        """Draw rows [start, stop) into the images."""
        canvas, size_W = scratch.canvas, views.size_W
        smooth = len(scratch.fine_rgb_HW3) > 0
        others = len(images.depth_NHW) + len(images.semantic_NHW) + len(images.instance_NHW)
        for n in range(rows[0], rows[1]):
            slot = views.slot_N[n]
            # With antialiasing the fine camera draws the colours; this one is for the other images.
            if others > 0 or not smooth:
                draw_solids(tables, slot, views.camera_NC[n], size_W, canvas)
                to_depth(canvas, size_W)
            if len(images.depth_NHW):
                paint_depth(canvas, images.depth_NHW[n])
            if len(images.semantic_NHW):
                paint_label(tables, slot, canvas, SEMANTIC, images.semantic_NHW[n])
            if len(images.instance_NHW):
                paint_label(tables, slot, canvas, INSTANCE, images.instance_NHW[n])
            if len(images.rgb_NHW3) and not smooth:
                paint_color(tables, slot, canvas, atlas, images.rgb_NHW3[n])
            elif len(images.rgb_NHW3):
                fine_canvas, fine_size_W = scratch.fine_canvas, views.fine_size_W
                draw_solids(tables, slot, views.fine_camera_NC[n], fine_size_W, fine_canvas)
                to_depth(fine_canvas, fine_size_W)
                paint_color(tables, slot, fine_canvas, atlas, scratch.fine_rgb_HW3)
                _average(scratch.fine_rgb_HW3, images.rgb_NHW3[n])
        return fingerprint

    @_compile
    def count(
        tables: Tables,
        views: Views,
        rows: tuple[int, int],
        canvas: Canvas,
        count_NI: NDArray[np.int32],
    ) -> int:
        """Count the pixels of each instance in rows [start, stop)."""
        for n in range(rows[0], rows[1]):
            slot = views.slot_N[n]
            draw_solids(tables, slot, views.camera_NC[n], views.size_W, canvas)
            count_instances(tables, slot, canvas, views.size_W, count_NI[n])
        return fingerprint

    return render, count


render_rows, count_rows = _build(source_fingerprint(rendering, scene))


def slices(num: int, threads: int) -> int:
    """Return into how many slices to cut `num` rows: as many for each thread, if rows suffice."""
    per_thread = min(max(num // (ROWS_PER_SLICE * threads), 1), SLICES_PER_THREAD)
    return min(num, per_thread * threads)


class Workers:
    """A pool of threads, the caller's among them."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        # One less, as the caller's thread draws as well.
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
        # `next` runs under Python's lock, so no two threads get the same slice.
        next_slice = itertools.count()

        def loop(scratch: Scratch) -> None:
            while (k := next(next_slice)) < num_slices:
                work(edges[k], edges[k + 1], scratch)

        others = [self._executor.submit(loop, scratch) for scratch in scratches[1:]]
        loop(scratches[0])
        for other in others:
            # Waits, and raises what went wrong in that thread.
            other.result()

    def close(self) -> None:
        """End the threads."""
        if self._executor is not None:
            self._executor.shutdown()

    def _scratches(self, tables: Tables, cameras: tuple[Camera, Camera]) -> list[Scratch]:
        """Return working memory for each thread that is large enough for all scenes."""
        capacity = (tables.rooms_SP.shape[1], tables.room_SR4.shape[1])
        if capacity != self._capacity:
            # Tables only grow. Canvases of the old capacity would be too short for a larger scene.
            self._scratch.clear()
            self._capacity = capacity
        if cameras not in self._scratch:
            self._scratch[cameras] = [new_scratch(cameras, tables) for _ in range(self._threads)]
        return self._scratch[cameras]
