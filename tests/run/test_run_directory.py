import pytest

from relic.run.compose import compose
from relic.run.run_directory import CheckpointStore, RunDirectory
from relic.schema import ConfigError


def writer(text):
    def write(path):
        (path / "content").write_text(text)

    return write


def names(store):
    return [s.env_steps for s in store.all()]


def test_the_latest_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for step in (10, 20, 30):
        store.save(step, writer(str(step)))
    assert names(store) == [20, 30]
    assert (store.latest().path / "content").read_text() == "30"


def test_best_and_milestones_outlive_newer_ones(tmp_path):
    store = CheckpointStore(tmp_path, keep=1, milestone_steps=100, metric="val/return")
    store.save(10, writer("best"), score=0.9)
    for step in (90, 110, 150, 210, 250):
        store.save(step, writer(str(step)), score=0.5)
    assert names(store) == [10, 110, 210, 250]
    assert store.best().env_steps == 10
    assert store.best_score() == 0.9


def test_a_better_score_replaces_the_best_and_an_equal_one_does_not(tmp_path):
    store = CheckpointStore(tmp_path, keep=1, metric="val/return")
    for step, score in ((1, 0.1), (2, 0.3), (3, 0.2), (4, 0.3), (5, None)):
        store.save(step, writer(""), score=score)
    assert store.best().env_steps == 2
    assert names(store) == [2, 5]


def test_scores_of_another_metric_are_not_compared(tmp_path):
    CheckpointStore(tmp_path, metric="val/return").save(1, writer(""), score=7.0)
    store = CheckpointStore(tmp_path, metric="val/success")
    store.save(2, writer(""), score=0.3)
    assert store.best().env_steps == 2


def test_the_best_of_an_older_version_has_its_score_in_the_pointer(tmp_path):
    old = CheckpointStore(tmp_path, keep=1)
    old.save(1, writer(""))
    (tmp_path / "best.json").write_text('{"name": "step_000000000001", "score": 0.8}')
    store = CheckpointStore(tmp_path, keep=1, metric="val/return")
    store.save(2, writer(""), score=0.5)
    assert (store.best().env_steps, names(store)) == (1, [1, 2])
    store.save(3, writer(""), score=0.9)
    assert (store.best().env_steps, names(store)) == (3, [3])


def test_a_best_that_is_dropped_gives_way_to_the_one_before_it(tmp_path):
    store = CheckpointStore(tmp_path, keep=3, metric="val/return")
    for step, score in ((1, 0.2), (2, 0.1), (3, 0.9)):
        store.save(step, writer(""), score=score)
    store.drop_after(2)
    assert store.best().env_steps == 1


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_previous_one(tmp_path, error):
    store = CheckpointStore(tmp_path)
    store.save(1, writer("good"))

    def fail(path):
        (path / "content").write_text("half")
        raise error

    with pytest.raises(type(error)):
        store.save(2, fail)
    assert store.latest().env_steps == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest.json", "step_000000000001"]


def test_what_a_killed_save_left_is_cleared(tmp_path):
    (tmp_path / "step_000000000005.unfinished").mkdir(parents=True)
    store = CheckpointStore(tmp_path)
    assert store.latest() is None
    assert list(tmp_path.iterdir())  # a reader leaves alone what may be being written
    store.tidy(0)
    assert list(tmp_path.iterdir()) == []


def test_without_a_readable_pointer_the_newest_is_the_latest(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(step, writer(""))
    (tmp_path / "latest.json").write_text("")
    assert CheckpointStore(tmp_path).latest().env_steps == 2


def test_checkpoints_beyond_a_resumed_step_go(tmp_path):
    store = CheckpointStore(tmp_path, keep=3)
    for step in (1, 2, 3):
        store.save(step, writer(""))
    store.drop_after(2)
    assert names(store) == [1, 2]


def test_a_replayed_step_replaces_its_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, writer("old"))
    store.save(1, writer("new"))
    assert (store.latest().path / "content").read_text() == "new"


def test_what_no_memory_reads_makes_no_other_run(tmp_path):
    """Else an experiment that names sizes of a new memory could not go on with its older runs."""
    base = {"experiment": "darkroom", "policy.memory": "gru", "run_dir": str(tmp_path / "run")}
    directory = RunDirectory(tmp_path / "run")
    directory.open(compose(base))
    directory.open(compose({**base, "policy.min_gru.width": 24}))
    with pytest.raises(ConfigError, match=r"policy\.recurrent\.width: 128 -> 24"):
        directory.open(compose({**base, "policy.recurrent.width": 24}))
