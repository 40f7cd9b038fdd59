"""The colours of one house: its woods, fabrics, walls and floors.

All hues are whole degrees that leave the house's split code as the remainder of a division by
three, so that houses of different splits share no hue whatever the rest of their draws.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from envs.houses.draws import Draws
from envs.houses.scene import Materials
from envs.houses.textures.atlas import tile_index

Rgb = tuple[float, float, float]


class Style(NamedTuple):
    """A family of surfaces: one is drawn per room."""

    hues: tuple[tuple[int, int], ...]
    saturation: tuple[float, float]
    value: tuple[float, float]
    tiles: tuple[tuple[str, float], ...]
    """Names of tiles with the metres that one of them spans."""


WALL_STYLES: Final[dict[str, Style]] = {
    "living_room": Style(
        ((24, 44), (168, 200)),
        (0.28, 0.5),
        (0.8, 0.95),
        (("plain", 1.0), ("stripes", 1.0), ("damask", 0.9)),
    ),
    "kitchen": Style(
        ((42, 60), (84, 120)),
        (0.2, 0.42),
        (0.88, 1.0),
        (("plain", 1.0), ("bricks", 1.2), ("mosaic", 1.4)),
    ),
    "dining_room": Style(
        ((0, 18), (60, 80)),
        (0.4, 0.6),
        (0.6, 0.8),
        (("diamonds", 1.2), ("damask", 0.9), ("panelling", 0.8)),
    ),
    "bedroom": Style(
        ((210, 250), (250, 285), (315, 345)),
        (0.15, 0.36),
        (0.82, 0.96),
        (("plain", 1.0), ("dots", 0.9), ("thin_stripes", 1.2), ("damask", 0.9)),
    ),
    "bathroom": Style(
        ((180, 205), (140, 165)),
        (0.15, 0.4),
        (0.9, 1.0),
        (("mosaic", 1.4), ("floor_tiles", 0.9), ("checker", 0.9)),
    ),
    "study": Style(
        ((110, 150), (24, 36)),
        (0.35, 0.6),
        (0.45, 0.65),
        (("panelling", 0.8), ("plain", 1.0), ("diamonds", 1.2)),
    ),
    "hallway": Style(
        ((30, 60),),
        (0.05, 0.2),
        (0.85, 0.97),
        (("plain", 1.0), ("stripes", 0.9), ("thin_stripes", 1.2)),
    ),
    "laundry": Style(
        ((200, 225),),
        (0.06, 0.18),
        (0.7, 0.85),
        (("concrete", 1.2), ("bricks", 1.2), ("mosaic", 1.4)),
    ),
    "playroom": Style(
        ((50, 70), (18, 33), (285, 312)),
        (0.35, 0.6),
        (0.9, 1.0),
        (("dots", 0.9), ("stripes", 0.8), ("diagonal_checker", 0.9)),
    ),
}

_LAID_WOOD: Final = (("planks", 1.1), ("herringbone", 1.1), ("parquet", 1.0))
_PALE_WOOD: Final = Style(((27, 39),), (0.3, 0.5), (0.7, 0.9), _LAID_WOOD)
_WARM_WOOD: Final = Style(((21, 33),), (0.45, 0.65), (0.5, 0.72), _LAID_WOOD)
_DARK_WOOD: Final = Style(((15, 27),), (0.45, 0.6), (0.3, 0.45), _LAID_WOOD)
_STONE: Final = Style(
    ((24, 54), (195, 225)),
    (0.04, 0.2),
    (0.75, 0.95),
    (("floor_tiles", 0.9), ("terrazzo", 1.0), ("checker", 0.9), ("diagonal_checker", 0.9)),
)

FLOOR_STYLES: Final[dict[str, tuple[Style, ...]]] = {
    "living_room": (_PALE_WOOD, _WARM_WOOD),
    "kitchen": (
        _STONE,
        Style(((6, 30),), (0.45, 0.6), (0.6, 0.8), (("floor_tiles", 0.8),)),
        Style(((0, 24), (100, 150), (200, 225)), (0.15, 0.35), (0.8, 0.95), (("checker", 0.9),)),
    ),
    "dining_room": (_WARM_WOOD, _DARK_WOOD),
    "bedroom": (
        _PALE_WOOD,
        Style(
            ((20, 40), (200, 260), (320, 350), (80, 130)),
            (0.12, 0.35),
            (0.55, 0.8),
            (("carpet", 0.7), ("shag", 0.8)),
        ),
    ),
    "bathroom": (
        Style(
            ((180, 240), (20, 40)),
            (0.1, 0.4),
            (0.65, 0.95),
            (("mosaic", 1.0), ("floor_tiles", 0.8)),
        ),
    ),
    "study": (
        _DARK_WOOD,
        _WARM_WOOD,
        Style(((0, 15), (120, 150)), (0.4, 0.6), (0.35, 0.55), (("carpet", 0.7),)),
    ),
    "hallway": (_STONE, _PALE_WOOD, _WARM_WOOD),
    "laundry": (
        Style(((195, 225),), (0.02, 0.12), (0.5, 0.75), (("concrete", 1.4), ("floor_tiles", 0.7))),
    ),
    "playroom": (
        Style(((0, 357),), (0.3, 0.5), (0.7, 0.9), (("carpet", 0.7),)),
        Style(((0, 357),), (0.0, 0.15), (0.85, 0.95), (("toy_blocks", 1.2),)),
    ),
}

ROOM_KINDS: Final[tuple[str, ...]] = tuple(WALL_STYLES)

_FABRIC_SATURATION: Final = (0.25, 0.65)
_FABRIC_VALUE: Final = (0.4, 0.85)
_WOODS: Final = (
    (30, 0.55, 0.5),
    (36, 0.45, 0.78),
    (24, 0.65, 0.34),
    (18, 0.6, 0.5),
    (39, 0.2, 0.9),
)


def hsv(hue: float, saturation: float, value: float) -> Rgb:
    """Convert a colour; the hue is in degrees."""
    sector, fraction = divmod((hue % 360.0) / 60.0, 1.0)
    low = value * (1.0 - saturation)
    falling = value * (1.0 - saturation * fraction)
    rising = value * (1.0 - saturation * (1.0 - fraction))
    return (
        (value, rising, low),
        (falling, value, low),
        (low, value, rising),
        (low, falling, value),
        (rising, low, value),
        (value, low, falling),
    )[int(sector)]


class MaterialTable:
    """Surfaces by index; a surface that was asked for before gets the same index."""

    def __init__(self) -> None:
        self._index: dict[tuple[float, float, float, int, float], int] = {}

    def add(self, rgb: Rgb, tile: str = "plain", repeat: float = 1.0) -> int:
        """Return the index of a surface, entering it if it is new."""
        key = (
            round(min(rgb[0], 1.0), 3),
            round(min(rgb[1], 1.0), 3),
            round(min(rgb[2], 1.0), 3),
            tile_index(tile),
            round(repeat, 3),
        )
        return self._index.setdefault(key, len(self._index))

    def emblem(self, tile: str, rgb: Rgb = (1.0, 1.0, 1.0)) -> int:
        """Return the index of a tile that is stretched over the whole face."""
        return self.add(rgb, tile, 0.0)

    def pack(self) -> Materials:
        """Return the table in the form that scenes hold."""
        rows = np.array(list(self._index), np.float64).reshape(-1, 5)
        return Materials(
            rgb_M3=rows[:, :3].astype(np.float32),
            tile_M=rows[:, 3].astype(np.int16),
            repeat_M=rows[:, 4].astype(np.float32),
        )


class Palette:
    """Draws the surfaces of a house; furniture of one house shares woods and fabrics."""

    def __init__(self, draws: Draws, split_code: int) -> None:
        self.table = MaterialTable()
        self._draws = draws
        self._code = split_code
        first, second = draws.shuffled(_WOODS)[:2]
        self._wood_rgb = (self._jitter(first), self._jitter(second))
        self._fabric_rgb = tuple(self._fabric() for _ in range(4))
        self.white = self.table.add((0.95, 0.95, 0.94))
        self.black = self.table.add((0.08, 0.08, 0.09))
        self.steel = self.table.add((0.62, 0.64, 0.67))
        self.brass = self.table.add((0.8, 0.63, 0.25))
        self.trim = self.table.add(hsv(self.hue(30, 50), 0.08, draws.uniform(0.88, 0.98)))
        self.front_rgb = hsv(self.hue(0, 357), draws.uniform(0.05, 0.5), draws.uniform(0.6, 0.95))
        self.stone = self.table.add(
            hsv(self.hue(0, 60), 0.08, draws.uniform(0.3, 0.9)),
            draws.choice(("marble", "terrazzo", "concrete")),
            0.8,
        )

    def hue(self, low: int, high: int) -> int:
        """Draw a hue in degrees that belongs to the house's split."""
        return 3 * self._draws.integer(low // 3, high // 3) + self._code

    def _jitter(self, colour: tuple[int, float, float]) -> Rgb:
        hue, saturation, value = colour
        return hsv(self.hue(hue - 4, hue + 4), saturation, value * self._draws.uniform(0.9, 1.1))

    def _fabric(self) -> Rgb:
        saturation = self._draws.uniform(*_FABRIC_SATURATION)
        return hsv(self.hue(0, 357), saturation, self._draws.uniform(*_FABRIC_VALUE))

    def wood_rgb(self) -> Rgb:
        """Draw one of the house's two woods, the first more often."""
        return self._wood_rgb[0] if self._draws.chance(0.65) else self._wood_rgb[1]

    def wood(self) -> int:
        """Return a plain wooden surface."""
        return self.table.add(self.wood_rgb(), "wood", 0.9)

    def front(self, tile: str) -> int:
        """Return a painted kitchen or bathroom front that shows an emblem once."""
        return self.table.emblem(tile, self.front_rgb)

    def fabric_rgb(self) -> Rgb:
        """Draw one of the house's fabrics."""
        return self._draws.choice(self._fabric_rgb)

    def vivid(self, tile: str = "plain", repeat: float = 1.0) -> int:
        """Draw a strong colour."""
        rgb = hsv(self.hue(0, 357), self._draws.uniform(0.6, 0.9), self._draws.uniform(0.7, 0.95))
        return self.table.add(rgb, tile, repeat)

    def pick(self, names: tuple[str, ...]) -> str:
        """Draw one of several tile names."""
        return self._draws.choice(names)

    def leaf(self) -> int:
        """Draw a foliage surface."""
        rgb = hsv(self.hue(84, 140), self._draws.uniform(0.5, 0.8), self._draws.uniform(0.4, 0.75))
        return self.table.add(rgb, "leaves", 0.4)

    def wall(self, kind: str) -> int:
        """Draw a wallpaper for a kind of room."""
        return self._surface(WALL_STYLES[kind])

    def floor(self, kind: str) -> int:
        """Draw a floor for a kind of room."""
        return self._surface(self._draws.choice(FLOOR_STYLES[kind]))

    def _surface(self, style: Style) -> int:
        draws = self._draws
        rgb = hsv(
            self.hue(*draws.choice(style.hues)),
            draws.uniform(*style.saturation),
            draws.uniform(*style.value),
        )
        return self.table.add(rgb, *draws.choice(style.tiles))

    def ceiling(self) -> int:
        """Draw a nearly white ceiling."""
        return self.table.add(hsv(self.hue(0, 357), 0.03, self._draws.uniform(0.93, 1.0)))
