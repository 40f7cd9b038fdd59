"""`train.py cluster=ray`: find or start a cluster, run the algorithm on it, start again on loss."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import psutil
import ray
from ray._private import services

from relic.cluster.algorithm import LostLearnerError, ReLIC
from relic.cluster.config import ReLICConfig
from relic.run.config import ClusterConfig, Placement, RunConfig
from relic.run.progress import Progress, StopRequest, plan_line, tell, verdict
from relic.run.run_directory import CheckpointStore, RunDirectory
from relic.run.trainer import Outcome
from relic.schema import ConfigError

_log = logging.getLogger(__name__)
_CONNECT_S = 10.0


def train_on_ray(config: RunConfig) -> Outcome:
    """Train a configuration on Ray, until its steps are done or a signal asks to stop.

    Raises:
        ConfigError: If the cluster cannot be reached or has not the room, or the run is refused.
        LostLearnerError: If learners were lost more often than `cluster.max_failures`.
    """
    RunDirectory(config.directory).open(config)  # refuses another configuration before Ray starts
    if config.cluster.placement is Placement.COLOCATED and config.cluster.num_env_runners > 1:
        _log.info("cluster.num_env_runners is not used with cluster.placement=colocated.")
    with joined(config.cluster):
        config = _with_gpus(config)
        # Ray would wait without a word for resources that never come.
        wait_for_room(config.cluster)
        failures = 0
        with StopRequest() as stop:
            while True:
                try:
                    return _attempt(config, stop)
                except LostLearnerError as error:
                    failures += 1
                    if failures > config.cluster.max_failures:
                        raise
                    tell(f"{error} (start {failures + 1} of {config.cluster.max_failures + 1})")


def _attempt(config: RunConfig, stop: StopRequest) -> Outcome:
    """Build the algorithm, which takes up the run directory, and train to the end."""
    algorithm = ReLIC(config=ReLICConfig.of(config))
    try:
        progress = Progress(
            total=config.planned_steps,
            done=_steps_done(config),
            enabled=config.logging.progress,
        )
        times: dict[str, float] = {}

        def show(metrics: dict[str, float]) -> None:
            progress.update(metrics)
            for name, value in metrics.items():
                if name.startswith("time/"):
                    part = name.removeprefix("time/")
                    times[part] = times.get(part, 0.0) + value

        algorithm.on_update = show
        algorithm.stopping = lambda: stop.requested
        try:
            for line in (*algorithm.describe(), plan_line(config, _steps_done(config))):
                progress.say(line)
            return _train(algorithm, stop, progress, times, config)
        finally:
            progress.close()
    finally:
        algorithm.stop()


def _train(
    algorithm: ReLIC,
    stop: StopRequest,
    progress: Progress,
    times: dict[str, float],
    config: RunConfig,
) -> Outcome:
    trained = False
    while True:
        algorithm.train()
        trained = trained or bool(times)
        if algorithm.is_finished:
            if not trained:
                return Outcome.ALREADY_FINISHED
            progress.say(f"time: {verdict(times, config)}")
            return Outcome.FINISHED
        if stop.requested:
            progress.say("stopped; start again to go on")
            return Outcome.STOPPED


def _steps_done(config: RunConfig) -> int:
    saved = CheckpointStore(RunDirectory(config.directory).checkpoints).latest()
    return 0 if saved is None else saved.env_steps


@contextmanager
def joined(cluster: ClusterConfig) -> Iterator[None]:
    """Join the cluster that is named, or start one on this machine; leave it at the end.

    Raises:
        ConfigError: If the named cluster does not answer, or none can be started.
    """
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():  # the caller's own
        yield
        return
    if address is None:
        cpus = max(needed(cluster)["CPU"], psutil.cpu_count() or 1)
        _start_here(cpus=cpus, limit_s=cluster.start_timeout_s)
    else:
        _check_reachable(address)
        try:
            ray.init(address=address)
        except ConnectionError as error:
            raise ConfigError(
                f"cluster.address: must name a running cluster, got {address} "
                f"({str(error).splitlines()[0]}). Start one with: ray start --head"
            ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _start_here(cpus: int, limit_s: float) -> None:
    tell(f"starting Ray on this machine: waiting for its node, {limit_s:g} s at most")
    try:
        with patient_start(limit_s):
            ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=True)
    except Exception as error:  # Ray raises bare ones, and others of what it runs on
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"cluster: must be able to start Ray on this machine, got: {reason} Its logs are in "
            "/tmp/ray, or in RAY_TMPDIR. Raise cluster.start_timeout_s where the machine is busy, "
            "start Ray by hand (ray start --head, then cluster.address=auto), or leave out "
            "cluster=ray."
        ) from error


@contextmanager
def patient_start(limit_s: float) -> Iterator[None]:
    """Let Ray's own node take so long to start, which Ray gives 30 seconds a part.

    Some of these limits are settings, which its processes inherit. That of the node's registration
    is written into Ray's code, which asks for the node until then: here one question waits.
    """
    longest = max(limit_s, 30.0)
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", str(int(longest)))
    os.environ.setdefault("RAY_agent_register_timeout_ms", str(int(1000 * longest)))
    ask = services.get_node
    services.get_node = partial(until_it_answers, ask, longest)
    try:
        yield
    finally:
        services.get_node = ask


def until_it_answers(ask: Callable[..., Any], limit_s: float, *arguments: Any) -> Any:
    """Ask Ray until it answers, so many seconds at most.

    Raises:
        RuntimeError: What Ray said last.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return ask(*arguments)
        except RuntimeError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.5)


def needed(cluster: ClusterConfig) -> dict[str, int]:
    """Return the logical resources that the actors of a job hold."""
    return {
        "CPU": cluster.num_learners * cluster.cpus_per_learner
        + cluster.env_runners * cluster.cpus_per_env_runner,
        "GPU": cluster.num_learners * (cluster.gpus_per_learner or 0),
    }


def wait_for_room(cluster: ClusterConfig) -> None:
    """Wait until the cluster has what the job needs, a short while at most.

    Raises:
        ConfigError: If it does not, so that nothing stays pending.
    """
    wanted = needed(cluster)
    deadline = time.monotonic() + cluster.start_timeout_s
    while True:
        free = ray.available_resources()
        missing = [name for name, count in wanted.items() if free.get(name, 0) < count]
        if not missing:
            return
        if time.monotonic() > deadline or _never(wanted, cluster):
            name = missing[0]
            raise ConfigError(
                f"cluster: must have {wanted[name]} free {name} for {cluster.num_learners} "
                f"learners and {cluster.env_runners} EnvRunners, got {free.get(name, 0):g}. "
                "Use fewer of them, a larger cluster, or a longer cluster.start_timeout_s."
            )
        time.sleep(1.0)


def _never(wanted: dict[str, int], cluster: ClusterConfig) -> bool:
    """Say whether waiting is in vain: a cluster on this machine alone does not grow."""
    total = ray.cluster_resources()
    alone = cluster.address is None and "RAY_ADDRESS" not in os.environ
    return alone and any(total.get(name, 0) < count for name, count in wanted.items())


def _with_gpus(config: RunConfig) -> RunConfig:
    """Decide how many GPUs each learner gets, where the configuration leaves it open."""
    cluster = config.cluster
    if cluster.gpus_per_learner is not None:
        return config
    has = ray.cluster_resources().get("GPU", 0) >= cluster.num_learners
    gpus = int(config.device == "cuda" or (config.device == "auto" and has))
    return replace(config, cluster=replace(cluster, gpus_per_learner=gpus))


def _check_reachable(address: str) -> None:
    """Try the port of an address, as Ray itself takes a minute to give up."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        raise ConfigError(
            f"cluster.address: must be host:port or auto, got {address}. To reach a cluster by "
            "http or ray://, use: ray job submit -- python train.py cluster=ray ..."
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise ConfigError(
            f"cluster.address: must name a running cluster, got {address} ({error}). "
            "Start one with: ray start --head"
        ) from None
