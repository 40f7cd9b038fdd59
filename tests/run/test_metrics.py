import json
import logging
import threading

import numpy as np
import torch

from relic.run.metrics import MetricsLog, TensorBoardMirror, WandbMirror, is_clock, read_metrics


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
    log.truncate_after(2)
    log.write({"env_steps": 3, "again": True})
    assert [json.loads(line)["env_steps"] for line in log.path.read_text().splitlines()] == [
        1,
        2,
        3,
    ]


def test_a_broken_mirror_is_switched_off_and_the_run_goes_on(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        log = MetricsLog(tmp_path / "m.jsonl", {"wandb": Broken()})
        for step in range(5):
            log.write({"env_steps": step})
        log.close()
    assert len(read_metrics(log.path)) == 5
    assert sum("wandb is switched off" in r.getMessage() for r in caplog.records) == 1


def test_a_stalled_mirror_does_not_stall_the_run(tmp_path, caplog):
    stalled = Stalled()
    log = MetricsLog(tmp_path / "m.jsonl", {"slow": stalled})
    with caplog.at_level(logging.WARNING):
        for step in range(1100):
            log.write({"env_steps": step})
    assert len(read_metrics(log.path)) == 1100
    assert "queue is full" in caplog.text
    stalled.released.set()
    log.close()


def test_tensorboard_and_offline_wandb_mirror(tmp_path):
    wandb = WandbMirror(
        run_id="abc", project="relic", mode="offline", directory=tmp_path / "w", config={"a": 1}
    )
    mirrors = {"tensorboard": TensorBoardMirror(tmp_path / "tb"), "wandb": wandb}
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
