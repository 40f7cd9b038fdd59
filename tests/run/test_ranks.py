"""The processes of a run: how many, that they train as one, and that they end together."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest
import torch
from safetensors.torch import load_file

import relic.policy
from relic.ppo.reduction import Reduction
from relic.run import distributed
from relic.run.compose import compose
from relic.run.metrics import is_clock, read_metrics
from relic.run.ranks import ranks as choice
from relic.run.ranks.ranks import number_of_ranks, suitable_ranks
from relic.run.ranks.supervisor import RunFailedError
from relic.run.run_directory import CheckpointStore
from relic.schema import ConfigError
from relic.train import train_run

from .conftest import ROOT, TINY

ALIKE = ("ppo.lr_end=1", "ppo.ent_coef_end=null", "validation.final_trials=3")
"""Schedules that do not depend on where a run ends."""
LONG = ("total_steps=1_000_000", "validation.every_rollouts=null", "checkpoint.best_metric=null")


def final_weights(run_dir):
    latest = CheckpointStore(run_dir / "checkpoints").latest()
    assert latest is not None
    return load_file(latest.path / "policy.safetensors")


def assert_alike(a, b, key):
    """Compare values of metrics; ranks add up in another order, which moves the last digits."""
    if isinstance(a, list):
        assert len(a) == len(b), key
        for x, y in zip(a, b, strict=True):
            assert_alike(x, y, key)
    elif isinstance(a, float):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-6), key
    else:
        assert a == b, key


def assert_same_training(one, other):
    lines = [read_metrics(d / "metrics.jsonl") for d in (one, other)]
    assert len(lines[0]) == len(lines[1]) == 12
    for a, b in zip(*lines, strict=True):
        keys = {k for k in a if not is_clock(k)}
        assert keys == {k for k in b if not is_clock(k)}
        for key in keys:
            assert_alike(a[key], b[key], key)
    first, second = final_weights(one), final_weights(other)
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=1e-6)


def under_torchrun(*overrides):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(ROOT / "train.py"), *TINY, *overrides],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one process, shared by the tests that compare with it."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    command = [sys.executable, str(ROOT / "train.py"), *TINY, *ALIKE, f"run_dir={run_dir}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (run_dir / "said").write_text(done.stdout)
    return run_dir


def scores(said):
    """Return what is said of the agent's worth, and of the untrained one's."""
    return [line for line in said.splitlines() if "trained: mean success" in line]


def test_two_ranks_train_as_one_process(alone, tmp_path, train):
    run_dir = tmp_path / "two"
    done = train(*ALIKE, "ranks=2", f"run_dir={run_dir}")
    assert done.stdout.count("finished: ") == 1
    assert_same_training(alone, run_dir)
    assert len(scores(done.stdout)) == 2
    assert scores(done.stdout) == scores((alone / "said").read_text())
    assert relic.policy.load(run_dir).max_episode_steps == 20


@pytest.mark.slow
def test_two_ranks_of_torchrun_train_as_one_process(alone, tmp_path):
    two = tmp_path / "two"
    # The second start goes on from the checkpoint that both ranks wrote.
    under_torchrun(*ALIKE, f"run_dir={two}", "total_steps=512")
    assert under_torchrun(*ALIKE, f"run_dir={two}").count("finished: ") == 1
    assert_same_training(alone, two)


@pytest.mark.parametrize("place", [{}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_no_interpreter_of_torchrun_is_torn_down(place):
    # The threads of its group have aborted processes meanwhile, in one of seven runs.
    program = (
        "import atexit; from relic.console import train; "
        "atexit.register(print, 'torn down'); raise SystemExit(train())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "experiment=darkroom", "--cfg", "job"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **place},
    )
    assert done.stdout.startswith("experiment: darkroom")
    assert ("torn down" in done.stdout) == (not place)


@pytest.mark.parametrize(
    ("changes", "cores", "expected"),
    [
        ({}, 1, 1),
        ({}, 2, 2),
        ({}, 3, 2),
        ({}, 64, 16),
        ({"threads": 2}, 8, 4),
        ({"rollout.num_envs": 32}, 64, 4),
        ({"rollout.num_envs": 32, "rollout.groups": 8}, 64, 4),
        ({"rollout.num_envs": 8}, 64, 1),
        ({"rollout.num_envs": 8, "ppo.num_minibatches": 2}, 64, 2),
        ({"rollout.num_envs": 40}, 64, 5),
    ],
)
def test_as_many_ranks_as_cores_and_rows_suffice_for(changes, cores, expected):
    config = compose({"experiment": "darkroom", "device": "cpu", **changes})
    assert suitable_ranks(config, cores) == expected


@pytest.mark.parametrize(("gpus", "places", "sharing"), [(1, [0, 0, 0], 3), (2, [0, 1, 0], 2)])
def test_ranks_take_turns_on_the_gpus(monkeypatch, gpus, places, sharing):
    begun, used = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda b, **_: begun.append(b))
    monkeypatch.setattr(distributed, "RankReduction", Reduction)
    for rank, place in enumerate(places):
        ranks = distributed.join_ranks("auto", distributed.Meeting("store", rank, 3))
        assert ranks.device == used.pop() == torch.device("cuda", place)
        assert (ranks.on_this_machine, ranks.on_this_device) == (3, sharing)
        assert ranks.supervised
    assert begun == ["gloo"] * 3  # NCCL refuses two on one GPU
    cpu = distributed.join_ranks("cpu", distributed.Meeting("store", 0, 3))
    assert (cpu.device, cpu.on_this_device) == (torch.device("cpu"), 1)


def test_ranks_that_cannot_be_had_are_refused(monkeypatch):
    config = compose({"experiment": "darkroom", "device": "cpu", "ranks": 4})
    assert number_of_ranks(config) == 4
    assert number_of_ranks(replace(config, ranks=1)) == 1
    monkeypatch.setattr(choice, "uses_cuda", lambda device: True)
    assert number_of_ranks(replace(config, ranks=None)) == 1
    assert number_of_ranks(config) == 4
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert number_of_ranks(replace(config, ranks=None)) == 1
    with pytest.raises(ConfigError, match="ranks: must be null under torchrun"):
        number_of_ranks(config)
    with pytest.raises(ConfigError, match=r"ranks: must divide rows of a minibatch.*ranks=3"):
        compose({"experiment": "darkroom", "ranks": 3})


def ranks_of(process):
    return psutil.Process(process.pid).children()


def wait_until(happened):
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_lines(run_dir, count):
    wait_until(lambda: len(read_metrics(run_dir / "metrics.jsonl")) >= count)


@pytest.fixture
def two(tmp_path, start):
    """A run of two ranks that is under way."""
    process = start(*LONG, "ranks=2", f"run_dir={tmp_path / 'run'}")
    wait_for_lines(tmp_path / "run", 2)
    return process


def test_a_rank_that_dies_ends_the_run(two):
    ranks = ranks_of(two)
    assert len(ranks) == 2
    ranks[1].send_signal(signal.SIGKILL)
    _, said = two.communicate(timeout=60)
    assert two.returncode == 1
    assert "was ended by SIGKILL" in said
    assert "Traceback" not in said, "the other rank misses it, which explains nothing"
    assert not any(rank.is_running() for rank in ranks)


@pytest.mark.slow
def test_ranks_do_not_outlive_their_parent(two):
    ranks = ranks_of(two)
    two.kill()
    wait_until(lambda: not any(rank.is_running() for rank in ranks))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_parent_saves_and_leaves(two, tmp_path, number):
    two.send_signal(number)
    said, warned = two.communicate(timeout=60)
    assert two.returncode == 0
    assert said.count("stopped: ") == 1
    assert warned.count(f"{number.name}: saving at the next update") == 1
    assert CheckpointStore(tmp_path / "run" / "checkpoints").latest() is not None


@pytest.mark.slow
def test_ctrl_c_twice_ends_all_at_once(two):
    ranks = ranks_of(two)
    two.send_signal(signal.SIGINT)
    two.send_signal(signal.SIGINT)
    two.wait(timeout=60)
    assert not any(rank.is_running() for rank in ranks)


@pytest.mark.slow
def test_what_ranks_object_to_is_said_once(tmp_path, train):
    train("ranks=2", "total_steps=512", f"run_dir={tmp_path / 'run'}")
    done = train("ranks=2", "ppo.lr=1e-4", f"run_dir={tmp_path / 'run'}", check=2)
    assert done.stderr.count("holds a run with another configuration") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_error_of_a_rank_is_said_once(tmp_path, train):
    """Both ranks fail: the second in its environment, the first as it misses the second."""
    (tmp_path / "broken.py").write_text(
        "from envs.darkroom import DarkroomVectorEnv\n\n\n"
        "class Broken(DarkroomVectorEnv):\n"
        "    def advance(self, actions):\n"
        "        if self.first_row > 0:\n"
        "            raise RuntimeError('the roof has come down')\n"
        "        return super().advance(actions)\n"
    )
    options = json.dumps({"horizon": 20})
    done = train(
        *LONG, "ranks=2", "env.id=broken:Broken", f"env.options={options}",
        f"run_dir={tmp_path / 'run'}", check=1, path=tmp_path,
    )  # fmt: skip
    assert done.stderr.count("Traceback") == 1
    assert "rank 1 of 2 failed:" in done.stderr
    assert done.stderr.count("RuntimeError: the roof has come down") == 1


@pytest.mark.slow
def test_runs_in_threads_are_those_of_the_main_thread(tmp_path):
    """As searches start several at once; each has random numbers and signals of its own."""

    def run(seed, name):
        overrides = dict(item.split("=", 1) for item in TINY)
        place = {"run_dir": str(tmp_path / name), "total_steps": 512, "ranks": 1, "seed": seed}
        assert train_run(compose({**overrides, **place})) == 0
        return final_weights(tmp_path / name)

    with ThreadPoolExecutor(2) as threads:
        apart = list(threads.map(run, (0, 1), ("a", "b")))
    for seed, found in enumerate(apart):
        for name, weight in run(seed, f"main{seed}").items():
            assert torch.equal(found[name], weight), name


def test_what_fails_in_a_thread_is_raised_there(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").mkdir()
    overrides = dict(item.split("=", 1) for item in TINY)
    config = compose({**overrides, "run_dir": str(tmp_path / "run")})
    with ThreadPoolExecutor(1) as threads:
        error = threads.submit(train_run, config).exception()
    assert isinstance(error, RunFailedError)
    assert str(error).startswith(f"{tmp_path / 'run' / '.lock'}: Is a directory.")
    assert error.status == 1
