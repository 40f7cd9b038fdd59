"""The goal categories of ExtObjNav: objects of the YCB set, which Habitat ships, too."""

from __future__ import annotations

from typing import Final

YCB_NAMES: Final = (
    "002_master_chef_can",
    "003_cracker_box",
    "004_sugar_box",
    "005_tomato_soup_can",
    "007_tuna_fish_can",
    "008_pudding_box",
    "009_gelatin_box",
    "010_potted_meat_can",
    "011_banana",
    "012_strawberry",
    "013_apple",
    "014_lemon",
    "015_peach",
    "016_pear",
    "017_orange",
    "018_plum",
    "021_bleach_cleanser",
    "024_bowl",
    "025_mug",
    "026_sponge",
)
"""The twenty small objects of ExtObjNav in the paper's order, which is the goal index.

The names of the YCB set's assets begin with these.
"""

GOAL_CATEGORIES: Final = tuple(name.partition("_")[2] for name in YCB_NAMES)
"""The names of the goals by index."""

GOAL_SEMANTIC: Final = 100
"""Semantic id of the first goal category; the category index is added to it."""


def goal_of_asset(name: str) -> int | None:
    """Return the goal index of an asset such as `024_bowl.object_config.json`, if it has one.

    Args:
        name: of an object, its template or an instance of it, with or without a path.
    """
    short = name.rsplit("/", 1)[-1]
    for index, known in enumerate(YCB_NAMES):
        if short.startswith(known) and not short[len(known) :][:1].isalnum():
            return index
    return None
