"""The categories of furniture and how a piece of each is made.

Pieces are made in frames of their own; `generation/rooms.py` decides which ones a room gets.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Final

from envs.core.validation import unknown_name
from envs.houses.draws import Draws
from envs.houses.furniture import household, living
from envs.houses.furniture.piece import Piece
from envs.houses.scene import FURNITURE_SEMANTIC, Semantic
from envs.houses.textures.palette import Palette
from envs.objectnav.goals import GOAL_CATEGORIES, GOAL_SEMANTIC

FURNITURE_CATEGORIES: Final[tuple[str, ...]] = (
    "bed",
    "sofa",
    "armchair",
    "coffee_table",
    "table",
    "chair",
    "stool",
    "bench",
    "desk",
    "office_chair",
    "piano",
    "nightstand",
    "dresser",
    "wardrobe",
    "bookshelf",
    "sideboard",
    "tv_stand",
    "console",
    "toy_box",
    "basket",
    "trash_bin",
    "coat_rack",
    "counter",
    "sink",
    "stove",
    "fridge",
    "washing_machine",
    "toilet",
    "bathtub",
    "shower",
    "lamp",
    "plant",
    "rug",
    "fireplace",
    "radiator",
    "window",
    "curtain",
    "picture",
    "clock",
    "wall_shelf",
    "mirror",
    "towel",
    "cabinet",
    "hood",
    "tv",
    "computer",
)
"""Names by index; a piece's semantic id is `FURNITURE_SEMANTIC` plus the index."""

CATEGORY_INDEX: Final = {name: index for index, name in enumerate(FURNITURE_CATEGORIES)}

SEMANTIC_NAMES: Final[dict[int, str]] = {
    **{int(semantic): semantic.name.lower() for semantic in Semantic},
    **{FURNITURE_SEMANTIC + i: name for i, name in enumerate(FURNITURE_CATEGORIES)},
    **{GOAL_SEMANTIC + i: name for i, name in enumerate(GOAL_CATEGORIES)},
}
"""What every semantic id stands for."""

_MAKERS: Final[dict[str, Callable[[Draws, Palette], Piece]]] = {
    name: maker
    for module in (living, household)
    for name, maker in inspect.getmembers(module, inspect.isfunction)
    if maker.__module__ == module.__name__ and not name.startswith("_")
}
"""Every public function of the two modules makes a piece."""


def make(name: str, draws: Draws, palette: Palette) -> Piece:
    """Make a piece by name; a category may have pieces of several names.

    Raises:
        ValueError: There is no piece of this name.
    """
    if name not in _MAKERS:
        raise unknown_name("catalogue.make", "name", name, _MAKERS)
    return _MAKERS[name](draws, palette)
