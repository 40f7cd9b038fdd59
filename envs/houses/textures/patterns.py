"""Repeating tiles: floors, wallpapers, cloth and building materials, drawn by code.

Each function returns one tile of `SIZE` x `SIZE` RGB factors in [0, 1] that joins itself at its
edges.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SIZE: Final = 32
Tile = NDArray[np.float64]

ROW, COLUMN = np.mgrid[0:SIZE, 0:SIZE]
"""Each pixel's row and column; the first row is the top."""
U: Final = (COLUMN + 0.5) / SIZE
"""Each pixel's coordinate along the tile, from left to right in (0, 1)."""
V: Final = 1.0 - (ROW + 0.5) / SIZE
"""The same from the bottom to the top."""


def noise(key: int, *, channels: int = 1) -> Tile:
    """Draw uniform noise in [0, 1) that is the same on every machine."""
    generator = np.random.Generator(np.random.Philox(key=key))
    return generator.random((SIZE, SIZE, channels))


def flat(value: float | tuple[float, float, float] = 1.0) -> Tile:
    """Return a tile of one colour."""
    return np.ones((SIZE, SIZE, 3)) * np.asarray(value, np.float64)


def where(mask: NDArray[np.bool_], one: Tile, other: Tile) -> Tile:
    """Take `one` inside the mask and `other` outside."""
    return np.where(mask[..., None], one, other)


def smooth(tile: Tile, axis: int, steps: int = 2) -> Tile:
    """Blur along an axis, around the edges."""
    for _ in range(steps):
        tile = (np.roll(tile, 1, axis) + tile + np.roll(tile, -1, axis)) / 3.0
    return tile


def plain() -> Tile:
    """Nothing but the colour."""
    return flat()


def planks() -> Tile:
    """Four floor boards with staggered joints."""
    board = ROW // 8
    tone = np.array([1.0, 0.84, 0.93, 0.76])[board]
    grain = smooth(noise(11), axis=1, steps=8)[..., 0]
    joint = (ROW % 8 == 7) | (COLUMN == (board * 13 + 5) % SIZE)
    return where(joint, flat(0.5), flat() * (tone * (0.86 + 0.25 * grain))[..., None])


def parquet() -> Tile:
    """Squares of upright and lying strips in turn."""
    upright = (ROW // 16 + COLUMN // 16) % 2 == 0
    along = np.where(upright, COLUMN, ROW)
    tone = np.array([0.97, 0.8, 0.9, 0.73])[(along // 4) % 4]
    edge = (ROW % 16 == 0) | (COLUMN % 16 == 0)
    return where(edge, flat(0.55), flat() * tone[..., None])


def herringbone() -> Tile:
    """Slanted strips that turn back halfway."""
    fold = np.where(COLUMN < 16, COLUMN, 31 - COLUMN)
    strip = ((ROW + fold) // 8) % 4
    tone = np.array([1.0, 0.78, 0.9, 0.7])[strip]
    seam = ((ROW + fold) % 8 == 0) | (COLUMN % 16 == 0)
    return where(seam, flat(0.55), flat() * tone[..., None])


def floor_tiles() -> Tile:
    """Four large square tiles with pale joints."""
    joint = (ROW % 16 == 0) | (COLUMN % 16 == 0)
    tone = np.array([[0.88, 0.82], [0.8, 0.9]])[ROW // 16, COLUMN // 16]
    body = flat() * (tone - 0.05 + 0.1 * noise(13)[..., 0])[..., None]
    return where(joint, flat(0.58), body)


def mosaic() -> Tile:
    """Small tiles of uneven brightness."""
    tone = 0.72 + 0.28 * np.random.Generator(np.random.Philox(key=17)).random((8, 8))
    joint = (ROW % 4 == 0) | (COLUMN % 4 == 0)
    return where(joint, flat(0.62), flat() * tone[ROW // 4, COLUMN // 4][..., None])


def checker() -> Tile:
    """Two by two squares, light and dark."""
    light = (ROW // 16 + COLUMN // 16) % 2 == 0
    return where(light, flat(), flat(0.32))


def diagonal_checker() -> Tile:
    """Light and dark squares that stand on their corners."""
    light = ((ROW + COLUMN) // 16 + (ROW - COLUMN) // 16) % 2 == 0
    return where(light, flat(), flat(0.5))


def carpet() -> Tile:
    """Short pile."""
    return flat() * (0.72 + 0.28 * noise(19))


def shag() -> Tile:
    """Long pile in tufts."""
    return flat() * np.clip(0.45 + 0.9 * smooth(smooth(noise(23), 0), 1) - 0.1, 0.0, 1.0)


def concrete() -> Tile:
    """Blotches."""
    cloud = smooth(smooth(noise(29), 0, 6), 1, 6)
    return flat() * np.clip(0.86 + 2.0 * (cloud - 0.5), 0.6, 1.0)


def terrazzo() -> Tile:
    """Coloured chips in a pale ground."""
    generator = np.random.Generator(np.random.Philox(key=31))
    tile = flat(0.93)
    colours = ((0.55, 0.5, 0.48), (0.85, 0.6, 0.5), (0.5, 0.62, 0.6), (0.75, 0.72, 0.6))
    for chip in range(26):
        row, column = (int(v) for v in generator.integers(0, SIZE, 2))
        for step in range(3):
            tile[(row + step // 2) % SIZE, (column + step % 2) % SIZE] = colours[chip % 4]
    return tile


def marble() -> Tile:
    """Pale stone with a vein."""
    bend = smooth(noise(37), 0, 10)[:, 0, 0]
    vein = np.abs(((COLUMN + ROW + (60 * bend).astype(int)[:, None]) % SIZE) - 16.0)
    return flat() * (0.97 - 0.25 * np.exp(-0.35 * vein))[..., None]


def bricks() -> Tile:
    """A brick bond with mortar."""
    course = ROW // 8
    shifted = (COLUMN + 8 * (course % 2)) % SIZE
    tone = np.array([[0.95, 0.78], [0.72, 0.9], [0.86, 0.98], [0.8, 0.7]])[course, shifted // 16]
    mortar = (ROW % 8 == 0) | (shifted % 16 == 0)
    body = flat() * (tone * (0.9 + 0.1 * noise(41)[..., 0]))[..., None]
    return where(mortar, flat((1.0, 1.0, 1.0)), body * 0.86)


def wood() -> Tile:
    """Grain that runs along u."""
    grain = smooth(noise(43), axis=1, steps=10)[..., 0]
    ring = 0.5 + 0.5 * np.sign(((ROW * 5) % SIZE) - 16.0) * 0.4
    return flat() * np.clip(0.72 + 0.2 * ring + 0.5 * (grain - 0.5), 0.5, 1.0)[..., None]


def panelling() -> Tile:
    """Upright boards with dark grooves."""
    groove = COLUMN % 8 == 0
    shine = COLUMN % 8 == 1
    body = where(shine, flat(), flat(0.88))
    return where(groove, flat(0.6), body)


def stripes() -> Tile:
    """Broad upright stripes."""
    return where((COLUMN // 8) % 2 == 0, flat(), flat(0.76))


def thin_stripes() -> Tile:
    """Narrow upright stripes in uneven steps."""
    return where(np.isin(COLUMN % 16, (1, 2, 6)), flat(0.7), flat())


def lying_stripes() -> Tile:
    """Broad level stripes."""
    return where((ROW // 8) % 2 == 0, flat(), flat(0.62))


def dots() -> Tile:
    """Staggered round dots."""
    row = ROW % 16 - 7.5
    column = (COLUMN + 8 * ((ROW // 16) % 2)) % 16 - 7.5
    return where(row**2 + column**2 < 10.0, flat(0.76), flat())


def diamonds() -> Tile:
    """A lattice of thin slanted lines."""
    lattice = ((ROW + COLUMN) % 16 < 2) | ((ROW - COLUMN) % 16 < 2)
    return where(lattice, flat(0.74), flat())


def damask() -> Tile:
    """Leaf-like figures, staggered."""
    row = ROW % 16 - 7.5
    column = (COLUMN + 8 * ((ROW // 16) % 2)) % 16 - 7.5
    leaf = (np.abs(column) < 4.5 - np.abs(row) * 0.55) & (np.abs(column) > 0.6)
    return where(leaf, flat(0.84), flat())


def plaid() -> Tile:
    """Crossing bands of a woven blanket."""
    across = np.where((COLUMN % 16) < 6, 0.72, 1.0)
    down = np.where((ROW % 16) < 6, 0.72, 1.0)
    return flat() * (across * down)[..., None]


def quilt() -> Tile:
    """Padded squares with seams."""
    row, column = ROW % 16 - 7.5, COLUMN % 16 - 7.5
    bulge = 1.0 - 0.3 * np.maximum(np.abs(row), np.abs(column)) / 7.5
    return flat() * bulge[..., None]


def curtain() -> Tile:
    """Upright folds."""
    fold = np.array([1.0, 0.96, 0.86, 0.74, 0.64, 0.7, 0.84, 0.95])[COLUMN % 8]
    return flat() * fold[..., None]


def wicker() -> Tile:
    """Basket weave."""
    over = (ROW // 4 + COLUMN // 4) % 2 == 0
    shade = np.where(over, ROW % 4, COLUMN % 4)
    tone = np.array([0.6, 0.95, 1.0, 0.8])[shade]
    return flat() * tone[..., None]


def leaves() -> Tile:
    """Foliage."""
    return flat() * np.clip(0.5 + 1.6 * (smooth(smooth(noise(47), 0, 1), 1, 1) - 0.3), 0.35, 1.0)


def pores() -> Tile:
    """Dark holes of a sponge."""
    return where(smooth(noise(53), 0, 1)[..., 0] < 0.33, flat(0.55), flat())
