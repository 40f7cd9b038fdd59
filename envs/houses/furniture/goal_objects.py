"""The twenty small objects that agents are asked for: shape, size and colours of each.

Sizes at the scale `real` are those of the YCB objects. At the scale `readable` every object is
enlarged until it covers at least ten pixels of a 64 x 64 image with a view of 90 degrees at 2 m,
whichever way it is turned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final

from envs.houses.draws import Draws
from envs.houses.furniture.piece import Piece
from envs.houses.scene import Kind
from envs.houses.textures.palette import MaterialTable, Rgb
from envs.objectnav.goals import GOAL_CATEGORIES

Size = tuple[float, float, float]

SCALES: Final[tuple[str, ...]] = ("readable", "real")

SIZES: Final[dict[str, dict[str, Size]]] = {
    "real": {
        "master_chef_can": (0.102, 0.102, 0.139),
        "cracker_box": (0.158, 0.06, 0.21),
        "sugar_box": (0.089, 0.038, 0.175),
        "tomato_soup_can": (0.066, 0.066, 0.101),
        "tuna_fish_can": (0.085, 0.085, 0.033),
        "pudding_box": (0.11, 0.089, 0.035),
        "gelatin_box": (0.085, 0.073, 0.028),
        "potted_meat_can": (0.097, 0.05, 0.082),
        "banana": (0.19, 0.07, 0.036),
        "strawberry": (0.044, 0.044, 0.055),
        "apple": (0.075, 0.075, 0.075),
        "lemon": (0.068, 0.054, 0.054),
        "peach": (0.059, 0.059, 0.059),
        "pear": (0.066, 0.066, 0.1),
        "orange": (0.073, 0.073, 0.073),
        "plum": (0.052, 0.052, 0.052),
        "bleach_cleanser": (0.098, 0.065, 0.25),
        "bowl": (0.159, 0.159, 0.053),
        "mug": (0.08, 0.08, 0.082),
        "sponge": (0.114, 0.072, 0.02),
    },
    "readable": {
        "master_chef_can": (0.23, 0.23, 0.28),
        "cracker_box": (0.26, 0.16, 0.34),
        "sugar_box": (0.2, 0.17, 0.32),
        "tomato_soup_can": (0.2, 0.2, 0.28),
        "tuna_fish_can": (0.3, 0.3, 0.18),
        "pudding_box": (0.28, 0.24, 0.21),
        "gelatin_box": (0.24, 0.22, 0.24),
        "potted_meat_can": (0.25, 0.22, 0.24),
        "banana": (0.44, 0.3, 0.2),
        "strawberry": (0.26, 0.26, 0.29),
        "apple": (0.27, 0.27, 0.26),
        "lemon": (0.31, 0.26, 0.26),
        "peach": (0.27, 0.27, 0.27),
        "pear": (0.25, 0.25, 0.34),
        "orange": (0.28, 0.28, 0.28),
        "plum": (0.26, 0.26, 0.26),
        "bleach_cleanser": (0.22, 0.18, 0.34),
        "bowl": (0.32, 0.32, 0.19),
        "mug": (0.22, 0.22, 0.25),
        "sponge": (0.28, 0.23, 0.2),
    },
}
"""Width, depth and height in metres."""

_JITTER: Final = 0.1


class _Brush:
    """Surfaces of one instance: its category's colours, all shifted a little alike."""

    def __init__(self, draws: Draws, table: MaterialTable) -> None:
        self._table = table
        shade = draws.uniform(1.0 - _JITTER, 1.0)
        self._shift = tuple(shade * draws.uniform(1.0 - _JITTER / 2, 1.0) for _ in range(3))

    def plain(self, rgb: Rgb, tile: str = "plain", repeat: float = 0.1) -> int:
        red, green, blue = (min(c * s, 1.0) for c, s in zip(rgb, self._shift, strict=True))
        return self._table.add((red, green, blue), tile, repeat)

    def label(self, tile: str) -> int:
        return self.plain((1.0, 1.0, 1.0), tile, 0.0)


def _can(piece: Piece, size: Size, brush: _Brush, label: str) -> None:
    side, lid = brush.label(label), brush.label("can_lid")
    piece.cylinder((0.0, 0.0), (0.0, size[2]), size[0] / 2, side, top=lid)


def _box(piece: Piece, size: Size, brush: _Brush, label: str, rgb: Rgb) -> None:
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    face, rest = brush.label(label), brush.plain(rgb)
    piece.box((-x, x), (-y, y), (0.0, z), face, top=rest)


def _fruit(
    piece: Piece, size: Size, brush: _Brush, rgb: Rgb, tile: str = "plain", *, stem: bool = False
) -> None:
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    body = z * 0.93 if stem else z
    piece.ball((0.0, 0.0, body / 2), (x, y, body / 2), brush.plain(rgb, tile, size[0]))
    if stem:
        bark, half = brush.plain((0.3, 0.18, 0.08)), 0.06 * size[0]
        piece.box((-half, half), (-half, half), (0.85 * z, z), bark)


def _master_chef_can(piece: Piece, size: Size, brush: _Brush) -> None:
    radius, z = size[0] / 2, size[2]
    piece.cylinder((0.0, 0.0), (0.0, 0.88 * z), 0.96 * radius, brush.label("coffee_label"))
    piece.cylinder((0.0, 0.0), (0.88 * z, z), radius, brush.plain((0.12, 0.22, 0.65)))


def _potted_meat_can(piece: Piece, size: Size, brush: _Brush) -> None:
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    silver = brush.plain((0.55, 0.57, 0.62))
    piece.box((-x, x), (-y, y), (0.0, 0.9 * z), brush.label("meat_label"))
    piece.box((-0.92 * x, 0.92 * x), (-0.92 * y, 0.92 * y), (0.9 * z, z), silver)


def _banana(piece: Piece, size: Size, brush: _Brush) -> None:
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    skin, tip = brush.plain((0.99, 0.86, 0.15)), brush.plain((0.4, 0.28, 0.08))
    piece.ball((0.0, 0.3 * y, z / 2), (0.55 * x, 0.7 * y, z / 2), skin)
    for side in (-1, 1):
        piece.ball((side * 0.6 * x, -0.3 * y, z / 2), (0.36 * x, 0.68 * y, 0.42 * z), skin)
    piece.box((0.86 * x, x), (-y, -0.72 * y), (0.4 * z, 0.6 * z), tip)


def _strawberry(piece: Piece, size: Size, brush: _Brush) -> None:
    radius, z = size[0] / 2, size[2]
    flesh = brush.plain((0.93, 0.1, 0.14), "seeds", size[0])
    leaves = brush.plain((0.2, 0.62, 0.2))
    piece.ball((0.0, 0.0, 0.45 * z), (radius, radius, 0.45 * z), flesh)
    piece.ball((0.0, 0.0, 0.88 * z), (0.8 * radius, 0.8 * radius, 0.12 * z), leaves)


def _apple(piece: Piece, size: Size, brush: _Brush) -> None:
    _fruit(piece, size, brush, (0.78, 0.06, 0.08), stem=True)
    radius, z = size[0] / 2, size[2]
    leaf = brush.plain((0.3, 0.65, 0.18))
    piece.ball((0.35 * radius, 0.0, 0.94 * z), (0.35 * radius, 0.16 * radius, 0.05 * z), leaf)


def _lemon(piece: Piece, size: Size, brush: _Brush) -> None:
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    peel = brush.plain((1.0, 0.93, 0.2), "pores", size[0])
    piece.ball((0.0, 0.0, z / 2), (0.9 * x, y, z / 2), peel)
    piece.ball((0.85 * x, 0.0, z / 2), (0.15 * x, 0.3 * y, 0.15 * z), peel)


def _pear(piece: Piece, size: Size, brush: _Brush) -> None:
    radius, z = size[0] / 2, size[2]
    skin, bark = brush.plain((0.72, 0.82, 0.2)), brush.plain((0.3, 0.18, 0.08))
    piece.ball((0.0, 0.0, 0.36 * z), (radius, radius, 0.36 * z), skin)
    piece.ball((0.0, 0.0, 0.68 * z), (0.6 * radius, 0.6 * radius, 0.26 * z), skin)
    half = 0.08 * radius
    piece.box((-half, half), (-half, half), (0.9 * z, z), bark)


def _bleach_cleanser(piece: Piece, size: Size, brush: _Brush) -> None:
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    body, white = brush.label("bleach_label"), brush.plain((0.97, 0.97, 0.98))
    piece.box((-x, x), (-y, y), (0.0, 0.72 * z), body, top=white)
    piece.cylinder((0.0, 0.0), (0.72 * z, 0.86 * z), 0.6 * y, white)
    piece.cylinder((0.0, 0.0), (0.86 * z, z), 0.5 * y, brush.plain((0.1, 0.25, 0.75)))


def _bowl(piece: Piece, size: Size, brush: _Brush) -> None:
    radius, z = size[0] / 2, size[2]
    side, inside = brush.label("bowl_rings"), brush.label("bowl_inside")
    piece.cylinder((0.0, 0.0), (0.0, 0.4 * z), 0.7 * radius, brush.plain((0.85, 0.2, 0.16)))
    piece.cylinder((0.0, 0.0), (0.4 * z, z), radius, side, top=inside)


def _mug(piece: Piece, size: Size, brush: _Brush) -> None:
    radius, z = size[0] / 2, size[2]
    glaze = brush.plain((0.06, 0.58, 0.24))
    band, coffee = brush.label("mug_band"), brush.label("mug_inside")
    piece.cylinder((0.0, 0.0), (0.0, z), radius, band, top=coffee)
    handle = (radius * 0.9, radius * 1.45)
    piece.box(handle, (-0.12 * radius, 0.12 * radius), (0.3 * z, 0.75 * z), glaze)


def _sponge(piece: Piece, size: Size, brush: _Brush) -> None:
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    foam = brush.plain((0.97, 0.88, 0.35), "pores", size[0])
    scourer = brush.plain((0.12, 0.42, 0.2), "carpet", size[0])
    piece.box((-x, x), (-y, y), (0.0, 0.65 * z), foam)
    piece.box((-x, x), (-y, y), (0.65 * z, z), scourer)


_Maker = Callable[[Piece, Size, _Brush], None]
_MAKERS: Final[dict[str, _Maker]] = {
    "master_chef_can": _master_chef_can,
    "cracker_box": partial(_box, label="cracker_label", rgb=(0.8, 0.08, 0.08)),
    "sugar_box": partial(_box, label="sugar_label", rgb=(0.98, 0.84, 0.1)),
    "tomato_soup_can": partial(_can, label="soup_label"),
    "tuna_fish_can": partial(_can, label="tuna_label"),
    "pudding_box": partial(_box, label="pudding_label", rgb=(0.36, 0.18, 0.08)),
    "gelatin_box": partial(_box, label="gelatin_label", rgb=(0.95, 0.36, 0.6)),
    "potted_meat_can": _potted_meat_can,
    "banana": _banana,
    "strawberry": _strawberry,
    "apple": _apple,
    "lemon": _lemon,
    "peach": partial(_fruit, rgb=(1.0, 0.62, 0.45), tile="blotches"),
    "pear": _pear,
    "orange": partial(_fruit, rgb=(1.0, 0.5, 0.05), tile="pores"),
    "plum": partial(_fruit, rgb=(0.36, 0.1, 0.42), stem=True),
    "bleach_cleanser": _bleach_cleanser,
    "bowl": _bowl,
    "mug": _mug,
    "sponge": _sponge,
}


def make_goal(category: int, scale: str, draws: Draws, table: MaterialTable) -> Piece:
    """Make one instance of a goal category, standing on z = 0.

    Args:
        category: index into `GOAL_CATEGORIES`.
        scale: "readable" or "real".
        draws: for the instance's shade.
        table: receives its surfaces.
    """
    name = GOAL_CATEGORIES[category]
    size = SIZES[scale][name]
    piece = Piece(name, size[0], size[1])
    _MAKERS[name](piece, size, _Brush(draws, table))
    return piece


def enclosing_radius(piece: Piece) -> float:
    """Return the radius of the upright cylinder about the origin that holds all parts."""
    return max(
        math.hypot(abs(p.x) + p.half_x, abs(p.y) + p.half_y)
        if p.kind == Kind.BOX
        else math.hypot(p.x, p.y) + max(p.half_x, p.half_y)
        for p in piece.parts
    )


def height_of(piece: Piece) -> float:
    """Return how high a piece reaches."""
    return max(p.z + p.half_z for p in piece.parts)
