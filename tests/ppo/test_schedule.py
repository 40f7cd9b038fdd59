import pytest

from relic.ppo.schedule import PrefixGradient, UpdateKind, UpdateSchedule


def table(schedule):
    return [(u.at_step, u.loss_from, u.kind.value, u.last) for u in schedule.table]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((512, 1, 1), [(512, 0, "full", True)]),
        (
            (512, 4, 1),
            [
                (128, 0, "partial", False),
                (256, 128, "partial", False),
                (384, 256, "partial", False),
                (512, 0, "full", True),
            ],
        ),
        (
            (8, 4, 2),
            [
                (2, 0, "partial", False),
                (4, 0, "full", False),
                (6, 4, "partial", False),
                (8, 0, "full", True),
            ],
        ),
        ((6, 2, 0), [(3, 0, "partial", False), (6, 3, "partial", True)]),
    ],
)
def test_the_table(numbers, expected):
    num_steps, per_rollout, full = numbers
    schedule = UpdateSchedule(num_steps, per_rollout=per_rollout, full_per_rollout=full)
    assert table(schedule) == expected
    assert [u.index for u in schedule.table] == list(range(per_rollout))


def test_a_loss_on_several_chunks_begins_earlier():
    schedule = UpdateSchedule(10, per_rollout=5, loss_chunks=3)
    assert [u.loss_from for u in schedule.table] == [0, 0, 0, 2, 0]
    assert [u.chunk_from for u in schedule.table] == [0, 2, 4, 6, 8]


def test_every_step_counts_in_one_partial_update_or_in_the_full_one():
    schedule = UpdateSchedule(4096, per_rollout=16)
    partial = [u for u in schedule.table if u.kind is UpdateKind.PARTIAL]
    covered = [t for u in partial for t in range(u.loss_from, u.at_step)]
    assert covered == list(range(4096 - 256))
    assert schedule.table[-1].loss_from == 0


def test_remaining_updates():
    schedule = UpdateSchedule(8, per_rollout=4)
    assert [u.at_step for u in schedule.remaining(0)] == [2, 4, 6, 8]
    assert [u.at_step for u in schedule.remaining(4)] == [6, 8]
    assert [u.at_step for u in schedule.remaining(5)] == [6, 8]
    assert schedule.remaining(8) == ()


def test_cost_of_the_prefix():
    def tokens(**prefix):
        schedule = UpdateSchedule(4096, per_rollout=16, **prefix)
        return sum(u.at_step - u.begin for u in schedule.table)

    # T (U + 1) / 2 tokens with the whole prefix: 8.5 T at T = 4096, U = 16.
    assert tokens(prefix_gradient=PrefixGradient.FULL) == 34_816
    assert tokens(prefix_gradient=PrefixGradient.DETACHED) == 15 * 256 + 4096
    assert tokens(prefix_window=100) == 15 * 256 + 4096 + 14 * 100


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            (512, 3, 1),
            r"updates\.per_rollout: must divide num_steps, got per_rollout=3.*Use 1, 2, ",
        ),
        ((512, 0, 1), r"updates\.per_rollout: must divide num_steps, got per_rollout=0"),
        ((512, 4, 3), r"full_per_rollout: must divide updates\.per_rollout, got full.*=3"),
        ((512, 4, -1), r"full_per_rollout: must divide"),
    ],
)
def test_what_does_not_divide_is_refused(numbers, message):
    num_steps, per_rollout, full = numbers
    with pytest.raises(ValueError, match=message):
        UpdateSchedule(num_steps, per_rollout=per_rollout, full_per_rollout=full)
