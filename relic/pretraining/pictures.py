"""Labelled pictures of houses, to train an encoder on before it is frozen.

Labels are which goal categories are in view and where: by cell of a grid, and by column of the
picture, there also in which direction and how far. All houses are those of the training split.

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
from relic.policy.encoders.sightings import BEARING_SHIFT, MIN_DISTANCE

CELLS = 8
"""Cells of the grid along a side."""
COLUMNS = 4
DEPTHS = 2
"""Labels of depth in a column: the nearest and the mean of its middle rows."""
MAX_DISTANCE = 10.0
VISIBLE_PIXELS = 10
_SENSORS = ("rgb", "depth", "semantic")
_PITCHES_DEG = (0.0, -30.0, -60.0, 30.0)
_PITCH_SHARES = (0.7, 0.2, 0.05, 0.05)
"""Whoever finds objects in houses looks ahead nearly always."""
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
    distance_BGC: NDArray[np.float32]
    """Logarithm of the distance along the ground to the middle of what shows of a category in a
    column, in units of `MIN_DISTANCE`; 0 where nothing shows."""
    bearing_BGC: NDArray[np.float32]
    """Its direction in radians, growing to the right, plus `BEARING_SHIFT`."""
    depth_B2C: NDArray[np.float32]
    """Logarithm of depths in units of `MIN_DISTANCE`."""
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
        min_pixels: Pixels from which a category counts as in view.
    """
    rng = np.random.default_rng([*np.atleast_1d(seed), 0x1AB])
    dataset = HouseDataset("train", size, scale=scale, cache=1)
    houses = rng.choice(dataset.num_houses, -(-count // per_house), replace=False)
    renderer = BatchRenderer(1, width=resolution, height=resolution, sensors=_SENSORS)
    try:
        parts = [
            label_images(*draw_images(renderer, dataset, int(house), per_house, rng), min_pixels)
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
) -> tuple[dict[str, NDArray], NDArray[np.float64]]:
    """Render one house from `count` poses: the images of each sensor by its name, and pitches."""
    scene = dataset.scene(house, int(rng.integers(dataset.num_arrangements)))
    poses = np.array(list(_poses(scene, dataset.grid(house), count, rng)))
    renderer.set_scene(0, scene)
    return renderer.render(*poses.T, rows=np.zeros(count, np.int64)), poses[:, 3]


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


def label_images(
    images: dict[str, NDArray], pitch_B: NDArray[np.float64], min_pixels: int
) -> Pictures:
    """Label rendered images of a field of view of 90 degrees; see `label_pictures`."""
    category = images["semantic"] - GOAL_SEMANTIC
    columns_BGC = _counts(category, 1, COLUMNS)[:, :, 0] >= min_pixels
    ahead_BGC, right_BGC = _middles(images["depth"], category, pitch_B)
    return Pictures(
        rgb_BHW3=images["rgb"],
        cells_BGYX=_counts(category, CELLS, CELLS) >= min_pixels,
        columns_BGC=columns_BGC,
        distance_BGC=_logarithm(np.hypot(ahead_BGC, right_BGC)),
        bearing_BGC=(np.arctan2(right_BGC, ahead_BGC) + BEARING_SHIFT).astype(np.float32),
        depth_B2C=_depths(images["depth"]),
        visible_BG=_counts(category, 1, 1)[:, :, 0, 0] > VISIBLE_PIXELS,
    )


def _middles(
    depth_BHW: NDArray[np.float32], category_BHW: NDArray, pitch_B: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return metres ahead and to the right of each category's pixels in each column, (B, G, C)."""
    batch, height, width = depth_BHW.shape
    up_H = (0.5 * (height - 1) - np.arange(height)) * (2.0 / width)
    right_W = (np.arange(width) - 0.5 * (width - 1)) * (2.0 / width)
    forward_BH = np.cos(pitch_B)[:, None] - np.sin(pitch_B)[:, None] * up_H
    num = len(GOAL_CATEGORIES)
    b, y, x = np.nonzero((category_BHW >= 0) & (category_BHW < num))
    cell = (b * num + category_BHW[b, y, x]) * COLUMNS + x * COLUMNS // width
    depth, size = depth_BHW[b, y, x], batch * num * COLUMNS
    count = np.maximum(np.bincount(cell, minlength=size), 1)
    ahead = np.bincount(cell, depth * forward_BH[b, y], size) / count
    right = np.bincount(cell, depth * right_W[x], size) / count
    return ahead.reshape(batch, num, COLUMNS), right.reshape(batch, num, COLUMNS)


def _logarithm(metres: NDArray) -> NDArray[np.float32]:
    scaled = np.clip(metres, MIN_DISTANCE, MAX_DISTANCE) / MIN_DISTANCE
    return np.log(scaled).astype(np.float32)


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
    band = _logarithm(depth_BHW[:, height // 3 : 2 * height // 3])
    parts = np.array_split(band, COLUMNS, axis=2)
    columns = [[part.min(axis=(1, 2)), part.mean(axis=(1, 2))] for part in parts]
    return np.array(columns, np.float32).transpose(2, 1, 0).copy()
