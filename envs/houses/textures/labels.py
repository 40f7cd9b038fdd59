"""Tiles with colours of their own: packaging of the small goal objects, framed pictures, screens.

They fill a face once and are drawn like those of `emblems.py`.
"""

from __future__ import annotations

import numpy as np

from envs.houses.textures.emblems import WHITE, block, disc, frame
from envs.houses.textures.patterns import Tile, U, V, flat, where


def coffee_label() -> Tile:
    """A blue can with a white band and a red mark."""
    tile = flat((0.1, 0.26, 0.8))
    block(tile, (0.0, 1.0), (0.36, 0.58), (0.95, 0.95, 0.97))
    for u in (0.0, 0.25, 0.5, 0.75):
        block(tile, (u + 0.04, u + 0.14), (0.4, 0.54), (0.75, 0.1, 0.12))
    return tile


def cracker_label() -> Tile:
    """A red box with an orange biscuit and a white line."""
    tile = flat((0.8, 0.08, 0.08))
    block(tile, (0.1, 0.9), (0.74, 0.92), (0.98, 0.96, 0.92))
    block(tile, (0.25, 0.75), (0.16, 0.58), (0.98, 0.62, 0.14))
    return tile


def sugar_label() -> Tile:
    """A yellow box with a white field and a blue line."""
    tile = flat((0.98, 0.84, 0.1))
    block(tile, (0.0, 1.0), (0.5, 0.8), (0.97, 0.97, 0.97))
    block(tile, (0.0, 1.0), (0.4, 0.5), (0.12, 0.2, 0.6))
    return tile


def soup_label() -> Tile:
    """Red above white, with a golden seal."""
    tile = flat((0.97, 0.96, 0.93))
    block(tile, (0.0, 1.0), (0.5, 1.0), (0.82, 0.08, 0.1))
    for u in (0.125, 0.625):
        disc(tile, u, 0.5, 0.13, (0.88, 0.7, 0.2))
    return tile


def tuna_label() -> Tile:
    """A turquoise band between silver rims."""
    tile = flat((0.72, 0.74, 0.76))
    block(tile, (0.0, 1.0), (0.16, 0.84), (0.05, 0.62, 0.66))
    for u in (0.0, 0.5):
        block(tile, (u + 0.1, u + 0.35), (0.35, 0.65), (0.98, 0.92, 0.3))
    return tile


def pudding_label() -> Tile:
    """A brown box with a pale spoonful."""
    tile = flat((0.36, 0.18, 0.08))
    disc(tile, 0.5, 0.42, 0.28, (0.95, 0.87, 0.72))
    block(tile, (0.0, 1.0), (0.84, 1.0), (0.98, 0.95, 0.9))
    return tile


def gelatin_label() -> Tile:
    """A pink box with a white heading."""
    tile = flat((0.95, 0.36, 0.6))
    block(tile, (0.08, 0.92), (0.6, 0.9), (1.0, 0.97, 0.98))
    disc(tile, 0.5, 0.3, 0.17, (0.75, 0.05, 0.2))
    return tile


def meat_label() -> Tile:
    """A dark blue tin with a yellow heading and a pink slice."""
    tile = flat((0.05, 0.07, 0.3))
    block(tile, (0.15, 0.85), (0.64, 0.82), (1.0, 0.85, 0.1))
    block(tile, (0.34, 0.66), (0.2, 0.4), (0.93, 0.55, 0.5))
    return tile


def bleach_label() -> Tile:
    """White plastic with a blue and green label."""
    tile = flat((0.97, 0.97, 0.98))
    block(tile, (0.0, 1.0), (0.2, 0.75), (0.2, 0.5, 0.88))
    block(tile, (0.0, 1.0), (0.2, 0.36), (0.3, 0.75, 0.3))
    return tile


def mug_band() -> Tile:
    """A green mug with a white band."""
    tile = flat((0.06, 0.58, 0.24))
    block(tile, (0.0, 1.0), (0.55, 0.8), (0.97, 0.97, 0.97))
    return tile


def bowl_rings() -> Tile:
    """A rim and a ring."""
    tile = flat((0.85, 0.2, 0.16))
    block(tile, (0.0, 1.0), (0.7, 1.0), (0.99, 0.97, 0.92))
    return tile


def bowl_inside() -> Tile:
    """The dark inside of a bowl within its rim."""
    tile = flat((0.99, 0.97, 0.92))
    disc(tile, 0.5, 0.5, 0.4, (0.5, 0.1, 0.08))
    return tile


def mug_inside() -> Tile:
    """Coffee within a green rim."""
    tile = flat((0.06, 0.58, 0.24))
    disc(tile, 0.5, 0.5, 0.38, (0.12, 0.07, 0.04))
    return tile


def can_lid() -> Tile:
    """A silver lid with a ring."""
    tile = flat((0.78, 0.8, 0.82))
    disc(tile, 0.5, 0.5, 0.42, (0.6, 0.62, 0.65))
    disc(tile, 0.5, 0.5, 0.34, (0.8, 0.82, 0.84))
    return tile


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
