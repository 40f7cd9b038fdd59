"""Labelled pictures of houses, to train an encoder on before it is frozen.

Labels are which goal categories are in view and where: by cell of a grid, and by column of the
picture, there also which of them are near and how far things are. All houses are those of the
training split.

Shapes: B pictures, G goal categories, Y and X cells of a grid, C columns, 2 depths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from envs.houses.dataset import HouseDataset
from envs.houses.navigation.grid import NavGrid
from envs.houses.rendering.renderer import BatchRenderer
from envs.houses.scene import Scene
from envs.objectnav.goals import GOAL_CATEGORIES, GOAL_SEMANTIC

CELLS = 8
"""Cells of the grid along a side."""
COLUMNS = 4
DEPTHS = 2
"""Labels of depth in a column: the nearest and the mean of its middle rows."""
MIN_DEPTH, MAX_DEPTH = 0.1, 10.0
VISIBLE_PIXELS = 10
_SENSORS = ("rgb", "depth", "semantic")
_PITCHES_DEG = (0.0, -30.0, -60.0, 30.0)
_PITCH_SHARES = (0.5, 0.35, 0.1, 0.05)
_FACING_SHARE = 0.7
"""Share of the pictures that look towards some object; the others look anywhere."""
_FACING_NOISE = math.radians(25.0)
_FACING_RANGE_M = (0.4, 4.5)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Labelled pictures."""

    rgb_BHW3: NDArray[np.uint8]
    cells_BGYX: NDArray[np.bool_]
    """Whether a category has enough pixels in a cell."""
    columns_BGC: NDArray[np.bool_]
    """Whether a category has enough pixels in a column."""
    near_BGC: NDArray[np.bool_]
    """The same for what is near enough to stop at."""
    depth_B2C: NDArray[np.float32]
    """How much farther than `MIN_DEPTH` things are, as a logarithm, at least 0."""
    visible_BG: NDArray[np.bool_]
    """Whether a category has more than `VISIBLE_PIXELS` pixels in the whole picture."""

    def __len__(self) -> int:
        return len(self.rgb_BHW3)


def label_pictures(
    count: int,
    *,
    size: str,
    scale: str | None,
    resolution: int,
    seed: int | Sequence[int],
    per_house: int = 64,
    near_m: float = 2.0,
    min_pixels: int = 3,
) -> Pictures:
    """Draw and label pictures of train houses.

    Args:
        count: Pictures.
        size: Of the houses.
        scale: Of their small objects; None is the size's default.
        resolution: Side of the pictures.
        seed: Of houses and poses.
        per_house: Pictures of each house.
        near_m: Depth up to which an object counts as near.
        min_pixels: Pixels from which a category counts as in view.
    """
    rng = np.random.default_rng([*np.atleast_1d(seed), 0x1AB])
    dataset = HouseDataset("train", size, scale=scale, cache=1)
    houses = rng.choice(dataset.num_houses, -(-count // per_house), replace=False)
    renderer = BatchRenderer(1, width=resolution, height=resolution, sensors=_SENSORS)
    try:
        parts = [
            label_images(
                draw_images(renderer, dataset, int(house), per_house, rng), near_m, min_pixels
            )
            for house in houses
        ]
    finally:
        renderer.close()
    names = [field.name for field in fields(Pictures)]
    return Pictures(*(np.concatenate([getattr(p, n) for p in parts])[:count] for n in names))


def draw_images(
    renderer: BatchRenderer,
    dataset: HouseDataset,
    house: int,
    count: int,
    rng: np.random.Generator,
) -> dict[str, NDArray]:
    """Render one house from `count` poses: the images of each sensor, by its name."""
    scene = dataset.scene(house, int(rng.integers(dataset.num_arrangements)))
    poses = np.array(list(_poses(scene, dataset.grid(house), count, rng)))
    renderer.set_scene(0, scene)
    return renderer.render(*poses.T, rows=np.zeros(count, np.int64))


def _poses(
    scene: Scene, grid: NavGrid, count: int, rng: np.random.Generator
) -> Iterator[tuple[float, float, float, float]]:
    """Yield (x, y, heading, pitch) of an agent that stands in free space."""
    nodes = grid.free_nodes()
    for _ in range(count):
        pitch = math.radians(float(rng.choice(_PITCHES_DEG, p=_PITCH_SHARES)))
        heading = float(rng.uniform(-math.pi, math.pi))
        x, y = nodes[rng.integers(len(nodes))]
        if rng.random() < _FACING_SHARE:
            target = scene.objects[rng.integers(len(scene.objects))]
            distance = np.hypot(nodes[:, 0] - target.x, nodes[:, 1] - target.y)
            low, high = _FACING_RANGE_M
            around = np.flatnonzero((distance >= low) & (distance <= high))
            if len(around):
                x, y = nodes[rng.choice(around)]
            heading = math.atan2(target.y - y, target.x - x) + rng.normal(0.0, _FACING_NOISE)
        yield float(x), float(y), heading, pitch


def label_images(images: dict[str, NDArray], near_m: float, min_pixels: int) -> Pictures:
    """Count what rendered images show; see `label_pictures`."""
    category = images["semantic"] - GOAL_SEMANTIC
    near = np.where(images["depth"] <= near_m, category, -1)
    return Pictures(
        rgb_BHW3=images["rgb"],
        cells_BGYX=_counts(category, CELLS, CELLS) >= min_pixels,
        columns_BGC=_counts(category, 1, COLUMNS)[:, :, 0] >= min_pixels,
        near_BGC=_counts(near, 1, COLUMNS)[:, :, 0] >= min_pixels,
        depth_B2C=_depths(images["depth"]),
        visible_BG=_counts(category, 1, 1)[:, :, 0, 0] > VISIBLE_PIXELS,
    )


def _counts(category_BHW: NDArray, rows: int, columns: int) -> NDArray[np.int64]:
    """Count the pixels of each category in each cell of a grid, (B, G, rows, columns)."""
    count, height, width = category_BHW.shape
    num = len(GOAL_CATEGORIES)
    b, y, x = np.nonzero((category_BHW >= 0) & (category_BHW < num))
    cell = (b * num + category_BHW[b, y, x]) * rows + y * rows // height
    counts = np.bincount(
        cell * columns + x * columns // width, minlength=count * num * rows * columns
    )
    return counts.reshape(count, num, rows, columns)


def _depths(depth_BHW: NDArray[np.float32]) -> NDArray[np.float32]:
    height = depth_BHW.shape[1]
    logarithm = np.log(np.clip(depth_BHW, MIN_DEPTH, MAX_DEPTH) / MIN_DEPTH)
    band = logarithm[:, height // 3 : 2 * height // 3]
    parts = np.array_split(band, COLUMNS, axis=2)
    columns = [[part.min(axis=(1, 2)), part.mean(axis=(1, 2))] for part in parts]
    return np.array(columns, np.float32).transpose(2, 1, 0).copy()
