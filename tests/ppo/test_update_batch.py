import numpy as np
import pytest

from relic.ppo.update_batch import RowSampler


def sampler(**changes):
    sizes = {"num_envs": 12, "shards": 1, "first_shard": 0, "num_minibatches": 3}
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


def test_two_shards_are_two_ranks():
    whole = sampler(shards=2).minibatches(7, 1, 1.0)
    ranks = [sampler(num_envs=6, first_shard=rank).minibatches(7, 1, 1.0) for rank in range(2)]
    for batch, first, second in zip(whole, *ranks, strict=True):
        np.testing.assert_array_equal(batch, np.concatenate([first, second + 6]))


def test_a_fraction_is_the_same_in_all_epochs():
    epochs = [np.concatenate(sampler().minibatches(3, e, 0.5)) for e in range(3)]
    assert [len(e) for e in epochs] == [6, 6, 6]
    assert {tuple(np.sort(e)) for e in epochs} == {tuple(np.sort(epochs[0]))}
    assert set(epochs[0]) != set(np.concatenate(sampler().minibatches(4, 0, 0.5)))


@pytest.mark.parametrize("tokens", [1, 20, 50, None])
def test_microbatches_keep_groups_apart(training, tokens):
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
    pieces = list(update.microbatches(rows, tokens))
    for group, piece in pieces:
        assert 0 < len(piece) <= max((tokens or 1000) // 10, 1)
        assert ((piece >= group.rows.start) & (piece < group.rows.stop)).all()
        assert ((group.index(piece) >= 0) & (group.index(piece) < 5)).all()
    assert sorted(np.concatenate([piece for _, piece in pieces])) == sorted(rows)
    built.collector.close()
