import numpy as np
import pytest

from envs.core import draws
from relic.noise import Stream, key, keyed_permutation, mix, row_uniforms


def test_a_row_draws_alike_whatever_the_rows_beside_it():
    whole = row_uniforms(7, np.arange(16), 123, 3)
    np.testing.assert_array_equal(whole[5:9], row_uniforms(7, np.arange(5, 9), 123, 3))
    np.testing.assert_array_equal(whole[[9, 2]], row_uniforms(7, np.array([9, 2]), 123, 3))
    np.testing.assert_array_equal(whole[:, :1], row_uniforms(7, np.arange(16), 123, 1))


def test_uniforms_are_uniform_and_independent():
    draws = np.stack([row_uniforms(0, np.arange(100), step, 2) for step in range(500)])
    flat = draws.reshape(-1)
    assert flat.dtype == np.float32
    assert flat.min() >= 0.0
    assert flat.max() < 1.0
    histogram, _ = np.histogram(flat, bins=20, range=(0, 1))
    # 100,000 draws in 20 bins: standard deviation 69.
    assert np.abs(histogram - 5000).max() < 5 * 69
    for a, b in [
        (draws[:-1].reshape(-1), draws[1:].reshape(-1)),
        (draws[:, :-1].reshape(-1), draws[:, 1:].reshape(-1)),
        (draws[..., 0].reshape(-1), draws[..., 1].reshape(-1)),
    ]:
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(a))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"step": 1},
        {"stream": Stream.DEMONSTRATION},
    ],
)
def test_each_part_of_the_key_matters(other):
    def draw(seed=0, step=0, stream=Stream.ACTION):
        return row_uniforms(seed, np.arange(4), step, 2, stream=stream)

    assert (draw() != draw(**other)).all()


def test_permutations():
    first = keyed_permutation(50, 1, 2)
    np.testing.assert_array_equal(np.sort(first), np.arange(50))
    np.testing.assert_array_equal(first, keyed_permutation(50, 1, 2))
    assert (first != keyed_permutation(50, 2, 1)).any()


def test_mixing_is_the_same_for_integers_for_arrays_and_compiled():
    # The published SplitMix64 sequence of seed 0 begins with this number.
    assert draws.mix(0) == 0xE220A8397B1DCDAF
    words = [0, 1, 2**63, 2**64 - 1]
    mixed = [draws.mix(word) for word in words]
    assert draws.mix(np.array(words, np.uint64)).tolist() == mixed
    assert [int(mix(np.uint64(word))) for word in words] == mixed


def test_keys_are_pinned():
    assert int(key(7, 3)) == 10262808206126948311
    assert key(1) != key(1, 0)
