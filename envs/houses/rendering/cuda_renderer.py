"""The batched renderer on a CUDA device: the same scenes and pictures, images left on the device.

Optional: needs numba-cuda and a GPU. Images agree with `renderer.BatchRenderer` but for rounding,
as a GPU may fuse multiplications with additions.

Shape suffixes: N rows of a call.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.houses.rendering.camera import Camera
from envs.houses.rendering.pixel import SHAPE_SIZE
from envs.houses.rendering.renderer import SENSORS, SceneRows
from envs.houses.rendering.tables import Atlas, Tables
from envs.houses.scene import Scene

try:
    from envs.houses.rendering import cuda as raster_cuda
    from envs.houses.rendering.cuda import cuda
except ImportError as error:
    raise ImportError(
        "CudaBatchRenderer: numba-cuda must be installed. Run: pip install 'relic-rl[cuda]'"
    ) from error

_AVERAGE_THREADS: Final = 128


class NoDeviceError(RuntimeError):
    """There is no CUDA device to draw on."""


@cache
def _kernels() -> tuple[Any, Any, Any]:
    """Return the compiled kernels: cull, draw, average."""
    return (
        cuda.jit(raster_cuda.cull),
        cuda.jit(raster_cuda.draw),
        cuda.jit(raster_cuda.average),
    )


class CudaBatchRenderer(SceneRows):
    """Draws what the cameras of many rows see, on the current CUDA device.

    Takes the arguments of `SceneRows`: those of `BatchRenderer` but for `threads`.

    Raises:
        NoDeviceError: No CUDA device can be used.
        ValueError: An argument is outside its range.
    """

    def __init__(self, num_rows: int, **settings: Any) -> None:
        super().__init__(num_rows, **settings)
        if not cuda.is_available():
            raise NoDeviceError(
                "CudaBatchRenderer: a CUDA device must be available, found none. "
                "Use BatchRenderer to draw on the CPU."
            )
        self._device_atlas = Atlas(
            cuda.to_device(self._atlas.mean),
            cuda.to_device(self._atlas.texel),
            self._atlas.shift,
        )
        self._host_tables: Tables | None = None
        self._device_tables: Any = None
        self._changed: set[int] = set()
        self._lists: tuple[tuple[int, ...], raster_cuda.Lists] | None = None

    def set_scene(self, row: int, scene: Scene) -> None:
        """Put a row into a scene, as in `BatchRenderer`. It is copied when something is drawn."""
        super().set_scene(row, scene)
        self._changed.add(int(self._slot_N[row]))

    def render(
        self,
        x_N: ArrayLike,
        y_N: ArrayLike,
        heading_N: ArrayLike,
        pitch_N: ArrayLike,
        *,
        rows: ArrayLike | None = None,
    ) -> dict[str, Any]:
        """Draw one picture per pose.

        Args:
            x_N: Poses, as in `BatchRenderer.render`.
            y_N: See `x_N`.
            heading_N: See `x_N`.
            pitch_N: See `x_N`.
            rows: The row whose scene each pose is in; all rows in order if left out.

        Returns:
            For each sensor a device array of shape (N, height, width, ...), which
            `torch.as_tensor(array, device="cuda")` takes over without a copy and `copy_to_host()`
            brings to the host.
        """
        slot_N, pose_4N = self._poses("render", (x_N, y_N, heading_N, pitch_N), rows)
        slots = cuda.to_device(slot_N)
        smooth = self.antialias > 1 and "rgb" in self.sensors
        plain = tuple(name for name in self.sensors if not (smooth and name == "rgb"))
        images = self._draw(slots, pose_4N, self.camera, plain) if plain else {}
        if smooth:
            fine = self.camera.scaled(self.antialias)
            fine_rgb = self._draw(slots, pose_4N, fine, ("rgb",))["rgb"]
            images["rgb"] = rgb = self._empty("rgb", len(slot_N), self.camera)
            blocks = -(-len(slot_N) * self.camera.width * self.camera.height // _AVERAGE_THREADS)
            _kernels()[2][blocks, _AVERAGE_THREADS](fine_rgb, rgb)
        return {name: images[name] for name in self.sensors}

    def _draw(
        self, slots: Any, pose_4N: NDArray[np.float64], camera: Camera, sensors: tuple[str, ...]
    ) -> dict[str, Any]:
        """Draw some of the images through a camera."""
        num = pose_4N.shape[1]
        tables, lists = self._upload(), self._working_memory(num)
        images = {name: self._empty(name, num, camera) for name in sensors}
        written = raster_cuda.Images(
            *(images.get(name, self._empty(name, 0, camera)) for name in SENSORS)
        )
        size_W = np.array([camera.width, camera.height], np.int32)
        cameras = raster_cuda.Cameras(
            slots, cuda.to_device(camera.pack(pose_4N)), cuda.to_device(size_W)
        )
        cull, draw, _ = _kernels()
        cull[num, raster_cuda.CULL_THREADS](tables, cameras, lists)
        tile = raster_cuda.TILE
        grid = (-(-camera.width // tile), -(-camera.height // tile), num)
        draw[grid, (tile, tile)](tables, cameras, lists, self._device_atlas, written)
        return images

    def _empty(self, name: str, num: int, camera: Camera) -> Any:
        """Return a device array for images of a sensor."""
        dtype, trailing = SENSORS[name]
        return cuda.device_array((num, camera.height, camera.width, *trailing), dtype)

    def _upload(self) -> Tables:
        """Return the tables on the device, after copying what has changed."""
        host = self._scenes.tables
        if host is not self._host_tables:
            self._device_tables = Tables(*(cuda.to_device(array) for array in host))
            self._host_tables = host
        else:
            for slot in self._changed:
                for device, array in zip(self._device_tables, host, strict=True):
                    device[slot : slot + 1].copy_to_device(array[slot : slot + 1])
        self._changed.clear()
        return self._device_tables

    def _working_memory(self, num: int) -> raster_cuda.Lists:
        """Return lists for `num` cameras, those of the last call if they are large enough."""
        tables = self._scenes.tables
        need = (num, tables.rooms_SP.shape[1], tables.room_SR4.shape[1])
        if self._lists is None or any(n > h for n, h in zip(need, self._lists[0], strict=True)):
            num, solids, rooms = need
            lists = raster_cuda.Lists(
                window_NR4=cuda.device_array((num, rooms, 4), np.int32),
                count_N=cuda.device_array(num, np.int32),
                solid_NQ=cuda.device_array((num, solids), np.int32),
                rectangle_NQ4=cuda.device_array((num, solids, 4), np.int32),
                shape_NQK=cuda.device_array((num, solids, SHAPE_SIZE), np.float32),
            )
            self._lists = (need, lists)
        return self._lists[1]
