"""The batched renderer on a CUDA device: the same scenes and pictures, images left on the device.

Two kernels per picture: `cull` lists what each camera may see, in the tables' order; `draw` tests
each pixel against its camera's list and writes the images. Culling, pixel tests and colours are
the CPU's own functions, here with one thread per solid or pixel. Images agree with those of
`renderer.BatchRenderer` but for rounding, as a GPU may fuse multiplications with additions.

Needs numba-cuda; a GPU only to draw.

Shapes as in `draw.py`, and N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from envs.houses.rendering.camera import Camera
from envs.houses.rendering.color import (
    LOOK_SIZE,
    blend,
    colors_of,
    curved_hit,
    curved_row,
    flat_hit,
    flat_row,
    is_flat,
    make_look,
    texel_of,
)
from envs.houses.rendering.lanes import Number
from envs.houses.rendering.pixel import (
    BOX,
    CYLINDER,
    ONE,
    SHAPE_SIZE,
    ZERO,
    box_hit,
    box_row,
    cylinder_hit,
    cylinder_row,
    ellipsoid_hit,
    ellipsoid_row,
    faces_of,
    make_shape,
)
from envs.houses.rendering.renderer import SENSORS, SceneRows
from envs.houses.rendering.tables import (
    INSTANCE,
    KIND,
    MATERIAL,
    NUM_PRIMITIVES,
    SEMANTIC,
    Atlas,
    Tables,
)
from envs.houses.rendering.view import Sight, frustum_of, open_windows, visible_rectangle
from envs.houses.scene import Scene

try:
    import numba_cuda  # noqa: F401  # before numba.cuda, whose place it takes
    from numba import cuda as numba_cuda_module
except ImportError as error:
    raise ImportError(
        "CudaBatchRenderer: numba-cuda must be installed. Run: pip install 'numba-cuda>=0.30'"
    ) from error

cuda: Any = numba_cuda_module

CULL_THREADS: Final = 64
"""Threads that cull for one camera."""
TILE: Final = 8
"""Pixels along the edge of the square that one block draws."""
AVERAGE_THREADS: Final = 128


class Lists(NamedTuple):
    """What `cull` writes and `draw` reads, on the device."""

    window_NR4: Any
    count_N: Any
    solid_NQ: Any
    rectangle_NQ4: Any
    shape_NQK: Any


class Cameras(NamedTuple):
    """Where the kernels draw, on the device."""

    slot_N: Any
    camera_NC: Any
    size_W: Any


class Images(NamedTuple):
    """What `draw` writes, on the device; images that are not wanted have no rows."""

    rgb_NHW3: Any
    depth_NHW: Any
    semantic_NHW: Any
    instance_NHW: Any


def cull(tables: Tables, cameras: Cameras, lists: Lists) -> None:
    """List the solids in sight. One block of `CULL_THREADS` threads for each camera."""
    n, lane = cuda.blockIdx.x, cuda.threadIdx.x
    slot, camera_C = cameras.slot_N[n], cameras.camera_NC[n]
    size_W, window_R4 = cameras.size_W, lists.window_NR4[n]
    seen = cuda.shared.array(1, np.int64)
    in_sight = cuda.shared.array(CULL_THREADS, np.int32)
    if lane == 0:
        # The windows of rooms depend on each other, so one thread opens them and the others wait.
        seen[0] = open_windows(tables, slot, camera_C, size_W, window_R4)
    cuda.syncthreads()
    sight = Sight(size_W, window_R4, seen[0], frustum_of(camera_C, size_W))
    count = tables.count_S3[slot, NUM_PRIMITIVES]
    listed = 0
    # All threads take part in all rounds, also without a solid of their own: they meet at barriers.
    for start in range(0, count, CULL_THREADS):
        p = start + lane
        x0, y0, x1, y1 = 0, 0, 0, 0
        if p < count:
            x0, y0, x1, y1 = visible_rectangle(tables, slot, p, camera_C, sight)
        in_sight[lane] = 1 if x0 < x1 and y0 < y1 else 0
        cuda.syncthreads()
        before, together = 0, 0
        for k in range(CULL_THREADS):  # keeps the order, on which ties of depth depend
            together += in_sight[k]
            before += in_sight[k] if k < lane else 0
        if in_sight[lane] == 1:
            q = listed + before
            kind = tables.label_SPL[slot, p, KIND]
            shape_K = lists.shape_NQK[n, q]
            if not make_shape(tables.solid_SPG[slot, p], kind, camera_C, shape_K):
                # Its place in the list is settled by now, but an empty rectangle covers no pixel.
                x1 = x0
            lists.solid_NQ[n, q] = p
            rectangle = lists.rectangle_NQ4[n, q]
            rectangle[0], rectangle[1], rectangle[2], rectangle[3] = x0, y0, x1, y1
        listed += together
        # The next round overwrites the flags, so all must have counted them.
        cuda.syncthreads()
    if lane == 0:
        lists.count_N[n] = listed


@njit
def _hit(kind: int, shape_K: Any, i: int, j: int) -> tuple[Number, Number]:
    """Return 1 / depth of a solid in pixel (i, j), 0 for a miss, and the face."""
    column, row = np.float32(i), np.float32(j)
    if kind == BOX:
        return box_hit(box_row(shape_K, row), column, faces_of(shape_K, 0))
    if kind == CYLINDER:
        return cylinder_hit(cylinder_row(shape_K, row), column, faces_of(shape_K, 0))
    return ellipsoid_hit(ellipsoid_row(shape_K, row), column), np.int32(0)


@njit
def _nearest(tables: Tables, slot: int, lists: Lists, n: int, pixel: tuple[int, int]) -> Any:
    """Return the largest 1 / depth in a pixel, 0 for nothing, with its list entry and face."""
    i, j = pixel
    best, owner, side = ZERO, 0, np.int32(0)
    for q in range(lists.count_N[n]):
        rectangle = lists.rectangle_NQ4[n, q]
        if i < rectangle[0] or j < rectangle[1] or i >= rectangle[2] or j >= rectangle[3]:
            continue
        kind = tables.label_SPL[slot, lists.solid_NQ[n, q], KIND]
        inverse, face = _hit(kind, lists.shape_NQK[n, q], i, j)
        # Strictly, as in `draw.py`: of equal depths the first in the tables' order stays.
        if inverse > best:
            best, owner, side = inverse, q, face
    return best, owner, side


@njit
def _color(
    tables: Tables, where: tuple[int, int, int], shape_K: Any, atlas: Atlas, look_A: Any, pixel: Any
) -> Number:
    """Return the packed colour of a pixel that shows face `where` = (slot, solid, face)."""
    slot, p, side = where
    i, j, depth = pixel
    solid_G, kind = tables.solid_SPG[slot, p], tables.label_SPL[slot, p, KIND]
    flat = is_flat(kind, side)
    material_5 = tables.material_SM5[slot, tables.label_SPL[slot, p, MATERIAL + side]]
    make_look(solid_G, material_5, side if flat else -1, shape_K, atlas, look_A)
    colors, light = colors_of(look_A), ONE
    if flat:
        u, v, strength = flat_hit(flat_row(look_A, np.float32(j)), np.float32(i), depth)
    else:
        row = curved_row(solid_G, kind == CYLINDER, shape_K, look_A, np.float32(j))
        u, v, strength, light = curved_hit(row, np.float32(i), depth)
    return blend(colors, texel_of(atlas, colors, u, v), strength, light)


def draw(tables: Tables, cameras: Cameras, lists: Lists, atlas: Atlas, images: Images) -> None:
    """Write the images. Blocks of `TILE` x `TILE` threads; z is the camera."""
    n = cuda.blockIdx.z
    i = cuda.blockIdx.x * TILE + cuda.threadIdx.x
    j = cuda.blockIdx.y * TILE + cuda.threadIdx.y
    if i >= cameras.size_W[0] or j >= cameras.size_W[1]:
        return
    slot = cameras.slot_N[n]
    inverse, q, side = _nearest(tables, slot, lists, n, (i, j))
    hit = inverse > ZERO
    depth = ONE / inverse if hit else ZERO
    # Without a hit q is 0, which may be read, and what is read there is not used.
    p = lists.solid_NQ[n, q]
    if len(images.depth_NHW) > 0:
        images.depth_NHW[n, j, i] = depth
    if len(images.semantic_NHW) > 0:
        images.semantic_NHW[n, j, i] = tables.label_SPL[slot, p, SEMANTIC] if hit else 0
    if len(images.instance_NHW) > 0:
        images.instance_NHW[n, j, i] = tables.label_SPL[slot, p, INSTANCE] if hit else 0
    if len(images.rgb_NHW3) > 0:
        look_A = cuda.local.array(LOOK_SIZE, np.float32)
        color = np.int32(0)
        if hit:
            shape_K = lists.shape_NQK[n, q]
            color = _color(tables, (slot, p, side), shape_K, atlas, look_A, (i, j, depth))
        images.rgb_NHW3[n, j, i, 0] = color & 255
        images.rgb_NHW3[n, j, i, 1] = (color >> 8) & 255
        images.rgb_NHW3[n, j, i, 2] = (color >> 16) & 255


def average(fine_NHW3: Any, rgb_NHW3: Any) -> None:
    """Write the rounded mean of each 2 x 2 block of pixels. One thread for each pixel."""
    at = cuda.grid(1)
    num, height, width, _ = rgb_NHW3.shape
    if at >= num * height * width:
        return
    i, j, n = at % width, at // width % height, at // (width * height)
    for c in range(3):
        above = int(fine_NHW3[n, 2 * j, 2 * i, c]) + int(fine_NHW3[n, 2 * j, 2 * i + 1, c])
        below = int(fine_NHW3[n, 2 * j + 1, 2 * i, c]) + int(fine_NHW3[n, 2 * j + 1, 2 * i + 1, c])
        rgb_NHW3[n, j, i, c] = (above + below + 2) >> 2


class NoDeviceError(RuntimeError):
    """There is no CUDA device to draw on."""

    foreseen = True


@cache
def _kernels() -> tuple[Any, Any, Any]:
    """Return the compiled kernels: cull, draw, average."""
    return cuda.jit(cull), cuda.jit(draw), cuda.jit(average)


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
        self._lists: tuple[tuple[int, ...], Lists] | None = None

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
        out: Mapping[str, Any] | None = None,
        rows: ArrayLike | None = None,
    ) -> dict[str, Any]:
        """Draw one picture per pose; the arguments are those of `BatchRenderer.render`.

        What `out` holds are device arrays, as this returned them for as many poses.

        Returns:
            For each sensor a device array of shape (N, height, width, ...), which
            `torch.as_tensor(array, device="cuda")` takes over without a copy and `copy_to_host()`
            brings to the host.
        """
        slot_N, pose_4N = self._poses("render", (x_N, y_N, heading_N, pitch_N), rows)
        slots, out = cuda.to_device(slot_N), out or {}
        smooth = self.antialias > 1 and "rgb" in self.sensors
        plain = tuple(name for name in self.sensors if not (smooth and name == "rgb"))
        images = self._draw(slots, pose_4N, self.camera, plain, out) if plain else {}
        if smooth:
            fine = self.camera.scaled(self.antialias)
            fine_rgb = self._draw(slots, pose_4N, fine, ("rgb",), {})["rgb"]
            images["rgb"] = rgb = self._image("rgb", len(slot_N), self.camera, out)
            blocks = -(-len(slot_N) * self.camera.width * self.camera.height // AVERAGE_THREADS)
            _kernels()[2][blocks, AVERAGE_THREADS](fine_rgb, rgb)
        return {name: images[name] for name in self.sensors}

    def _draw(
        self,
        slots: Any,
        pose_4N: NDArray[np.float64],
        camera: Camera,
        sensors: tuple[str, ...],
        out: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Draw some of the images through a camera."""
        num = pose_4N.shape[1]
        tables, lists = self._upload(), self._working_memory(num)
        images = {name: self._image(name, num, camera, out) for name in sensors}
        written = Images(*(images.get(name, self._empty(name, 0, camera)) for name in SENSORS))
        size_W = np.array([camera.width, camera.height], np.int32)
        cameras = Cameras(slots, cuda.to_device(camera.pack(pose_4N)), cuda.to_device(size_W))
        culler, drawer, _ = _kernels()
        culler[num, CULL_THREADS](tables, cameras, lists)
        grid = (-(-camera.width // TILE), -(-camera.height // TILE), num)
        drawer[grid, (TILE, TILE)](tables, cameras, lists, self._device_atlas, written)
        return images

    def _image(self, name: str, num: int, camera: Camera, out: Mapping[str, Any]) -> Any:
        """Return the array that images of a sensor are written into."""
        return out[name] if name in out else self._empty(name, num, camera)

    def _empty(self, name: str, num: int, camera: Camera) -> Any:
        """Return a device array for images of a sensor."""
        dtype, trailing = SENSORS[name]
        return cuda.device_array((num, camera.height, camera.width, *trailing), dtype)

    def _upload(self) -> Tables:
        """Return the tables on the device, after copying what has changed."""
        host = self._scenes.tables
        # Tables that had to grow are new objects. Else only slots that changed are copied.
        if host is not self._host_tables:
            self._device_tables = Tables(*(cuda.to_device(array) for array in host))
            self._host_tables = host
        else:
            for slot in self._changed:
                for device, array in zip(self._device_tables, host, strict=True):
                    device[slot : slot + 1].copy_to_device(array[slot : slot + 1])
        self._changed.clear()
        return self._device_tables

    def _working_memory(self, num: int) -> Lists:
        """Return lists for `num` cameras, those of the last call if they are large enough."""
        tables = self._scenes.tables
        need = (num, tables.rooms_SP.shape[1], tables.room_SR4.shape[1])
        if self._lists is None or any(n > h for n, h in zip(need, self._lists[0], strict=True)):
            num, solids, rooms = need
            lists = Lists(
                window_NR4=cuda.device_array((num, rooms, 4), np.int32),
                count_N=cuda.device_array(num, np.int32),
                solid_NQ=cuda.device_array((num, solids), np.int32),
                rectangle_NQ4=cuda.device_array((num, solids, 4), np.int32),
                shape_NQK=cuda.device_array((num, solids, SHAPE_SIZE), np.float32),
            )
            self._lists = (need, lists)
        return self._lists[1]
