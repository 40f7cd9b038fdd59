"""A run that was killed or stopped and started again equals the one that was not."""

import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from relic.run.compose import compose
from relic.run.distributed import join_ranks
from relic.run.metrics import is_clock, read_metrics
from relic.run.run_directory import CheckpointStore
from relic.run.trainer import Trainer

from .conftest import TINY


def without_clock(run_dir):
    lines = read_metrics(run_dir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not is_clock(k)} for line in lines]


def wait_for_lines(run_dir, count):
    deadline = time.monotonic() + 600
    while len(read_metrics(run_dir / "metrics.jsonl")) < count:
        assert time.monotonic() < deadline, "the run wrote no metrics"
        time.sleep(0.01)


def final_weights(run_dir):
    latest = CheckpointStore(run_dir / "checkpoints").latest()
    assert latest is not None
    return load_file(latest.path / "policy.safetensors")


def assert_same_run(a, b):
    assert without_clock(a) == without_clock(b)
    first, second = final_weights(a), final_weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One uninterrupted run, shared by the tests that compare with it."""
    import subprocess

    from .conftest import command

    run_dir = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(f"run_dir={run_dir}"), check=True, capture_output=True)
    return run_dir


SLOW = pytest.mark.slow  # each case starts the interpreter anew, which costs seconds


@pytest.mark.parametrize("lines", [pytest.param(2, marks=SLOW), 5, pytest.param(10, marks=SLOW)])
def test_a_killed_run_goes_on_as_if_nothing_happened(whole, tmp_path, train, start, lines):
    run_dir = tmp_path / "run"
    process = start(f"run_dir={run_dir}")
    wait_for_lines(run_dir, lines)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(f"run_dir={run_dir}")
    assert_same_run(whole, run_dir)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGUSR1, marks=SLOW),
        pytest.param(signal.SIGINT, marks=SLOW),
    ],
)
def test_a_signal_saves_and_leaves(whole, tmp_path, train, start, number):
    run_dir = tmp_path / "run"
    # No checkpoint falls due by time, so the one that is found was written for the signal.
    process = start(f"run_dir={run_dir}", "checkpoint.interval_s=1e6", "checkpoint.keep=1")
    wait_for_lines(run_dir, 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "stopped" in out
    assert f"{number.name}: saving" in err
    train(f"run_dir={run_dir}")
    assert_same_run(whole, run_dir)


@SLOW
@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        pytest.param(
            (
                "updates.refresh_memory=false",
                "updates.shuffle=false",
                "updates.refresh_values=false",
            ),
            3,
            id="without refresh",
        ),
        pytest.param(
            (
                "updates.refresh_every=3",
                "updates.refresh_in_pass=true",
                "rollout.cache_dtype=bfloat16",
            ),
            2,
            id="between two refreshes, in half the precision",
        ),
    ],
)
def test_a_memory_that_was_not_refreshed_is_saved_itself(tmp_path, train, start, overrides, lines):
    train(f"run_dir={tmp_path / 'whole'}", *overrides)
    run_dir = tmp_path / "run"
    process = start(f"run_dir={run_dir}", *overrides)
    wait_for_lines(run_dir, lines)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(f"run_dir={run_dir}", *overrides)
    assert_same_run(tmp_path / "whole", run_dir)


@pytest.mark.parametrize(
    ("first", "second", "time_limit"),
    [
        pytest.param(1, 6, "terminal", id="later in the next rollout"),
        pytest.param(2, 6, "terminal", id="as far in the next rollout"),
        pytest.param(5, 7, "bootstrap", id="before the full update, with final values"),
    ],
)
def test_saves_in_two_rollouts_do_not_mix_their_steps(
    tmp_path, monkeypatch, first, second, time_limit
):
    """With no save in between, not even at the end of the first rollout, of four updates."""
    monkeypatch.chdir(tmp_path)
    keys = dict(key.split("=") for key in TINY)
    keys |= {"validation.every_rollouts": "null", "checkpoint.best_metric": "null"}
    keys |= {"checkpoint.interval_s": "1e6", "threads": "1", "ppo.time_limit": time_limit}
    config = compose(keys)
    trainer = Trainer(replace(config, run_dir="whole"), join_ranks("cpu"))
    for update, _ in enumerate(trainer.updates(lambda: False), 1):
        if update in (first, second):
            trainer.save()
        if update == second:
            shutil.copytree("whole", "run")
    trainer.close()
    again = Trainer(replace(config, run_dir="run"), join_ranks("cpu"))
    again.resume()
    for _ in again.updates(lambda: False):
        pass
    again.close()
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_run_has_finished_when_its_last_rollout_has(tmp_path, monkeypatch):
    """Rollouts have 512 steps, so 600 are done in the middle of the second one."""
    monkeypatch.chdir(tmp_path)
    config = compose({**dict(key.split("=") for key in TINY), "total_steps": "600"})
    trainer = Trainer(replace(config, run_dir="run"), join_ranks("cpu"))
    for _ in trainer.updates(lambda: trainer.env_steps > 600):
        pass
    assert trainer.env_steps == 640
    assert not trainer.is_finished
    trainer.close()
    again = Trainer(replace(config, run_dir="run"), join_ranks("cpu"))
    again.resume()
    assert not again.is_finished
    for _ in again.updates(lambda: False):
        pass
    assert again.env_steps == 1024
    assert again.is_finished
    again.close()


def test_a_finished_run_says_so_and_can_be_prolonged(tmp_path, train):
    run_dir = tmp_path / "run"
    train(f"run_dir={run_dir}", "total_steps=512")
    again = train(f"run_dir={run_dir}", "total_steps=512")
    assert "has done its 512 steps already" in again.stdout
    train(f"run_dir={run_dir}", "total_steps=1024")
    assert read_metrics(run_dir / "metrics.jsonl")[-1]["env_steps"] == 1024


def test_a_changed_configuration_is_refused_with_the_difference(tmp_path, train):
    run_dir = tmp_path / "run"
    train(f"run_dir={run_dir}", "total_steps=512")
    refused = train(f"run_dir={run_dir}", "ppo.gamma=0.5", check=2)
    assert "ppo.gamma: 0.98 -> 0.5" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) <= 3
    assert len(read_metrics(run_dir / "metrics.jsonl")) == 4, "nothing is lost"


def test_the_rollout_files_of_finished_rollouts_are_removed(whole):
    checkpoints = whole / "checkpoints"
    latest = CheckpointStore(checkpoints).latest()
    assert latest is not None
    assert latest.env_steps == 1536
    kept = (
        len(list((checkpoints / "rollout").iterdir())) if (checkpoints / "rollout").exists() else 0
    )
    # Two checkpoints stay; the older one lies at most one chunk before the rollout's end.
    assert kept <= 3 * 3
