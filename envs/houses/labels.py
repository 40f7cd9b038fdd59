"""Tiles for the packaging of the small goal objects, each with colours of its own."""

from __future__ import annotations

from envs.houses.emblems import block, disc
from envs.houses.patterns import Tile, flat


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
