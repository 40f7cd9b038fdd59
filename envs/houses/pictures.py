"""Tiles of framed pictures and of screens, drawn by code like those of `emblems.py`."""

from __future__ import annotations

import numpy as np

from envs.houses.emblems import WHITE, block, disc, frame
from envs.houses.patterns import Tile, U, V, flat, where


def landscape() -> Tile:
    """Hills under an evening sky."""
    sky = flat() * (np.array((0.95, 0.55, 0.3)) + np.array((-0.5, -0.1, 0.5)) * V[..., None])
    hill = 0.45 + 0.1 * np.sin(7.0 * U)
    tile = where(hill > V, flat((0.2, 0.36, 0.3)), sky)
    tile = where(0.25 + 0.1 * np.cos(6.0 * U) > V, flat((0.12, 0.22, 0.2)), tile)
    disc(tile, 0.7, 0.62, 0.09, (1.0, 0.92, 0.55))
    return frame(tile, (0.35, 0.22, 0.12))


def abstract() -> Tile:
    """Blocks of strong colour."""
    tile = flat(WHITE)
    block(tile, (0.0, 0.36), (0.5, 1.0), (0.85, 0.16, 0.14))
    block(tile, (0.42, 1.0), (0.0, 0.3), (0.12, 0.28, 0.7))
    block(tile, (0.68, 1.0), (0.62, 1.0), (0.97, 0.82, 0.15))
    for line in (0.36, 0.68):
        block(tile, (line, line + 0.06), (0.0, 1.0), 0.06)
    for line in (0.3, 0.56):
        block(tile, (0.0, 1.0), (line, line + 0.06), 0.06)
    return frame(tile, 0.1, 0.06)


def portrait() -> Tile:
    """A head before a dark ground in a gilded frame."""
    tile = flat((0.22, 0.2, 0.26))
    block(tile, (0.24, 0.76), (0.0, 0.34), (0.5, 0.14, 0.2))
    disc(tile, 0.5, 0.54, 0.2, (0.88, 0.68, 0.54))
    disc(tile, 0.5, 0.68, 0.15, (0.25, 0.15, 0.1))
    return frame(tile, (0.8, 0.62, 0.22), 0.11)


def flower_picture() -> Tile:
    """A red flower on pale paper."""
    tile = flat((0.93, 0.92, 0.82))
    block(tile, (0.47, 0.53), (0.1, 0.6), (0.2, 0.5, 0.22))
    for u, v in ((0.36, 0.62), (0.64, 0.62), (0.5, 0.76), (0.5, 0.5)):
        disc(tile, u, v, 0.13, (0.9, 0.3, 0.45))
    disc(tile, 0.5, 0.63, 0.08, (0.98, 0.82, 0.2))
    return frame(tile, 0.97, 0.08)


def screen() -> Tile:
    """A black screen with a gleam."""
    tile = flat() * (0.09 + 0.1 * np.maximum(0.0, 1.0 - 4.0 * np.abs(U - V)))[..., None]
    return frame(tile, 0.03, 0.06)


def desktop() -> Tile:
    """A lit computer screen with windows."""
    tile = flat((0.18, 0.42, 0.72))
    block(tile, (0.12, 0.6), (0.35, 0.85), WHITE)
    block(tile, (0.12, 0.6), (0.77, 0.85), (0.3, 0.3, 0.36))
    block(tile, (0.5, 0.88), (0.2, 0.5), (0.95, 0.75, 0.3))
    return frame(tile, 0.06, 0.07)
