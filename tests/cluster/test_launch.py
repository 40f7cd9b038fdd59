"""What `train.py cluster=ray` refuses before any cluster is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from relic.cluster.launch import joined, needed
from relic.extras import install_command
from relic.run.config import ClusterConfig, Placement
from relic.schema import ConfigError
from tests.ports import closed_port

from .conftest import TINY

ROOT = Path(__file__).resolve().parents[2]


def test_an_address_that_does_not_answer_is_refused():
    cluster = ClusterConfig(backend="ray", address=f"127.0.0.1:{closed_port()}")
    with pytest.raises(ConfigError, match="must name a running cluster, got 127"), joined(cluster):
        pass


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "http://head:8265", "head:port"])
def test_an_address_of_another_form_is_refused(address):
    cluster = ClusterConfig(backend="ray", address=address)
    with pytest.raises(ConfigError, match="must be host:port or auto"), joined(cluster):
        pass


def test_what_a_job_needs():
    colocated = ClusterConfig(backend="ray", num_learners=8, cpus_per_learner=4, gpus_per_learner=1)
    assert needed(colocated) == {"CPU": 32, "GPU": 8}
    split = ClusterConfig(
        backend="ray", placement=Placement.SPLIT, num_learners=2, num_env_runners=6
    )
    assert needed(split) == {"CPU": 8, "GPU": 0}


def test_without_ray_one_sentence_says_what_to_install(tmp_path):
    overrides = [f"{key}={value}" for key, value in TINY.items()]
    program = (
        "import sys; sys.modules['ray'] = None; from relic.train import train; "
        f"sys.exit(train({overrides!r} + ['cluster=ray', 'run_dir={tmp_path}/run']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip() == (
        f"cluster: needs the package ray. Install it with: {install_command('cluster')}"
    )
    assert not (tmp_path / "run").exists()


def test_a_ray_that_does_not_start_is_one_sentence(tmp_path):
    too_long = tmp_path / ("for_sockets_" * 10)
    too_long.mkdir()
    overrides = [f"{key}={value}" for key, value in TINY.items()]
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "train.py"),
            *overrides,
            "cluster=ray",
            f"run_dir={tmp_path}/run",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_TMPDIR": str(too_long)},
    )
    assert done.returncode == 2, done.stderr
    assert "cluster: must be able to start Ray on this machine, got: " in done.stderr
    assert "Traceback" not in done.stderr
