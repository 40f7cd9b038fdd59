import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from relic.evaluation import workers
from relic.evaluation.controls import ContextControl
from relic.evaluation.curves import summarise
from relic.evaluation.evaluator import evaluate
from relic.evaluation.maps import missing_tracks, read_track, track_file
from relic.evaluation.protocol import Protocol
from relic.evaluation.records import (
    Job,
    Record,
    RecordStore,
    count_crashed,
    identity,
    policy_digest,
    read_records,
)
from relic.evaluation.report.page import page
from relic.evaluation.report.text import describe
from relic.evaluation.trained_agent import find_agent
from relic.evaluation.workers import Assignment, OnEpisode, WorkerError, run_jobs
from relic.policy.loading import find_checkpoint, load
from relic.schema import ConfigError
from tests.evaluation.conftest import OPTIONS, small_protocol
from tests.evaluation.test_report import FACTS

KEPT, CLEARED = ContextControl.KEPT, ContextControl.CLEARED
JOBS = [Job(control, block) for control in (KEPT, CLEARED) for block in range(3)]


def small_assignment(run, directory, protocol: Protocol | None = None) -> Assignment:
    protocol = protocol or small_protocol(block=2)

    tracked = (0, 2) if protocol.env.endswith("Darkroom-v0") else ()
    return Assignment(find_agent(run), protocol, directory, tracked=tracked)


def finish(
    assignment: Assignment,
    *,
    workers: int = 1,
    jobs: list[Job] = JOBS,
    on_episode: OnEpisode = lambda _: None,
) -> dict[str, bytes]:
    """Evaluate what is left, merge it and return the bytes of every file."""
    store = RecordStore(assignment.directory, assignment.identity)
    left = [j for j in jobs if not store.is_done(j)]
    run_jobs(assignment, left, workers=workers, on_episode=on_episode)
    for control in {job.control for job in jobs}:
        store.merge(control, assignment.protocol.num_blocks)
    files = [p for p in assignment.directory.rglob("*") if p.is_file()]
    return {str(p.relative_to(assignment.directory)): p.read_bytes() for p in files}


def test_files_hold_what_the_evaluator_says(run, tmp_path):
    assignment = small_assignment(run, tmp_path / "out")
    files = finish(assignment)
    assert read_records(assignment.directory / "records.jsonl") == evaluate(
        load(run), assignment.protocol
    )
    cleared = read_records(assignment.directory / "records_cleared.jsonl")
    assert cleared == evaluate(load(run), assignment.protocol, control=CLEARED)
    assert not [name for name in files if name.endswith((".part", ".tmp"))]
    assert sum(name.startswith("blocks/kept-") for name in files) == 3
    assert sum(name.startswith("tracks/") for name in files) == 2


def test_several_workers_write_the_same_bytes_as_one(run, tmp_path):
    heard = {1: 0, 2: 0}

    def evaluated(workers: int) -> dict[str, bytes]:
        def hear(record: Record) -> None:
            heard[workers] += 1

        assignment = small_assignment(run, tmp_path / str(workers))
        return finish(assignment, workers=workers, on_episode=hear)

    assert evaluated(1) == evaluated(2)
    assert heard == {1: 48, 2: 48}  # two contexts of 3 trials, 2 repeats and 4 episodes


@pytest.mark.parametrize(
    ("cores", "threads", "free", "expected"),
    [(1, 1, 2**40, 1), (2, 1, 2**40, 2), (16, 1, 2**40, 3), (4, 2, 2**40, 2), (16, 1, 2**10, 1)],
)
def test_as_many_workers_as_cores_blocks_and_memory_suffice_for(
    run, tmp_path, monkeypatch, cores, threads, free, expected
):
    assignment = replace(small_assignment(run, tmp_path), threads=threads)
    monkeypatch.setattr(workers, "cores", lambda: cores)
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    assert workers.suitable_workers(assignment, JOBS) == expected
    assert workers.suitable_workers(replace(assignment, device="cuda"), JOBS) == 1


def test_one_worker_leaves_the_callers_threads_alone(run, tmp_path):
    before = torch.get_num_threads()
    assignment = replace(small_assignment(run, tmp_path / "out"), threads=before + 1)
    run_jobs(assignment, JOBS[:1])
    assert torch.get_num_threads() == before


def test_records_are_on_disk_as_they_come(run, tmp_path):
    store = RecordStore(tmp_path / "out", {})
    writing = store.write(JOBS[0], iter([{"episode": 0}, {"episode": 1}]))
    next(writing)
    (part,) = (tmp_path / "out").rglob("*.part")
    assert json.loads(part.read_text()) == {"episode": 0}
    assert not store.is_done(JOBS[0])
    assert list(writing) == [{"episode": 1}]
    assert store.is_done(JOBS[0])
    assert not part.exists()


def test_an_interrupted_evaluation_goes_on_and_ends_alike(run, tmp_path):
    whole = finish(small_assignment(run, tmp_path / "whole"))
    assignment = small_assignment(run, tmp_path / "cut")
    episodes = 0

    def interrupt(record: Record) -> None:
        nonlocal episodes
        episodes += 1
        if episodes == 11:  # in the middle of the second block of eight
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(assignment, JOBS, on_episode=interrupt)
    store = RecordStore(assignment.directory, assignment.identity)
    assert [store.is_done(j) for j in JOBS[:3]] == [True, False, False]
    assert list(assignment.directory.rglob("*.part"))
    assert finish(assignment) == whole


def test_no_jobs_are_no_work(run, tmp_path):
    run_jobs(small_assignment(run, tmp_path), [])


def crashing(**options: object) -> Protocol:
    return small_protocol(
        env="tests.evaluation.crashing:CrashingVectorEnv",
        options={**OPTIONS, "split": "test", **options},
        trials=4,
        repeats=1,
        block=1,
    )


def test_a_crashed_worker_costs_its_block_only(run, tmp_path):
    marker = tmp_path / "crashed"
    assignment = small_assignment(run, tmp_path / "out", crashing(fatal=2, marker=str(marker)))
    jobs = [Job(KEPT, block) for block in range(4)]
    finish(assignment, workers=2, jobs=jobs)
    assert marker.exists()
    whole = evaluate(load(run), replace(crashing(), env="relic/Darkroom-v0"))
    assert read_records(assignment.directory / "records.jsonl") == whole


def test_crashed_episodes_are_counted_where_results_are_read(run):
    protocol = replace(crashing(), env="tests.evaluation.crashing:BrokenVectorEnv")
    records = evaluate(load(run), protocol)
    assert count_crashed(records) == 4  # the first of each trial
    assert len(records) > 8
    summary = {
        "protocol": "p", "protocol_hash": "h", "trials": 4, "repeats": 1,
        "episodes": len(records), "crashed": 4, **summarise(records, {}),
    }  # fmt: skip
    assert f"4 of {len(records)} episodes crashed: they ended early" in describe(summary)
    assert "Episodes that crashed</th><td>4" in page({**FACTS, **summary}, [], run="r")


@pytest.mark.slow
def test_a_block_that_always_crashes_is_named_and_the_others_are_kept(run, tmp_path):
    assignment = small_assignment(run, tmp_path / "out", crashing(fatal=1))
    jobs = [Job(KEPT, block) for block in range(4)]
    with pytest.raises(WorkerError, match=r"died 2 times on: kept 1\."):
        run_jobs(assignment, jobs, workers=2)
    store = RecordStore(assignment.directory, assignment.identity)
    assert [store.is_done(job) for job in jobs] == [True, False, True, True]


@pytest.mark.slow
def test_a_failing_worker_says_why(run, tmp_path):
    assignment = small_assignment(run, tmp_path / "out", small_protocol(options={"spilt": "test"}))
    with pytest.raises(WorkerError, match="spilt"):
        run_jobs(assignment, JOBS[:2], workers=2)


@pytest.mark.parametrize(
    ("protocol", "checkpoint", "threads", "message"),
    [
        ({"seed": 1}, "latest", 1, "protocol.seed is 0 there and 1 here"),
        ({}, "best", 1, "policy is "),
        ({}, "latest", 2, "threads is 1 there and 2 here"),
    ],
)
def test_another_evaluation_does_not_mix_in(run, tmp_path, protocol, checkpoint, threads, message):
    RecordStore(
        tmp_path / "out", identity(policy_digest(find_checkpoint(run)), small_protocol(), 1)
    )
    other = find_checkpoint(run, which=checkpoint)
    with pytest.raises(ConfigError, match=message):
        RecordStore(
            tmp_path / "out", identity(policy_digest(other), small_protocol(**protocol), threads)
        )


def test_a_damaged_directory_is_named(tmp_path):
    RecordStore(tmp_path, {"format": 1})
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(ConfigError, match=r"evaluation\.json: must say what was evaluated"):
        RecordStore(tmp_path, {"format": 1})


def damages(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    lines = content.splitlines(keepends=True)
    return {
        "empty": b"",
        "halved": content[:middle],
        "a bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "no text": b"\xff" + content[1:],
        "a line less": b"".join(lines[1:]),
        "a line twice": b"".join([lines[0], *lines]),
        "no seal": b"".join(lines[:-1]),
        "edited": content.replace(b'"episode": 1', b'"episode": 9', 1),
    }


def test_a_damaged_block_is_evaluated_again(run, tmp_path, caplog):
    assignment = small_assignment(run, tmp_path / "out")
    whole = finish(assignment, jobs=JOBS[:3])
    block = assignment.directory / "blocks" / "kept-00001.jsonl"
    others = {"another": (assignment.directory / "blocks" / "kept-00002.jsonl").read_bytes()}
    for name, content in (damages(block.read_bytes()) | others).items():
        block.write_bytes(content)
        store = RecordStore(assignment.directory, assignment.identity)
        caplog.clear()
        assert [store.is_done(job) for job in JOBS[:3]] == [True, False, True], name
        assert "kept-00001.jsonl is damaged; the block is evaluated again" in caplog.text
        with pytest.raises(ConfigError, match=r"kept-00001\.jsonl: must hold the block"):
            store.merge(KEPT, 3)
        assert finish(assignment, jobs=JOBS[:3]) == whole


def test_a_block_of_another_evaluation_is_not_taken(run, tmp_path):
    other = small_assignment(run, tmp_path / "other", small_protocol(block=2, seed=1))
    finish(other, jobs=JOBS[:3])
    assignment = small_assignment(run, tmp_path / "out")
    whole = finish(assignment, jobs=JOBS[:3])
    name = "blocks/kept-00000.jsonl"
    (assignment.directory / name).write_bytes((other.directory / name).read_bytes())
    assert finish(assignment, jobs=JOBS[:3]) == whole


def test_a_damaged_track_is_made_again(run, tmp_path):
    assignment = small_assignment(run, tmp_path / "out")
    finish(assignment, jobs=JOBS[:3])
    file = track_file(assignment.directory, 2)
    for name, content in damages(file.read_bytes()).items():
        file.write_bytes(content)
        assert missing_tracks(assignment.directory, assignment.protocol, (0, 2)), name
        with pytest.raises(ConfigError, match="must hold a whole track"):
            read_track(assignment.directory, 2)
