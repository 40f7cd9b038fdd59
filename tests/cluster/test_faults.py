"""Actors are killed; runs complete, nothing hangs, and what was lost is said."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import ray
from ray import tune

from relic.cluster import ReLIC, ReLICConfig
from relic.cluster.launch import train_on_ray
from relic.run.compose import compose
from relic.run.metrics import read_metrics
from relic.run.trainer import Outcome

from .conftest import TINY, distance, metrics, train_locally

LONG = {"total_steps": 20 * 512}
"""Rollouts enough that a killer comes before the end."""

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]


def wait_until(ready):
    deadline = time.monotonic() + 300
    while not (answer := ready()):
        assert time.monotonic() < deadline, "the run did not come so far"
        time.sleep(0.05)
    return answer


def wait_for_lines(run_dir, count):
    wait_until(lambda: len(read_metrics(run_dir / "metrics.jsonl")) >= count)


def kill_learner():
    """Kill one learner among the processes that this one has started."""
    learners = [
        process
        for process in psutil.Process().children(recursive=True)
        if any("_WrappedExecutable" in part for part in process.cmdline())
    ]
    assert learners
    learners[-1].kill()


def test_a_killed_env_runner_costs_a_chunk_and_nothing_else(local, tmp_path, cluster, capfd):
    options = {**TINY, "cluster.placement": "split", "run_dir": str(tmp_path / "run")}
    algorithm = ReLIC(config=ReLICConfig().training(relic=options))
    [actor] = algorithm.env_runner_group._worker_manager.actors().values()

    def kill_once(line):
        if line["env_steps"] == 640:
            os.kill(ray.get(actor.apply.remote(lambda _: os.getpid())), signal.SIGKILL)

    algorithm.on_update = kill_once
    try:
        result = {"done": False}
        while not result["done"]:
            result = algorithm.train()
    finally:
        algorithm.stop()
    assert distance(local, tmp_path / "run") <= 1e-6
    assert result["relic"]["env_runner_restarts"] == 1
    time.sleep(1.0)  # Ray brings the logs of actors now and then
    assert "rows 0 to 3 died: steps 32 to 64 of its rows are lost" in "".join(capfd.readouterr())


@pytest.mark.parametrize("num_learners", [1, 2])
def test_a_killed_learner_restarts_from_the_last_checkpoint(tmp_path, cluster, capfd, num_learners):
    long = {**LONG, "ppo.num_minibatches": 1}
    run_dir = tmp_path / "run"
    options = {**TINY, **long, "cluster.num_learners": num_learners, "cluster": "ray"}
    config = compose({**options, "run_dir": str(run_dir)})

    def kill_in_the_second_rollout():
        wait_for_lines(run_dir, 6)
        kill_learner()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill_in_the_second_rollout)
        assert train_on_ray(config) is Outcome.FINISHED
        killing.result()
    assert "a learner died" in "".join(capfd.readouterr())
    assert [line["env_steps"] for line in metrics(run_dir)] == [128 * (i + 1) for i in range(80)]
    local = train_locally(tmp_path / "local", **long)
    assert distance(local, run_dir) <= (0 if num_learners == 1 else 1e-4)


def test_tune_restarts_a_trial_from_its_checkpoint(tmp_path, cluster):
    config = ReLICConfig().training(relic={**TINY, **LONG, "run_dir": str(tmp_path / "runs")})
    tuner = tune.Tuner(
        ReLIC,
        param_space=config,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "tune"),
            failure_config=tune.FailureConfig(max_failures=2),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            verbose=0,
        ),
    )

    def kill_in_the_second_rollout():
        [run] = wait_until(lambda: list((tmp_path / "runs").glob("*")))
        wait_for_lines(run, 6)
        kill_learner()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill_in_the_second_rollout)
        [result] = tuner.fit()
        killing.result()
    assert result.error is None
    assert result.metrics["relic"]["env_steps"] == 20 * 512
    [run_dir] = (tmp_path / "runs").iterdir()
    local = train_locally(tmp_path / "local", **LONG)
    assert distance(local, run_dir) <= 1e-6
    assert metrics(local) == metrics(run_dir)
