"""Tiles that are stretched once over a face: doors, drawers, windows, dials, rugs, fire.

The first row is the top. Tiles for wooden or painted fronts are grey factors that take the
surface's colour; others bring their own.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from envs.houses.textures.patterns import COLUMN, ROW, SIZE, Tile, U, V, flat, noise, smooth, where

Colour = tuple[float, float, float]
WHITE: Final[Colour] = (0.97, 0.97, 0.95)


def block(
    tile: Tile, u: tuple[float, float], v: tuple[float, float], colour: Colour | float
) -> None:
    """Fill a rectangle of the tile, given in tile coordinates, in place."""
    tile[(u[0] <= U) & (u[1] > U) & (v[0] <= V) & (v[1] > V)] = colour


def disc(tile: Tile, u: float, v: float, radius: float, colour: Colour | float) -> None:
    """Fill a disc of the tile, given in tile coordinates, in place."""
    tile[(U - u) ** 2 + (V - v) ** 2 < radius**2] = colour


def panel(columns: int, rows: int, *, handle: str = "none") -> Tile:
    """Draw a front of columns x rows fields with grooves and handles."""
    tile = flat(0.93)
    for column in range(columns):
        for row in range(rows):
            u0, u1 = column / columns, (column + 1) / columns
            v0, v1 = row / rows, (row + 1) / rows
            block(tile, (u0, u1), (v0, v1), 0.5)
            block(tile, (u0 + 0.03, u1 - 0.03), (v0 + 0.03, v1 - 0.03), 0.95)
            if handle == "bar":
                middle, height = (u0 + u1) / 2, (v0 + v1) / 2
                block(tile, (middle - 0.13, middle + 0.13), (height, height + 0.07), 0.25)
            elif handle == "side":
                edge = u1 - 0.1 if column % 2 == 0 else u0 + 0.06
                block(tile, (edge, edge + 0.05), ((v0 + v1) / 2 - 0.1, (v0 + v1) / 2 + 0.1), 0.25)
    return tile


def two_doors() -> Tile:
    """Two tall doors with handles that meet in the middle."""
    return panel(2, 1, handle="side")


def one_door() -> Tile:
    """One door with a handle."""
    return panel(1, 1, handle="side")


def drawers() -> Tile:
    """Three drawers."""
    return panel(1, 3, handle="bar")


def many_drawers() -> Tile:
    """Two columns of drawers."""
    return panel(2, 3, handle="bar")


def headboard() -> Tile:
    """Padded fields with buttons."""
    tile = flat(0.9)
    for column in range(4):
        for row in range(2):
            u, v = (column + 0.5) / 4, (row + 0.5) / 2
            block(tile, (u - 0.105, u + 0.105), (v - 0.22, v + 0.22), 1.0)
            disc(tile, u, v, 0.045, 0.45)
    return tile


def fridge_door() -> Tile:
    """A freezer door above a tall door, long handles, a note held by a magnet."""
    tile = flat(0.96)
    block(tile, (0.0, 1.0), (0.64, 0.68), 0.4)
    block(tile, (0.1, 0.17), (0.72, 0.92), 0.35)
    block(tile, (0.1, 0.17), (0.3, 0.6), 0.35)
    block(tile, (0.55, 0.8), (0.4, 0.55), (0.98, 0.86, 0.35))
    block(tile, (0.62, 0.7), (0.54, 0.58), (0.8, 0.15, 0.15))
    return tile


def oven_door() -> Tile:
    """Knobs above a dark window with a handle."""
    tile = flat(0.85)
    for knob in range(4):
        disc(tile, 0.17 + 0.22 * knob, 0.9, 0.06, 0.1)
    block(tile, (0.1, 0.9), (0.7, 0.77), 0.95)
    block(tile, (0.12, 0.88), (0.12, 0.64), (0.09, 0.08, 0.09))
    block(tile, (0.2, 0.8), (0.2, 0.26), (0.75, 0.35, 0.12))
    return tile


def hob() -> Tile:
    """Four burners on black glass."""
    tile = flat(0.1)
    for u in (0.27, 0.73):
        for v in (0.27, 0.73):
            disc(tile, u, v, 0.2, (0.72, 0.2, 0.12))
            disc(tile, u, v, 0.14, 0.22)
    return tile


def washer_door() -> Tile:
    """A porthole, a drawer and a knob."""
    tile = flat(0.97)
    block(tile, (0.05, 0.5), (0.84, 0.95), 0.72)
    disc(tile, 0.8, 0.89, 0.07, 0.3)
    disc(tile, 0.5, 0.43, 0.34, 0.55)
    disc(tile, 0.5, 0.43, 0.27, (0.16, 0.24, 0.36))
    disc(tile, 0.42, 0.51, 0.08, (0.5, 0.65, 0.8))
    return tile


def window() -> Tile:
    """Sky, cloud and lawn behind a frame with a cross."""
    sky = flat() * (np.array((0.55, 0.75, 0.98)) + np.array((0.3, 0.2, 0.0)) * (1 - V)[..., None])
    tile = where(V < 0.3, flat((0.42, 0.66, 0.34)), np.minimum(sky, 1.0))
    disc(tile, 0.28, 0.72, 0.1, 1.0)
    disc(tile, 0.38, 0.7, 0.08, 1.0)
    disc(tile, 0.8, 0.36, 0.12, (0.25, 0.5, 0.25))
    for low, high in ((0.0, 0.07), (0.47, 0.53), (0.93, 1.0)):
        block(tile, (low, high), (0.0, 1.0), WHITE)
        block(tile, (0.0, 1.0), (low, high), WHITE)
    return tile


def frame(tile: Tile, colour: Colour | float, width: float = 0.09) -> Tile:
    """Put a frame around a picture, in place."""
    for low, high in ((0.0, width), (1.0 - width, 1.0)):
        block(tile, (low, high), (0.0, 1.0), colour)
        block(tile, (0.0, 1.0), (low, high), colour)
    return tile


def spines(key: int) -> Tile:
    """Draw a row of books."""
    generator = np.random.Generator(np.random.Philox(key=key))
    palette = (
        (0.7, 0.16, 0.15),
        (0.14, 0.3, 0.58),
        (0.16, 0.46, 0.28),
        (0.9, 0.74, 0.26),
        (0.45, 0.24, 0.5),
        (0.86, 0.84, 0.78),
        (0.3, 0.2, 0.16),
        (0.9, 0.48, 0.16),
    )
    tile = flat(0.1)
    left = 0
    while left < SIZE:
        width = int(generator.integers(2, 5))
        top = int(generator.integers(0, 8))
        colour = np.asarray(palette[int(generator.integers(len(palette)))])
        tile[top:, left : left + width] = colour
        tile[top:, left + width - 1 : left + width] = colour * 0.6
        tile[top + 5 : top + 8, left : left + width - 1] = np.minimum(colour + 0.35, 1.0)
        left += width
    return tile


def books() -> Tile:
    """A shelf of books."""
    return spines(61)


def more_books() -> Tile:
    """Another shelf of books."""
    return spines(67)


def clock() -> Tile:
    """A round dial."""
    tile = flat((0.28, 0.2, 0.16))
    disc(tile, 0.5, 0.5, 0.44, WHITE)
    block(tile, (0.47, 0.53), (0.5, 0.82), 0.05)
    block(tile, (0.5, 0.74), (0.47, 0.53), 0.05)
    return tile


def mirror() -> Tile:
    """Glass with slanted gleams in a silver frame."""
    gleam = ((U + V) % 0.5) < 0.12
    tile = where(gleam, flat((0.92, 0.98, 1.0)), flat((0.62, 0.76, 0.82)))
    return frame(tile, 0.5, 0.06)


def piano_keys() -> Tile:
    """White keys, and black ones in twos and threes."""
    tile = flat(0.97)
    tile[:, ::4] = 0.5
    for key in (0, 1, 3, 4, 5):
        block(tile, ((key + 0.85) / 8, (key + 1.25) / 8), (0.4, 1.0), 0.05)
    return tile


def radiator() -> Tile:
    """Upright ribs."""
    return flat() * np.array([1.0, 0.95, 0.8, 0.55])[COLUMN % 4][..., None]


def fire() -> Tile:
    """Flames in a dark opening."""
    flame = V + 0.25 * np.abs(((U * 5.0) % 1.0) - 0.5) + 0.15 * noise(71)[..., 0]
    tile = where(flame < 0.62, flat((0.95, 0.4, 0.08)), flat((0.1, 0.07, 0.06)))
    tile = where(flame < 0.4, flat((1.0, 0.85, 0.3)), tile)
    return frame(tile, (0.1, 0.07, 0.06), 0.07)


def rug_border() -> Tile:
    """A rug with a border and a figure in the middle."""
    tile = flat(0.92)
    frame(tile, 0.55, 0.14)
    frame(tile, 1.0, 0.07)
    figure = np.abs(U - 0.5) + np.abs(V - 0.5)
    return where((figure < 0.3) & (figure > 0.12), flat(0.5), tile)


def rug_rings() -> Tile:
    """A rug with rings."""
    ring = (np.sqrt((U - 0.5) ** 2 + (V - 0.5) ** 2) * 10.0).astype(int) % 2 == 0
    return where(ring, flat(1.0), flat(0.6))


def toy_blocks() -> Tile:
    """Four gaudy fields."""
    tile = flat((0.9, 0.22, 0.2))
    block(tile, (0.5, 1.0), (0.5, 1.0), (0.2, 0.5, 0.9))
    block(tile, (0.0, 0.5), (0.0, 0.5), (0.98, 0.8, 0.2))
    block(tile, (0.5, 1.0), (0.0, 0.5), (0.25, 0.7, 0.35))
    return frame(tile, 0.95, 0.06)


def pillow() -> Tile:
    """Cloth that darkens towards its edges."""
    edge = np.maximum(np.abs(U - 0.5), np.abs(V - 0.5)) * 2.0
    return flat() * (1.0 - 0.3 * edge**4)[..., None]


def blotches() -> Tile:
    """Darker spots, as on fruit."""
    cloud = smooth(smooth(noise(73), 0, 2), 1, 2)[..., 0]
    return where(cloud < 0.46, flat(0.8), flat())


def seeds() -> Tile:
    """Pale seeds on a berry."""
    return where((ROW % 6 < 2) & ((COLUMN + 3 * (ROW // 6)) % 6 < 2), flat((1, 1, 0.6)), flat())
