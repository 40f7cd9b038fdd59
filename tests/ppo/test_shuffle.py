from collections import Counter

import numpy as np
import pytest

from relic.ppo.rollout import shuffle_episodes, time_order


def episodes(order, starts):
    """Split a context into its episodes, each a tuple of time steps."""
    found = []
    for position, t in enumerate(order):
        if position == 0 or starts[t]:
            found.append([])
        found[-1].append(int(t))
    return [tuple(e) for e in found]


def random_starts(rng, num_rows, num_steps):
    starts = rng.random((num_rows, num_steps)) < 0.2
    starts[:, 0] = True
    return starts


def shuffle(order, starts, ended, *, rows=None, draw=0, seed=1):
    rows = np.arange(len(order)) if rows is None else rows
    order = order.copy()
    shuffle_episodes(order, starts, ended, seed=seed, global_row_N=rows, draw=draw)
    return order


def test_episodes_stay_whole_and_the_running_one_in_place():
    rng = np.random.default_rng(0)
    starts = random_starts(rng, 8, 60)
    ended = np.arange(8) % 2 == 0
    order = time_order(8, 60)
    for draw in range(5):
        new = shuffle(order, starts, ended, draw=draw)
        for n in range(8):
            before, after = episodes(order[n], starts[n]), episodes(new[n], starts[n])
            assert Counter(before) == Counter(after)
            if not ended[n]:
                assert after[-1] == before[-1]
        assert (new != order).any()
        order = new


def test_all_orders_come_up_equally_often():
    starts = np.zeros((1, 9), bool)
    starts[0, [0, 2, 5]] = True
    order = time_order(1, 9)
    counts = Counter(
        tuple(shuffle(order, starts, np.array([True]), draw=d)[0].tolist()) for d in range(6000)
    )
    assert len(counts) == 6
    # Binomial(6000, 1/6) has a standard deviation of 29; six of them stay within 5 sigma.
    assert max(abs(c - 1000) for c in counts.values()) < 145


def test_a_row_depends_on_its_global_number_alone():
    rng = np.random.default_rng(1)
    starts = random_starts(rng, 6, 40)
    ended = np.zeros(6, bool)
    whole = shuffle(time_order(6, 40), starts, ended)
    part = shuffle(time_order(2, 40), starts[3:5], ended[3:5], rows=np.array([3, 4]))
    np.testing.assert_array_equal(whole[3:5], part)


def test_a_prefix_of_the_rollout_may_be_shuffled():
    starts = random_starts(np.random.default_rng(2), 3, 50)
    order = time_order(3, 50)
    shuffle_episodes(
        order[:, :20], starts, np.zeros(3, bool), seed=1, global_row_N=np.arange(3), draw=0
    )
    assert (order[:, :20] != time_order(3, 20)).any()
    np.testing.assert_array_equal(np.sort(order[:, :20], axis=1), time_order(3, 20))
    np.testing.assert_array_equal(order[:, 20:], time_order(3, 50)[:, 20:])


@pytest.mark.parametrize("ended", [False, True])
def test_one_episode_stays(ended):
    starts = np.zeros((2, 10), bool)
    new = shuffle(time_order(2, 10), starts, np.full(2, ended))
    np.testing.assert_array_equal(new, time_order(2, 10))


def test_two_completed_episodes_can_swap_when_none_runs():
    starts = np.zeros((1, 4), bool)
    starts[0, [0, 2]] = True
    seen = {
        tuple(shuffle(time_order(1, 4), starts, np.array([True]), draw=d)[0].tolist())
        for d in range(20)
    }
    assert seen == {(0, 1, 2, 3), (2, 3, 0, 1)}
