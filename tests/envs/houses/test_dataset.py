"""What numbers of houses, arrangements and trials mean."""

from __future__ import annotations

import numpy as np
import pytest

from envs.houses.dataset import DEFAULT_SCALE, HouseDataset
from envs.houses.generation.generator import SPLITS, split_of
from envs.houses.scene import GENERATOR_VERSION


@pytest.mark.parametrize("size", ["small", "medium", "large"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_name_says_version_size_scale_and_split(split: str, size: str) -> None:
    dataset = HouseDataset(split, size)
    scale = DEFAULT_SCALE[size]
    assert dataset.name == f"relic-houses-v{GENERATOR_VERSION}/{size}-{scale}/{split}"
    assert HouseDataset(split, size, scale="real").name.endswith(f"{size}-real/{split}")
    assert dataset.name in repr(dataset)


def test_splits_number_disjoint_houses() -> None:
    seeds = {
        split: {HouseDataset(split, "small").house_seed(i) for i in range(1000)} for split in SPLITS
    }
    for split, own in seeds.items():
        assert len(own) == 1000
        assert {split_of(seed) for seed in own} == {split}
    last = HouseDataset("train", "small").house_seed(2**20 - 1)
    assert split_of(last) == "train"


def test_datasets_know_their_houses() -> None:
    for split in SPLITS:
        dataset = HouseDataset(split, "small")
        own = [dataset.house_seed(index) for index in (0, 1, 999, dataset.num_houses - 1)]
        assert all(dataset.has_house(seed) for seed in own)
        assert not dataset.has_house(own[-1] + len(SPLITS))
        others = (HouseDataset(other, "small") for other in SPLITS if other != split)
        assert not any(other.has_house(seed) for other in others for seed in own)
    chosen = HouseDataset("val", "small", houses=[4, 10])
    assert [seed for seed in range(12) if chosen.has_house(seed)] == [4, 10]


def test_counts() -> None:
    assert HouseDataset("train", "small").num_houses == 2**20
    assert HouseDataset("val", "medium").num_houses == 1000
    assert HouseDataset("test", "large").num_trials == 9000
    chosen = HouseDataset("val", "small", houses=[4, 10])
    assert chosen.num_houses == 2
    assert [chosen.house_seed(i) for i in range(2)] == [4, 10]


def test_explicit_houses_change_the_name_by_their_seeds() -> None:
    names = {
        HouseDataset("val", "small", houses=houses).name
        for houses in (None, [1], [4], [1, 4], [4, 1])
    }
    assert len(names) == 5
    assert HouseDataset("val", "small", houses=np.array([1, 4])).name in names


@pytest.mark.parametrize("trial", [0, 1, 999, 1000, 8999])
def test_trials_go_through_houses_first(trial: int) -> None:
    house, arrangement = HouseDataset("val", "small").locate(trial)
    assert trial == house + 1000 * arrangement
    assert 0 <= house < 1000


def test_scenes_are_the_same_whatever_was_asked_before() -> None:
    one, other = HouseDataset("val", "small", cache=1), HouseDataset("val", "small")
    for house, arrangement in ((3, 0), (5, 2), (3, 1), (3, 0)):
        a, b = one.scene(house, arrangement), other.scene(house, arrangement)
        assert a.objects == b.objects
        assert a.house.furniture == b.house.furniture
        np.testing.assert_array_equal(a.primitives.center_P3, b.primitives.center_P3)
    assert other.house(3) is other.house(3)


def test_least_recently_used_houses_go_first() -> None:
    dataset = HouseDataset("val", "small", cache=2)
    first, second = dataset.house(0), dataset.house(1)
    assert dataset.house(0) is first
    dataset.house(2)  # pushes out house 1
    assert dataset.house(0) is first
    assert dataset.house(1) is not second


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("vall", "small"), {}, "split must be one of .* got 'vall'. Did you mean 'val'"),
        (("val", "sma11"), {}, "size must be one of .* got 'sma11'. Did you mean 'small'"),
        (("val", "small"), {"scale": "readabl3"}, "Did you mean 'readable'"),
        (("val", "small"), {"houses": []}, "must name at least one house seed"),
        (("val", "small"), {"houses": [3, -1]}, r"houses must lie in \[0, 2\*\*62\), got -1"),
        (("val", "small"), {"cache": 0}, "cache must be at least 1, got 0"),
    ],
)
def test_bad_datasets_are_named(arguments, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        HouseDataset(*arguments, **options)


@pytest.mark.parametrize("houses", [[1.5], ["1"], "12", 7, [True]])
def test_houses_must_be_integers(houses) -> None:
    with pytest.raises(TypeError, match="HouseDataset: houses must be"):
        HouseDataset("val", "small", houses=houses)


def test_bad_numbers_are_named() -> None:
    dataset = HouseDataset("val", "small")
    with pytest.raises(ValueError, match=r"index must lie in \[0, 1000\), got 1000"):
        dataset.house_seed(1000)
    with pytest.raises(ValueError, match="trial must not be negative, got -1"):
        dataset.locate(-1)
