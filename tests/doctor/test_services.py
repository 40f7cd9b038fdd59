"""Clusters and servers that do not answer."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from relic.doctor.check import State
from relic.doctor.machine import check_ray, check_wandb
from tests.ports import closed_port

from .tools import in_environment, only


def test_a_cluster_of_ray_that_does_not_answer(world):
    port = closed_port()
    finding = only(check_ray(in_environment(world, RAY_ADDRESS=f"127.0.0.1:{port}")))
    assert finding.state is State.BROKEN
    assert "Connection refused" in finding.found
    assert finding.repair
    assert f"ray start --head --port={port}" in finding.repair
    with socket.create_server(("127.0.0.1", port)):
        answering = only(check_ray(in_environment(world, RAY_ADDRESS=f"127.0.0.1:{port}")))
    assert answering.state is State.OK


def test_ray_that_does_not_start(world, tmp_path):
    (tmp_path / "ray.py").write_text("raise OSError('GLIBC_2.99 not found')")
    finding = only(check_ray(in_environment(world, PYTHONPATH=tmp_path)))
    assert finding.state is State.BROKEN
    assert "GLIBC_2.99 not found" in finding.found


class Refusing(BaseHTTPRequestHandler):
    """A server that is there, and knows nothing."""

    def do_GET(self):
        self.send_error(404)

    def log_message(self, format, *args):
        pass


def test_the_server_of_weights_and_biases(world):
    down = only(
        check_wandb(in_environment(world, WANDB_BASE_URL=f"http://127.0.0.1:{closed_port()}"))
    )
    assert down.state is State.LIMITED
    assert "Connection refused" in down.found
    assert down.repair
    assert "logging.wandb=offline" in down.repair
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    assert only(check_wandb(in_environment(world, WANDB_BASE_URL=url))).state is State.OK
    server.shutdown()
