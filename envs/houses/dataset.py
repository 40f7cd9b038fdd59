"""Houses and arrangements by split and number: the meaning of a trial number.

A dataset is named after all that its numbers depend on: the generator's version, the size of the
houses, the scale of the objects and the split.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from envs.core.validation import unknown_name
from envs.houses.generation.arrangement import arrange, check_scale
from envs.houses.generation.generator import (
    SPLITS,
    check_seed,
    check_size,
    generate_house,
    split_of,
)
from envs.houses.navigation.grid import NavGrid, build_grid
from envs.houses.scene import GENERATOR_VERSION, House, Scene

DEFAULT_SCALE: Final = {"small": "readable", "medium": "real", "large": "real"}

NUM_HOUSES: Final = {"train": 2**20, "val": 1000, "test": 1000}
NUM_ARRANGEMENTS: Final = {"train": 1024, "val": 9, "test": 9}
"""How many arrangements of each house are numbered as trials; the paper has 9."""


class HouseDataset:
    """The houses of one split, size and scale, made when they are asked for."""

    def __init__(
        self,
        split: str,
        size: str,
        *,
        scale: str | None = None,
        houses: Sequence[int] | None = None,
        cache: int = 16,
    ) -> None:
        """Describe a dataset; nothing is generated yet.

        Args:
            split: "train", "val" or "test".
            size: "small", "medium" or "large".
            scale: "readable" or "real"; by default that of the size.
            houses: house seeds that replace the split's own list.
            cache: how many houses are kept in memory; the least recently used goes first.

        Raises:
            ValueError: A name, a house seed or the cache's size is not valid.
            TypeError: A house seed is not an integer.
        """
        if split not in SPLITS:
            raise unknown_name("HouseDataset", "split", split, SPLITS)
        check_size(size, "HouseDataset")
        self.split = split
        self.size = size
        self.scale = DEFAULT_SCALE[size] if scale is None else scale
        check_scale(self.scale, "HouseDataset")
        if cache < 1:
            raise ValueError(f"HouseDataset: cache must be at least 1, got {cache}. Use 16.")
        self.houses = None if houses is None else _checked_seeds(houses)
        self.num_houses = NUM_HOUSES[split] if self.houses is None else len(self.houses)
        self.num_arrangements = NUM_ARRANGEMENTS[split]
        self._cache = cache
        self._kept: OrderedDict[int, tuple[House, NavGrid]] = OrderedDict()

    def __repr__(self) -> str:
        return f"HouseDataset({self.name!r})"

    @property
    def name(self) -> str:
        """The name of the dataset, which changes with the meaning of its numbers."""
        base = f"relic-houses-v{GENERATOR_VERSION}/{self.size}-{self.scale}/{self.split}"
        if self.houses is None:
            return base
        digest = hashlib.sha256(repr(self.houses).encode()).hexdigest()[:12]
        return f"{base}-houses-{digest}"

    @property
    def num_trials(self) -> int:
        """How many trials are numbered."""
        return self.num_houses * self.num_arrangements

    def house_seed(self, index: int) -> int:
        """Return the seed of a house of the dataset."""
        if not 0 <= index < self.num_houses:
            raise ValueError(
                f"HouseDataset.house_seed: index must lie in [0, {self.num_houses}), got {index}. "
                f"{self.name} has {self.num_houses} houses."
            )
        if self.houses is not None:
            return self.houses[index]
        return len(SPLITS) * int(index) + SPLITS.index(self.split)

    def has_house(self, seed: int) -> bool:
        """Say whether the house of a seed is one of the dataset's."""
        if self.houses is not None:
            return seed in self.houses
        return split_of(seed) == self.split and seed // len(SPLITS) < self.num_houses

    def locate(self, trial: int) -> tuple[int, int]:
        """Return the house index and the arrangement index of a trial."""
        if trial < 0:
            raise ValueError(
                f"HouseDataset.locate: trial must not be negative, got {trial}. "
                f"{self.name} numbers them from 0 to {self.num_trials - 1}."
            )
        return int(trial % self.num_houses), int(trial // self.num_houses)

    def house(self, index: int) -> House:
        """Return a house."""
        return self._house_and_grid(index)[0]

    def grid(self, index: int) -> NavGrid:
        """Return the free space of a house."""
        return self._house_and_grid(index)[1]

    def scene(self, house_index: int, arrangement_index: int) -> Scene:
        """Return a house with one arrangement of goal objects."""
        house, grid = self._house_and_grid(house_index)
        return arrange(house, arrangement_index, scale=self.scale, grid=grid)

    def _house_and_grid(self, index: int) -> tuple[House, NavGrid]:
        """Return a house and its free space, made now unless they are kept."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        house = generate_house(self.house_seed(index), self.size)
        made = self._kept[index] = house, build_grid(house)
        if len(self._kept) > self._cache:
            self._kept.popitem(last=False)
        return made


def _checked_seeds(houses: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds of houses as ints, so that equal lists name one dataset."""
    if isinstance(houses, str) or not isinstance(houses, Iterable):
        raise TypeError(f"HouseDataset: houses must be a list of house seeds, got {houses!r}.")
    seeds = tuple(houses)
    if not seeds:
        raise ValueError("HouseDataset: houses must name at least one house seed, got none.")
    for seed in seeds:
        check_seed(seed, "HouseDataset: houses")
    return tuple(int(seed) for seed in seeds)
