"""The atlas of pattern tiles that surfaces multiply their colour with.

A tile's index is its place in `TILES`; the order is part of the generator's version. Tiles that
repeat are drawn in `patterns.py`, those that fill a face in `emblems.py` and `labels.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np

from envs.core.validation import unknown_name
from envs.houses.scene import FloatArray
from envs.houses.textures import emblems, labels, patterns

TILE_SIZE: Final = patterns.SIZE

_PAINTERS: Final[tuple[Callable[[], patterns.Tile], ...]] = (
    patterns.plain,
    patterns.planks,
    patterns.parquet,
    patterns.herringbone,
    patterns.floor_tiles,
    patterns.mosaic,
    patterns.checker,
    patterns.diagonal_checker,
    patterns.carpet,
    patterns.shag,
    patterns.concrete,
    patterns.terrazzo,
    patterns.marble,
    patterns.bricks,
    patterns.wood,
    patterns.panelling,
    patterns.stripes,
    patterns.thin_stripes,
    patterns.lying_stripes,
    patterns.dots,
    patterns.diamonds,
    patterns.damask,
    patterns.plaid,
    patterns.quilt,
    patterns.curtain,
    patterns.wicker,
    patterns.leaves,
    patterns.pores,
    emblems.two_doors,
    emblems.one_door,
    emblems.drawers,
    emblems.many_drawers,
    emblems.headboard,
    emblems.fridge_door,
    emblems.oven_door,
    emblems.hob,
    emblems.washer_door,
    emblems.window,
    labels.landscape,
    labels.abstract,
    labels.portrait,
    labels.flower_picture,
    labels.screen,
    labels.desktop,
    emblems.books,
    emblems.more_books,
    emblems.clock,
    emblems.mirror,
    emblems.piano_keys,
    emblems.radiator,
    emblems.fire,
    emblems.rug_border,
    emblems.rug_rings,
    emblems.toy_blocks,
    emblems.pillow,
    emblems.blotches,
    emblems.seeds,
    labels.coffee_label,
    labels.cracker_label,
    labels.sugar_label,
    labels.soup_label,
    labels.tuna_label,
    labels.pudding_label,
    labels.gelatin_label,
    labels.meat_label,
    labels.bleach_label,
    labels.mug_band,
    labels.mug_inside,
    labels.bowl_rings,
    labels.bowl_inside,
    labels.can_lid,
)

TILES: Final[tuple[str, ...]] = tuple(painter.__name__ for painter in _PAINTERS)
"""Names of the tiles by index; 0 is the plain one."""

_INDEX: Final = {name: index for index, name in enumerate(TILES)}


def tile_index(name: str) -> int:
    """Look a tile up by its name.

    Raises:
        ValueError: There is no such tile.
    """
    if name not in _INDEX:
        raise unknown_name("textures.tile_index", "tile", name, TILES)
    return _INDEX[name]


@cache
def atlas() -> FloatArray:
    """Return all tiles: float32 factors in [0, 1], (number of tiles, 32, 32, 3), read-only.

    Values are multiples of 1/255, so that they are the same on every machine and fit in bytes.
    """
    tiles = np.stack([painter() for painter in _PAINTERS])
    quantised = np.round(np.clip(tiles, 0.0, 1.0) * 255.0) / 255.0
    result = quantised.astype(np.float32)
    result.flags.writeable = False
    return result
