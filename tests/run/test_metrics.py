import json
import logging
import threading
from functools import partial

import numpy as np
import pytest
import torch

from relic.files import StateError, changed_since_mark
from relic.run.live import LivePage
from relic.run.metrics import (
    MetricsLog,
    TensorBoardMirror,
    WandbMirror,
    cut_metrics,
    is_clock,
    read_metrics,
)


class Broken:
    def write(self, env_steps, metrics):
        raise ConnectionError("no network")

    def close(self):
        pass


class Stalled:
    def __init__(self):
        self.released = threading.Event()

    def write(self, env_steps, metrics):
        self.released.wait(30)

    def close(self):
        pass


def test_lines_hold_plain_numbers_and_no_undefined_value(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write({"env_steps": 1, "loss": torch.tensor(0.5), "x": np.float32("nan"), "y": None})
    assert read_metrics(log.path) == [{"env_steps": 1, "loss": 0.5}]


def test_a_resumed_run_drops_what_it_writes_again(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    for step in (1, 2, 3):
        log.write({"env_steps": step})
    with log.path.open("a") as file:
        file.write('{"env_steps": 4, "lo')  # a kill in the middle of a line
    assert len(read_metrics(log.path)) == 3
    cut_metrics(log.path, 2)
    log.write({"env_steps": 3, "again": True})
    assert [json.loads(line)["env_steps"] for line in log.path.read_text().splitlines()] == [
        1,
        2,
        3,
    ]


def test_a_broken_mirror_is_switched_off_and_the_run_goes_on(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        log = MetricsLog(tmp_path / "m.jsonl", {"wandb": Broken})
        for step in range(5):
            log.write({"env_steps": step})
        log.close()
    assert len(read_metrics(log.path)) == 5
    assert sum("wandb is switched off" in r.getMessage() for r in caplog.records) == 1


def test_a_stalled_mirror_does_not_stall_the_run(tmp_path, caplog):
    stalled = Stalled()
    log = MetricsLog(tmp_path / "m.jsonl", {"slow": lambda: stalled})
    with caplog.at_level(logging.WARNING):
        for step in range(1100):
            log.write({"env_steps": step})
    assert len(read_metrics(log.path)) == 1100
    assert "queue is full" in caplog.text
    stalled.released.set()
    log.close()


NOT_MEASURED = ("{}", "[1]", '{"env_steps": null}', '{"env_steps": "2"}', "[" * 100_000)
"""Lines that say nothing of a step; the last is nested more deeply than a parser goes."""


@pytest.mark.parametrize("line", NOT_MEASURED)
def test_a_line_that_says_no_steps_is_told_and_stops_no_run(tmp_path, caplog, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"env_steps": 1, "sps": "fast", "entropy": "high"}}\n{line}\n')
    with pytest.raises(StateError, match=r"metrics\.jsonl: line 2: must .* Delete the line\."):
        read_metrics(path)
    cut_metrics(path, 5)  # as a run does that goes on
    assert "line 2 is damaged and left out" in caplog.text
    (kept,) = read_metrics(path)
    LivePage(tmp_path / "live.html", 10, [kept]).add({"env_steps": 2, "entropy": 0.5})
    assert "2 of 10" in (tmp_path / "live.html").read_text()


def test_what_is_noted_of_a_growing_file_is_read_once_and_covers_all_of_it(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    for step in range(4):
        log.write({"env_steps": step})
        log.secure()
        assert changed_since_mark(log.path) is None
    content = log.path.read_bytes()
    log.path.write_bytes(content.replace(b"1", b"7"))
    assert "one of its first 4 lines has changed" in str(changed_since_mark(log.path))
    log.secure()  # lines that were noted are not read again
    assert "one of its first 4 lines has changed" in str(changed_since_mark(log.path))
    log.path.write_bytes(content[: len(content) // 2])
    assert "holds 2 of the first 4 lines" in str(changed_since_mark(log.path))


def refuse(error):
    raise error


@pytest.mark.parametrize(
    "error",
    [
        ImportError("logging.wandb: needs it"),
        AttributeError("init"),
        OSError(13, "no"),
        SystemExit(1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_mirror_that_does_not_open_is_switched_off(tmp_path, caplog, error):
    log = MetricsLog(tmp_path / "m.jsonl", {"wandb": lambda: refuse(error)})
    for step in range(3):
        log.write({"env_steps": step})
    log.close()
    assert len(read_metrics(log.path)) == 3
    (said,) = (r.getMessage() for r in caplog.records if r.name == "relic.run.metrics")
    assert said == f"wandb is switched off for this run: {error}. metrics.jsonl goes on."


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path, caplog):
    (tmp_path / "tb").touch()
    log = MetricsLog(tmp_path / "m.jsonl", {"tb": lambda: TensorBoardMirror(tmp_path / "tb")})
    log.write({"env_steps": 1})
    log.close()
    assert len(read_metrics(log.path)) == 1
    assert "tb is switched off for this run" in caplog.text


def test_a_mirror_that_hangs_while_it_opens_is_given_up(tmp_path, caplog):
    stalled = Stalled()
    release, closed = threading.Event(), threading.Event()
    stalled.close = closed.set

    def hang():
        release.wait(60)
        return stalled

    log = MetricsLog(tmp_path / "m.jsonl", {"slow": hang}, patience_s=0)
    for step in range(3):
        log.write({"env_steps": step})
    log.close()  # which waits for none that was given up
    assert len(read_metrics(log.path)) == 3
    (said,) = (r.getMessage() for r in caplog.records if r.name == "relic.run.metrics")
    assert "slow is switched off for this run: it did not open within 0 s" in said
    release.set()
    assert closed.wait(60)  # one that opens after all is not left open


def test_tensorboard_and_offline_wandb_mirror(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_BASE_URL", "WANDB_PROJECT"):
        monkeypatch.setenv(name, "")  # as unset
    wandb = partial(
        WandbMirror,
        run_id="abc",
        project="relic",
        mode="offline",
        directory=tmp_path / "w",
        config={"a": 1},
    )
    mirrors = {"tensorboard": partial(TensorBoardMirror, tmp_path / "tb"), "wandb": wandb}
    log = MetricsLog(tmp_path / "m.jsonl", mirrors)
    log.write({"env_steps": 7, "loss": 0.25, "note": "text stays here"})
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    (event,) = events.Scalars("loss")
    assert (event.step, event.value) == (7, 0.25)
    assert list((tmp_path / "w").rglob("run-abc.wandb"))


def test_clock_keys():
    assert is_clock("time/act")
    assert is_clock("sps")
    assert not is_clock("return_mean")
