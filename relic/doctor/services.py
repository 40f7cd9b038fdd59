"""What other programs may be asked for: Ray, and Weights & Biases."""

from __future__ import annotations

import importlib.util
import socket
import urllib.error
import urllib.request

from relic.doctor.child import NoAnswer, ask
from relic.doctor.finding import Finding, State, World
from relic.doctor.packages import check_extra

_CONNECT_S = 3.0
_WANDB = "https://api.wandb.ai"


def check_ray(world: World) -> list[Finding]:
    """Import Ray, and knock at the cluster of RAY_ADDRESS."""
    install = world.pip_project("cluster")
    if importlib.util.find_spec("ray") is None:
        found = "not installed; only cluster=ray needs it"
        return [Finding("ray", State.ABSENT, found, install)]
    wrong = check_extra("cluster", "ray")
    if wrong:
        return [Finding("ray", State.BROKEN, wrong, install)]
    script = "import json, ray; print(json.dumps({'version': ray.__version__}))"
    try:
        answer = ask(world.python, ["-c", script], timeout=60.0, environment=world.environment)
    except NoAnswer as error:
        return [Finding("ray", State.BROKEN, f"does not start: {error}", install)]
    return [_knock(answer["version"], world.environment.get("RAY_ADDRESS", ""))]


def _knock(version: str, address: str) -> Finding:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return Finding("ray", State.OK, f"{version}; RAY_ADDRESS names no cluster")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        found = f"{version}, but nothing answers at RAY_ADDRESS={address}: {error}"
        return Finding("ray", State.BROKEN, found, f"ray start --head --port={port}  # on {host}")
    return Finding("ray", State.OK, f"{version}; {address} answers")


def check_wandb(world: World) -> list[Finding]:
    """Ask the server of Weights & Biases for any answer."""
    if importlib.util.find_spec("wandb") is None:
        found = "not installed; only logging.wandb needs it"
        return [Finding("wandb", State.ABSENT, found, world.pip_project("logging"))]
    server = world.environment.get("WANDB_BASE_URL", _WANDB)
    try:
        urllib.request.urlopen(server, timeout=_CONNECT_S).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        found = f"installed, but {server} does not answer: {reason}"
        repair = "python train.py logging.wandb=offline  # wandb sync sends the run later"
        return [Finding("wandb", State.LIMITED, found, repair)]
    return [Finding("wandb", State.OK, f"{server} answers")]
