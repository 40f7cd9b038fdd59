"""Random numbers that depend on named integers alone: which trial comes next, what is in it.

Nothing here keeps a state, so nothing needs to be saved, and what one row draws cannot depend on
another row. The bits are pinned by tests: they are part of what a seed means.

Shape suffix: N rows.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_MASK: Final = 0xFFFFFFFFFFFFFFFF


def mix(words: Any) -> Any:
    """Scramble 64-bit words: the finaliser of SplitMix64 (Steele et al., 2014).

    Serves integers and arrays, and compiles under Numba. Python's integers need the masks, which
    cost the others nothing.
    """
    words = (words + 0x9E3779B97F4A7C15) & _MASK
    words = ((words ^ (words >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    words = ((words ^ (words >> 27)) * 0x94D049BB133111EB) & _MASK
    return words ^ (words >> 31)


def draw_trials(
    seed: int, row_N: NDArray[np.int64], *, count_N: NDArray[np.int64], num_trials: int
) -> NDArray[np.int64]:
    """Draw trial numbers, one per row, from (seed, row, count) alone.

    Args:
        seed: names the sequence.
        row_N: global row numbers.
        count_N: how many numbers each row has drawn before.
        num_trials: numbers are drawn evenly from [0, num_trials), with replacement.

    Returns:
        int64, (N,).
    """
    word_N = np.full(len(row_N), seed % 2**64, dtype=np.uint64)
    # Mixed between the names, so that (seed 0, row 1) and (seed 1, row 0) have nothing in common.
    word_N = mix(mix(word_N) ^ row_N.astype(np.uint64))
    word_N = mix(word_N ^ count_N.astype(np.uint64))
    # 64 bits make the bias of a remainder too small to matter.
    return (word_N % np.uint64(num_trials)).astype(np.int64)


def keyed_generator(*keys: int | str) -> np.random.Generator:
    """Return a fresh generator whose numbers are a pure function of the keys, in order.

    Use it for all that happens inside a trial: `keyed_generator(dataset_name, trial, episode)`.

    Args:
        keys: integers in [0, 2**64), or strings, which are hashed.
    """
    # The count and a fixed width keep apart keys that SeedSequence, which pads with zeros, takes
    # for equal.
    words = [len(keys)]
    for key in keys:
        number = zlib.crc32(key.encode()) if isinstance(key, str) else int(key)
        words += [number % 2**32, number // 2**32]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
