"""What `train.py cluster=ray` refuses before any cluster is started."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray._private import node, services

from relic.cluster.launch import joined, needed, patient_start, until_it_answers
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


def test_a_start_may_take_longer_than_ray_gives_it(monkeypatch, capsys):
    for name in ("RAY_gcs_server_port_wait_time_s", "RAY_agent_register_timeout_ms"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    before = services.get_node
    with patient_start(90.0):
        assert os.environ["RAY_gcs_server_port_wait_time_s"] == "90"
        assert os.environ["RAY_agent_register_timeout_ms"] == "90000"
        assert services.get_node is not before
    assert services.get_node is before
    # Ray asks this function for the node, for 30 seconds which no setting changes.
    assert "ray._private.services.get_node(" in inspect.getsource(node.Node.__init__)


def test_a_node_is_asked_for_until_it_answers():
    answers = iter([RuntimeError("no node"), RuntimeError("no node"), {"labels": {}}])

    def ask(address, name):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return {**answer, "asked": (address, name)}

    found = until_it_answers(ask, 60.0, "address", "node")
    assert found == {"labels": {}, "asked": ("address", "node")}

    def silent():
        raise RuntimeError("no node")

    with pytest.raises(RuntimeError, match="no node"):
        until_it_answers(silent, 0.0)
