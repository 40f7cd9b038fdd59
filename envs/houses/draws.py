"""Cheap reproducible random draws for the generator.

One block of Philox doubles is made at a time and handed out as Python floats: a scalar draw from
a NumPy generator costs ten times as much, and a house takes hundreds. Only uniform doubles are
taken from NumPy, whose stream is the same on every machine and in every version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK: Final = 512


class Draws:
    """A stream of random numbers that is a pure function of its key."""

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        self._block: list[float] = []

    def unit(self) -> float:
        """Draw from [0, 1)."""
        if not self._block:
            self._block = self._generator.random(_BLOCK).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """Draw from [low, high)."""
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.unit() < probability

    def integer(self, low: int, high: int) -> int:
        """Draw a whole number from low to high, both included."""
        return low + int((high - low + 1) * self.unit())

    def choice(self, items: Sequence[T]) -> T:
        """Draw one item, all alike."""
        return items[int(len(items) * self.unit())]

    def weighted(self, weights: Sequence[float]) -> int:
        """Draw an index with probability proportional to its weight."""
        point = self.unit() * sum(weights)
        for index, weight in enumerate(weights):
            point -= weight
            if point < 0.0:
                return index
        return len(weights) - 1

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in a random order."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = int((last + 1) * self.unit())
            result[last], result[other] = result[other], result[last]
        return result
