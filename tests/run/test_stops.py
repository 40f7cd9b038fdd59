"""What stops a run is told in one sentence, whatever it is; what nobody foresaw keeps its trace."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from relic.evaluate import evaluate
from relic.stops import FAILED, INTERRUPTED, REFUSED, guarded, stop_of, writing_in
from relic.train import train as train_here

from .conftest import ROOT, TINY

FLAKY = """
import os
import signal

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.core.process_env import ProcessVectorEnv
from envs.core.trials import EpisodeTrials

TRIALS = {"dataset_name": "flaky", "max_episode_steps": 12, "num_trials": 4}
STEPS = []


def crashing(num_envs, simulator, first_row=0, **_):
    fault = {"fail": "raise", "at": ["begin", 1, 0]}
    return ProcessVectorEnv(
        simulator, num_envs, max_crashes=1, options=fault, first_row=first_row, **TRIALS
    )


class Drifting(gymnasium.Env):
    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.random.default_rng().random(1, np.float32), {}

    def step(self, action):
        STEPS.append(1)
        if len(STEPS) == 4 * 40:
            os.kill(os.getpid(), signal.SIGTERM)  # in a rollout, which is saved at its next update
        return np.random.default_rng().random(1, np.float32), 0.0, False, False, {}


def drifting(num_envs, first_row=0, **_):
    return EpisodeTrials(Drifting, num_envs, first_row=first_row, **TRIALS)
"""
OWN = ("validation.every_rollouts=null", "checkpoint.best_metric=null")


@pytest.fixture
def flaky(tmp_path, monkeypatch):
    """Let runs use environments that go wrong."""
    (tmp_path / "flaky.py").write_text(FLAKY)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("flaky")


def told(capsys, *overrides, status=FAILED):
    """Train in this process and return what was said of the stop: a few lines, no traceback."""
    capsys.readouterr()
    assert train_here([*TINY, "ranks=1", *overrides]) == status
    said = capsys.readouterr().err
    assert "Traceback" not in said
    before = ("attention_backend", "Compiling kernels")  # what a start says
    lines = [line for line in said.splitlines() if not line.startswith(before)]
    assert len(lines) == 1, said
    return lines[0]


@pytest.mark.parametrize("name", [".lock", "config.yaml", "metrics.jsonl"])
def test_a_directory_in_the_place_of_a_file(tmp_path, capsys, name):
    (tmp_path / name).mkdir()
    said = told(capsys, f"run_dir={tmp_path}")
    assert said.startswith(f"{tmp_path / name}: Is a directory. Move away")


def test_a_file_in_the_place_of_a_directory(tmp_path, capsys):
    (tmp_path / "checkpoints").touch()
    assert told(capsys, f"run_dir={tmp_path}").startswith(
        f"{tmp_path / 'checkpoints'}: File exists."
    )


def test_paths_that_are_too_long(tmp_path, capsys):
    assert "File name too long. Choose a shorter path" in told(capsys, f"run_dir={'a' * 300}")
    capsys.readouterr()
    assert evaluate([f"run={'a' * 300}"]) == FAILED
    assert "File name too long" in capsys.readouterr().err


def test_a_loss_that_is_not_finite(tmp_path, capsys):
    wild = ("ppo.lr=1e30", "ppo.max_grad_norm=1e30", "validation.every_rollouts=null")
    said = told(capsys, f"run_dir={tmp_path}", *wild, "checkpoint.best_metric=null")
    assert "loss and gradient must be finite, got loss nan" in said


def env(function, **options):
    """Return the key that chooses one of the environments that go wrong."""
    chosen = json.dumps({"id": f"flaky:{function}", "options": options})
    return (f"env={chosen}",)


@pytest.mark.usefixtures("flaky")
def test_a_simulator_that_is_lost_too_often(tmp_path, capsys):
    simulator = str(ROOT / "tests/envs/core/counting_simulator.py")
    own = (*env("crashing", simulator=simulator), *OWN, "policy.encoder.visual=blind")
    said = told(capsys, f"run_dir={tmp_path / 'run'}", *own)
    assert "lost more than max_crashes=1 times in a row" in said
    assert "trial 1, episode 0 raised an error: RuntimeError: the floor is lava. Correct" in said


@pytest.mark.usefixtures("flaky")
def test_an_environment_that_is_not_reproducible(tmp_path, capsys):
    run = (f"run_dir={tmp_path / 'run'}", *OWN, *env("drifting"))
    assert train_here([*TINY, "ranks=1", *run]) == 0
    assert "stopped: " in capsys.readouterr().out
    said = told(capsys, *run)
    assert re.search(
        r"EpisodeTrials flaky/0\+4, row 0, trial \d, episode \d: the same actions", said
    )


@pytest.fixture
def small_files():
    """Let no file grow beyond 20 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_disk_that_takes_no_more(tmp_path, capsys):
    """The weights' library tells of it without an `OSError`, Python without the file."""
    said = told(capsys, f"run_dir={tmp_path}")
    assert said.startswith(f"{tmp_path}: File too large. Raise the limit")


@pytest.mark.slow
@pytest.mark.usefixtures("small_files")
def test_a_disk_that_takes_no_more_of_a_rank(tmp_path, train):
    said = train("ranks=2", f"run_dir={tmp_path}", check=FAILED).stderr
    assert said.count(f"{tmp_path}: File too large. Raise the limit") == 1
    assert "Traceback" not in said


def test_errors_of_disks_name_the_directory(tmp_path):
    def no_room():
        with writing_in(tmp_path), open("/dev/full", "w") as full:
            full.write("x")

    def no_folder():
        save_file({"a": np.zeros(2)}, tmp_path / "nowhere" / "file")

    for write, named in ((no_room, f"{tmp_path}: No space left"), (no_folder, "No such file")):
        with pytest.raises(Exception, match=r"os error 2|Errno 28") as caught:
            write()
        stop = stop_of(caught.value)
        assert stop is not None
        assert (stop.status, named in stop.text) == (FAILED, True)


def test_memory_that_does_not_suffice():
    def torch_asks():
        torch.zeros(10**14)

    def numpy_asks():
        np.zeros(10**14)

    for ask in (torch_asks, numpy_asks):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            ask()
        stop = stop_of(caught.value)
        assert stop is not None
        assert stop.text.startswith("memory: must suffice, got: ")
        assert "\n" not in stop.text


def test_what_nobody_foresaw_is_raised():
    for error in (RuntimeError("x"), KeyError("x"), ValueError("x"), OSError("x"), SystemExit(3)):
        assert stop_of(error) is None

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guarded(fail)
    assert stop_of(FileNotFoundError("must exist")).status == REFUSED  # pyright: ignore


@pytest.mark.parametrize("command", [("train.py", "--cfg", "job"), ("-m", "relic.doctor")])
def test_a_reader_that_leaves(command):
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 128 + signal.SIGPIPE


def interrupted(process: subprocess.Popen[str], library: str) -> str:
    """Press Ctrl-C once a process has loaded a library; return what it says then."""
    deadline = time.monotonic() + 120
    while library not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert process.returncode == INTERRUPTED
    return said


@pytest.mark.parametrize(
    ("arguments", "library"),
    [
        (("train.py", *TINY, "ranks=1", "run_dir={path}"), "libtorch_cpu"),
        (("train.py", *TINY, "ranks=2", "run_dir={path}"), "select."),
        (("eval.py", "run=pretrained/darkroom", "out={path}"), "libtorch_cpu"),
    ],
)
def test_ctrl_c_while_starting(tmp_path, arguments, library):
    process = subprocess.Popen(
        [sys.executable, *(argument.format(path=tmp_path / "path") for argument in arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert interrupted(process, library)
