import numpy as np
import pytest

from relic.ppo.update_batch import RowSampler


def sampler(**changes):
    sizes = {"num_envs": 12, "rank": 0, "world_size": 1, "num_minibatches": 3}
    return RowSampler(seed=5, **(sizes | changes))


def test_minibatches_share_out_the_rows():
    batches = sampler().minibatches(0, 0, 1.0)
    assert [len(b) for b in batches] == [4, 4, 4]
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(12))


def test_every_update_and_epoch_draws_anew():
    draws = {
        (update, epoch): tuple(np.concatenate(sampler().minibatches(update, epoch, 1.0)))
        for update in range(4)
        for epoch in range(4)
    }
    assert len(set(draws.values())) == 16


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_draws_the_same_minibatches(ranks, fraction):
    sizes = {"num_envs": 48, "num_minibatches": 3}
    whole = sampler(**sizes).minibatches(7, 1, fraction)
    sizes |= {"num_envs": 48 // ranks, "world_size": ranks}
    parts = [sampler(**sizes, rank=rank).minibatches(7, 1, fraction) for rank in range(ranks)]
    for batch, *of_ranks in zip(whole, *parts, strict=True):
        own = [rows + rank * 48 // ranks for rank, rows in enumerate(of_ranks)]
        assert len({len(rows) for rows in own}) == 1
        np.testing.assert_array_equal(batch, np.concatenate(own))


def test_a_fraction_that_divides_badly_still_uses_that_many_rows():
    # 3 rows of each minibatch, which 32 rows cannot be cut into strata for.
    batches = sampler(num_envs=32, num_minibatches=8).minibatches(0, 0, 0.75)
    assert [len(b) for b in batches] == [3] * 8
    assert len(set(np.concatenate(batches))) == 24


def test_a_fraction_is_the_same_in_all_epochs():
    epochs = [np.concatenate(sampler().minibatches(3, e, 0.5)) for e in range(3)]
    assert [len(e) for e in epochs] == [6, 6, 6]
    assert {tuple(np.sort(e)) for e in epochs} == {tuple(np.sort(epochs[0]))}
    assert set(epochs[0]) != set(np.concatenate(sampler().minibatches(4, 0, 0.5)))


@pytest.mark.parametrize("limit", [1, 2, 5, 7])
def test_microbatches_keep_groups_apart(training, limit):
    built = training(num_envs=10, groups=2, num_steps=40)
    built.collector.begin_rollout()
    built.collector.collect(10)
    update = built.learner.prepare(
        built.rollout,
        built.learner.schedule.table[0],
        groups=built.collector.groups,
        bootstrap_N=built.collector.bootstrap_value(),
        env_steps=100,
    )
    rows = np.array([7, 0, 3, 9, 1, 5, 8])
    pieces = list(update.microbatches(rows, limit))
    for group, piece in pieces:
        assert 0 < len(piece) <= limit
        assert ((piece >= group.rows.start) & (piece < group.rows.stop)).all()
        assert ((group.index(piece) >= 0) & (group.index(piece) < 5)).all()
    assert sorted(np.concatenate([piece for _, piece in pieces])) == sorted(rows)
    built.collector.close()
