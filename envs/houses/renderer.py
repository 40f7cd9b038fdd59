"""The batched renderer: many cameras in many furnished houses, one call, no processes.

The images of a row depend on its scene and pose alone, bit for bit: not on the number of rows,
their order, the threads, or what was drawn before. Conventions are those of `camera.py` and
`scene.py`; `raster*.py` hold the kernels.

Shape suffixes: N rows of a call, H and W pixels, I instance ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.houses.camera import Camera
from envs.houses.raster import Images, Scratch, count_rows, render_rows, views_of
from envs.houses.raster_rows import MAX_RESOLUTION, SENSORS, RowWithoutSceneError, SceneRows
from envs.houses.raster_threads import Workers

__all__ = ["SENSORS", "BatchRenderer", "RowWithoutSceneError"]

_NO_IMAGE: Final[dict[str, NDArray[Any]]] = {
    name: np.empty((0, 0, 0, *trailing), dtype) for name, (dtype, trailing) in SENSORS.items()
}


class BatchRenderer(SceneRows):
    """Draws what the cameras of many rows see.

    Args:
        num_rows: Number of rows; each has a scene, and rows may share one.
        width: Pixels per row of the images.
        height: Pixels per column.
        hfov: Horizontal field of view in radians.
        sensors: Which images to make, of `SENSORS`.
        antialias: 1, or 2 to average 2 x 2 samples in the colours; other images are unchanged.
        threads: Threads that share the rows of a call, the caller's among them.
        atlas: Tiles to use instead of `textures.atlas()`.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(
        self,
        num_rows: int,
        *,
        width: int = 64,
        height: int = 64,
        hfov: float = 0.5 * math.pi,
        sensors: Sequence[str] = ("rgb", "depth", "semantic"),
        antialias: int = 1,
        threads: int = 1,
        atlas: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        super().__init__(
            num_rows,
            width=width,
            height=height,
            hfov=hfov,
            sensors=sensors,
            antialias=antialias,
            atlas=atlas,
        )
        self._check_whole("threads", threads, 1, 1024)
        self.threads = threads
        self._workers = Workers(threads)

    def render(
        self,
        x_N: ArrayLike,
        y_N: ArrayLike,
        heading_N: ArrayLike,
        pitch_N: ArrayLike,
        *,
        out: Mapping[str, NDArray[Any]] | None = None,
        rows: ArrayLike | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Draw one picture per pose.

        Args:
            x_N: Agent positions in metres, with `y_N`.
            y_N: See `x_N`.
            heading_N: Radians, counter-clockwise from +x.
            pitch_N: Radians, up positive.
            out: Images to write into and return, by sensor. Others are made.
            rows: The row whose scene each pose is in; all rows in order if left out.

        Returns:
            For each sensor an array whose first axes are (N, height, width).

        Raises:
            RowWithoutSceneError: A row has no scene.
            ValueError: Poses are not finite, or shapes do not fit.
        """
        slot_N, pose_4N = self._poses("render", (x_N, y_N, heading_N, pitch_N), rows)
        images = self._images(len(slot_N), {} if out is None else out)
        contiguous = {name: np.require(image, requirements="C") for name, image in images.items()}
        fine = self.camera.scaled(self.antialias)
        views = views_of(slot_N, pose_4N, (self.camera, fine))
        written = Images(*(contiguous.get(name, _NO_IMAGE[name]) for name in SENSORS))

        def work(start: int, stop: int, scratch: Scratch) -> None:
            render_rows(self._scenes.tables, views, (start, stop), scratch, self._atlas, written)

        self._workers.share(work, len(slot_N), self._scenes.tables, (self.camera, fine))
        for name, image in contiguous.items():
            if image is not images[name]:
                images[name][...] = image
        return images

    def count_pixels(
        self,
        rows: ArrayLike,
        x_N: ArrayLike,
        y_N: ArrayLike,
        heading_N: ArrayLike,
        pitch_N: ArrayLike,
        *,
        size: int = 256,
    ) -> NDArray[np.int32]:
        """Count the pixels of each goal instance in square pictures, which are not made.

        Args:
            rows: The row whose scene each pose is in.
            x_N: Poses, as in `render`.
            y_N: See `x_N`.
            heading_N: See `x_N`.
            pitch_N: See `x_N`.
            size: Width and height in pixels; the field of view is the renderer's.

        Returns:
            Shape (N, I): pixels by instance id, where id 0 is everything else.
        """
        self._check_whole("count_pixels.size", size, 1, MAX_RESOLUTION)
        slot_N, pose_4N = self._poses("count_pixels", (x_N, y_N, heading_N, pitch_N), rows)
        camera = Camera(size, size, self.camera.hfov)
        views = views_of(slot_N, pose_4N, (camera, camera))
        ids = max((self._scenes.num_instances(int(slot)) for slot in slot_N), default=1)
        count_NI = np.zeros((len(slot_N), ids), np.int32)

        def work(start: int, stop: int, scratch: Scratch) -> None:
            count_rows(self._scenes.tables, views, (start, stop), scratch.canvas, count_NI)

        self._workers.share(work, len(slot_N), self._scenes.tables, (camera, camera))
        return count_NI

    def close(self) -> None:
        """End the threads. The renderer cannot draw with several of them afterwards."""
        self._workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _images(self, num: int, out: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return an image array per sensor, those of `out` where given."""
        images = {}
        for name in self.sensors:
            dtype, trailing = SENSORS[name]
            shape = (num, self.camera.height, self.camera.width, *trailing)
            image = out.get(name)
            if image is None:
                image = np.empty(shape, dtype)
            elif image.shape != shape or image.dtype != dtype:
                raise ValueError(
                    f"BatchRenderer.render: out[{name!r}] must be {dtype.__name__} {shape}, "
                    f"got {image.dtype} {image.shape}."
                )
            images[name] = image
        return images
