"""The batched renderer: many cameras in many furnished houses, one call, no processes.

The images of a row depend on its scene and pose alone, bit for bit: not on the number of rows,
their order, the threads, or what was drawn before. Conventions are those of `camera.py` and
`scene.py`. `SceneRows` is what the renderers on the CPU and on CUDA share.

How a picture is made: `tables.py` packs a scene when a row enters it; `view.py` leaves out the
solids that the camera cannot see; `pixel.py` says which pixels a solid covers and how near it is
there; `color.py` says what colour a hit has. `draw.py` does all of it for one picture and `cpu.py`
for many on the CPU; `cuda.py` does it on a GPU.

Shapes: N rows of a call, H and W pixels, I instance ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.core.validation import unknown_name
from envs.houses.rendering.camera import Camera
from envs.houses.rendering.cpu import Images, Scratch, Workers, count_rows, render_rows, views_of
from envs.houses.rendering.tables import SceneTables, pack_atlas
from envs.houses.scene import Scene
from envs.houses.textures.atlas import atlas as default_atlas

SENSORS: Final[dict[str, tuple[type[np.generic], tuple[int, ...]]]] = {
    "rgb": (np.uint8, (3,)),
    "depth": (np.float32, ()),
    "semantic": (np.int16, ()),
    "instance": (np.int16, ()),
}
"""Data type and trailing shape of each sensor's images. Depth is along the optical axis, metres,
and 0 where nothing is; semantic and instance ids are those of the primitives."""

MAX_RESOLUTION: Final = 4096


class RowWithoutSceneError(RuntimeError):
    """A row was drawn before it had a scene."""


class SceneRows:
    """Rows, each in a scene, and the camera that they share.

    Args:
        num_rows: Number of rows; each has a scene, and rows may share one.
        width: Pixels per row of the images.
        height: Pixels per column.
        hfov: Horizontal field of view in radians.
        sensors: Which images to make, of `SENSORS`.
        antialias: 1, or 2 to average 2 x 2 samples in the colours; other images are unchanged.
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
        atlas: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        self._check_whole("num_rows", num_rows, 1, 1 << 20)
        self._check_whole("width", width, 1, MAX_RESOLUTION)
        self._check_whole("height", height, 1, MAX_RESOLUTION)
        self._check_whole("antialias", antialias, 1, 2)
        if not 0.0 < hfov < math.pi:
            raise ValueError(
                f"{self._name}.hfov: must be in (0, pi) radians, got {hfov}. Use math.radians(90)."
            )
        self.num_rows = num_rows
        self.camera = Camera(width, height, float(hfov))
        self.sensors = self._checked_sensors(sensors)
        self.antialias = antialias
        tiles = default_atlas() if atlas is None else atlas
        self._atlas = pack_atlas(tiles)
        self._scenes = SceneTables(len(tiles))
        self._slot_N = np.full(num_rows, -1, np.int64)

    @property
    def _name(self) -> str:
        """The class, as messages call it."""
        return type(self).__name__

    @property
    def nbytes(self) -> int:
        """Bytes of the packed scenes."""
        return self._scenes.nbytes

    @property
    def bytes_per_scene(self) -> int:
        """Bytes of one packed scene at the present capacity."""
        return self._scenes.bytes_per_scene

    def set_scene(self, row: int, scene: Scene) -> None:
        """Put a row into a scene. Rows given the same `Scene` object share its memory.

        Raises:
            IndexError: There is no such row.
            ValueError: The scene cannot be drawn.
        """
        if not 0 <= row < self.num_rows:
            raise IndexError(
                f"{self._name}.set_scene: row must be in [0, {self.num_rows}), got {row}."
            )
        before = int(self._slot_N[row])
        self._slot_N[row] = self._scenes.acquire(scene, instead_of=before if before >= 0 else None)

    def _poses(
        self, method: str, poses: tuple[ArrayLike, ...], rows: ArrayLike | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the slots and the poses of a call, checked."""
        name = f"{self._name}.{method}"
        slot_N = self._slot_N if rows is None else self._slots_of(name, rows)
        try:
            pose_4N = np.array(poses, np.float64).reshape(4, -1)
        except ValueError as error:
            raise ValueError(
                f"{name}: x, y, heading and pitch must be equally long arrays of numbers: {error}."
            ) from error
        if pose_4N.shape[1] != len(slot_N):
            raise ValueError(
                f"{name}: poses must be as many as rows, got {pose_4N.shape[1]} for "
                f"{len(slot_N)} rows. Pass rows= to draw some of them."
            )
        if not np.isfinite(pose_4N).all():
            bad = int(np.flatnonzero(~np.isfinite(pose_4N).all(axis=0))[0])
            raise ValueError(
                f"{name}: poses must be finite, got {pose_4N[:, bad].tolist()} at index {bad}."
            )
        if (slot_N < 0).any():
            bad = int(np.flatnonzero(slot_N < 0)[0])
            row = bad if rows is None else int(np.ravel(np.asarray(rows))[bad])
            raise RowWithoutSceneError(
                f"{name}: row {row} must have a scene. Call set_scene({row}, scene) first."
            )
        return slot_N, pose_4N

    def _slots_of(self, name: str, rows: ArrayLike) -> NDArray[np.int64]:
        """Return the slots of the given rows."""
        row_N = np.atleast_1d(np.asarray(rows))
        if row_N.size and not np.issubdtype(row_N.dtype, np.integer):
            raise TypeError(f"{name}: rows must be integers, got {row_N.dtype}.")
        if row_N.size and (row_N.min() < 0 or row_N.max() >= self.num_rows):
            raise IndexError(
                f"{name}: rows must be in [0, {self.num_rows}), got {row_N.min()} to {row_N.max()}."
            )
        return self._slot_N[row_N.astype(np.int64)]

    def _check_whole(self, name: str, value: int, low: int, high: int) -> None:
        """Raise unless `value` is a whole number in [low, high]."""
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise TypeError(f"{self._name}.{name}: must be a whole number, got {value!r}.")
        if not low <= value <= high:
            raise ValueError(f"{self._name}.{name}: must be in [{low}, {high}], got {value}.")

    def _checked_sensors(self, sensors: Sequence[str]) -> tuple[str, ...]:
        """Return the sensors' names, each of `SENSORS` and at most once."""
        if isinstance(sensors, str):
            raise TypeError(
                f"{self._name}.sensors: must be a list of names, got {sensors!r}. "
                f"Use [{sensors!r}]."
            )
        for name in sensors:
            if name not in SENSORS:
                raise unknown_name(self._name, "sensors", name, SENSORS)
        if not sensors or len(set(sensors)) < len(sensors):
            raise ValueError(
                f"{self._name}.sensors: must name at least one sensor, none twice, got {sensors}."
            )
        return tuple(sensors)


_NO_IMAGE: Final[dict[str, NDArray[Any]]] = {
    name: np.empty((0, 0, 0, *trailing), dtype) for name, (dtype, trailing) in SENSORS.items()
}


class BatchRenderer(SceneRows):
    """Draws what the cameras of many rows see.

    Args:
        num_rows: Number of rows; each has a scene, and rows may share one.
        threads: Threads that share the rows of a call, the caller's among them.
        settings: The other arguments of `SceneRows`.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(self, num_rows: int, *, threads: int = 1, **settings: Any) -> None:
        super().__init__(num_rows, **settings)
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
        # Kernels write by flat index. What is not contiguous is drawn beside and copied back below.
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

        Rows and poses are those of `render`, `size` is the pictures' width and height in pixels,
        and their field of view is the renderer's.

        Returns:
            Shape (N, I): pixels by instance id, where id 0 is everything else.
        """
        self._check_whole("count_pixels.size", size, 1, MAX_RESOLUTION)
        slot_N, pose_4N = self._poses("count_pixels", (x_N, y_N, heading_N, pitch_N), rows)
        camera = Camera(size, size, self.camera.hfov)
        views = views_of(slot_N, pose_4N, (camera, camera))
        # As wide as the largest scene needs; rows of smaller ones stay 0 at the end.
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

    def __exit__(self, *exception: object) -> None:
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
