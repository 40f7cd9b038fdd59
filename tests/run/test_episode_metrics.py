import numpy as np

from relic.run.distributed import ALONE
from relic.run.metrics import summarise_episodes


def records(index, returns):
    return {"episode": np.array(index), "return": np.array(returns), "length": np.array(index) + 9}


def test_means_are_over_all_episodes_and_by_index():
    count, metrics = summarise_episodes(records([0, 1, 0, 3], [1.0, 5.0, 2.0, 8.0]), ALONE)
    assert count == 4
    assert metrics == {
        "return_mean": 4.0,
        "length_mean": 10.0,
        "return_by_episode": [1.5, 5.0, None, 8.0],
    }


def test_no_episode_has_no_mean():
    assert summarise_episodes({}, ALONE) == (0, {})
