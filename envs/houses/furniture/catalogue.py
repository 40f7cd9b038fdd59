"""The categories of furniture and how a piece of each is made.

A piece is a `Model` in its own frame; `rooms.py` decides which pieces a room gets and where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from envs.core.validation import unknown_name
from envs.houses.furniture import household as pieces_storage
from envs.houses.furniture import household as pieces_wet
from envs.houses.furniture import living as pieces_decor
from envs.houses.furniture import living as pieces_rest
from envs.houses.scene import FURNITURE_SEMANTIC, GOAL_CATEGORIES, GOAL_SEMANTIC, Semantic

if TYPE_CHECKING:
    from collections.abc import Callable

    from envs.houses.draws import Draws
    from envs.houses.furniture.piece import Model
    from envs.houses.textures.palette import Palette

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

_MAKERS: Final[dict[str, Callable[[Draws, Palette], Model]]] = {
    maker.__name__: maker
    for maker in (
        pieces_rest.bed,
        pieces_rest.sofa,
        pieces_rest.armchair,
        pieces_rest.coffee_table,
        pieces_rest.table,
        pieces_rest.chair,
        pieces_rest.stool,
        pieces_rest.bench,
        pieces_rest.desk,
        pieces_rest.office_chair,
        pieces_rest.piano,
        pieces_storage.nightstand,
        pieces_storage.dresser,
        pieces_storage.wardrobe,
        pieces_storage.bookshelf,
        pieces_storage.sideboard,
        pieces_storage.tv_stand,
        pieces_storage.console,
        pieces_storage.toy_box,
        pieces_storage.basket,
        pieces_storage.trash_bin,
        pieces_storage.coat_rack,
        pieces_wet.counter,
        pieces_wet.kitchen_sink,
        pieces_wet.vanity,
        pieces_wet.stove,
        pieces_wet.fridge,
        pieces_wet.washing_machine,
        pieces_wet.toilet,
        pieces_wet.bathtub,
        pieces_wet.shower,
        pieces_wet.towel_rail,
        pieces_decor.floor_lamp,
        pieces_decor.plant,
        pieces_decor.rug,
        pieces_decor.fireplace,
        pieces_decor.radiator,
        pieces_decor.window,
        pieces_decor.picture,
        pieces_decor.clock,
        pieces_decor.wall_shelf,
        pieces_decor.standing_mirror,
    )
}


def make(name: str, draws: Draws, palette: Palette) -> Model:
    """Make a piece by the name of its model, which may be one of several of a category.

    Raises:
        ValueError: There is no such model.
    """
    if name not in _MAKERS:
        raise unknown_name("furniture.make", "model", name, _MAKERS)
    return _MAKERS[name](draws, palette)


def semantic_name(semantic: int) -> str:
    """Name what a semantic id stands for.

    Raises:
        ValueError: No surface has this id.
    """
    if semantic in Semantic._value2member_map_:
        return Semantic(semantic).name.lower()
    for first, names in (
        (FURNITURE_SEMANTIC, FURNITURE_CATEGORIES),
        (GOAL_SEMANTIC, GOAL_CATEGORIES),
    ):
        if first <= semantic < first + len(names):
            return names[semantic - first]
    raise ValueError(
        f"furniture.semantic_name: semantic must be an id of a wall, floor, ceiling, furniture or "
        f"goal category, got {semantic}. Ids are listed in scene.py and FURNITURE_CATEGORIES."
    )
