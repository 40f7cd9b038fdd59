"""Runs on a Ray of their own, which serves all tests of the session."""

import pytest

from relic.cluster import ReLIC, ReLICConfig
from relic.policy import load

from .conftest import TINY, distance, metrics, train_locally

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
SPLIT = {"cluster.placement": "split"}
TWO = {"cluster.num_learners": 2, "ppo.num_minibatches": 1}


@pytest.fixture
def start(cluster):
    """Return a function that builds an algorithm; they are stopped at the end."""
    started = []

    def build(run_dir, **options) -> ReLIC:
        config = ReLICConfig().training(relic={**TINY, **options, "run_dir": str(run_dir)})
        started.append(ReLIC(config=config))
        return started[-1]

    yield build
    for algorithm in started:
        algorithm.stop()


def train(algorithm: ReLIC) -> dict:
    """Train to the end and return the last result."""
    while True:
        result = algorithm.train()
        if result["done"]:
            return result


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """The local run that two learners must equal."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    return train_locally(run_dir, **{"ppo.num_minibatches": 1})


def assert_same_metrics(a, b):
    first, second = metrics(a), metrics(b)
    assert [line.keys() for line in first] == [line.keys() for line in second]
    for one, other in zip(first, second, strict=True):
        for key, value in one.items():
            if isinstance(value, float):
                value = pytest.approx(value, rel=1e-3, abs=1e-5)
            assert other[key] == value, key


def test_split_equals_the_local_run(local, tmp_path, start):
    algorithm = start(tmp_path / "run", **SPLIT)
    result = train(algorithm)
    assert distance(local, tmp_path / "run") <= 1e-6
    assert_same_metrics(local, tmp_path / "run")
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == 1536
    assert result["relic"]["env_steps"] == 1536
    assert result["relic"]["policy_loss"] == pytest.approx(metrics(local)[-1]["policy_loss"], 1e-3)
    assert load(tmp_path / "run").config.transformer.width == 16


@pytest.mark.slow
def test_split_follows_the_order_of_updates_and_ends_with_a_rollout(tmp_path, start):
    """Some full updates are in the order of time, and the steps end inside the last rollout."""
    order = {"updates.full_per_rollout": 2, "updates.full_order": "time", "updates.shuffle": True}
    # Short episodes, so that there are some to shuffle before the first of these updates, and a
    # rate at which the agent soon attends to their order.
    options = {**order, "total_steps": 1400, "env.options.horizon": 8, "ppo.lr": 0.03}
    train(start(tmp_path / "split", **SPLIT, **options))
    alone = train_locally(tmp_path / "alone", **options)
    assert distance(alone, tmp_path / "split") <= 1e-6
    assert_same_metrics(alone, tmp_path / "split")
    assert metrics(tmp_path / "split")[-1]["env_steps"] == 1536


@pytest.mark.slow
def test_colocated_equals_the_local_run(local, tmp_path, start):
    train(start(tmp_path / "run"))
    assert distance(local, tmp_path / "run") <= 1e-6
    assert_same_metrics(local, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("placement", [{}, {**SPLIT, "cluster.num_env_runners": 2}])
def test_two_learners_equal_one_process(alone, tmp_path, start, placement):
    train(start(tmp_path / "run", **TWO, **placement))
    assert distance(alone, tmp_path / "run") <= 1e-6


@pytest.mark.slow
def test_a_local_run_goes_on_with_two_learners_and_back(alone, tmp_path, start):
    run_dir = tmp_path / "run"
    options = {"ppo.num_minibatches": 1}
    train_locally(run_dir, updates=4, **options)
    algorithm = start(run_dir, **options, **{"cluster.num_learners": 2})
    algorithm.train()
    algorithm.stop()
    train_locally(run_dir, **options)
    assert distance(alone, run_dir) <= 1e-6
    assert_same_metrics(alone, run_dir)


@pytest.mark.slow
def test_a_checkpoint_of_rllib_is_one_of_a_run(local, tmp_path, start):
    algorithm = start(tmp_path / "run")
    algorithm.train()
    saved = algorithm.save_to_path(str(tmp_path / "saved"))
    algorithm.train()
    algorithm.restore_from_path(saved)
    assert algorithm.iteration == 1
    train(algorithm)
    assert distance(local, tmp_path / "run") <= 1e-6
    assert metrics(local) == metrics(tmp_path / "run")
    assert load(saved).max_episode_steps == 20
    again = ReLIC.from_checkpoint(saved)
    assert again.iteration == 1
    again.stop()


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["colocated", "split"])
def test_houses_run_for_two_rollouts(tmp_path, start, placement):
    options = {
        "experiment": "houses_small",
        "pretrain.pictures": 256,
        "pretrain.epochs": 1,
        "rollout.num_envs": 4,
        "rollout.num_steps": 64,
        "validation.every_rollouts": None,
        "validation.final_trials": 0,
        "checkpoint.best_metric": None,
        "ppo.num_minibatches": 2,
        "total_steps": 512,
        "cluster.placement": placement,
    }
    config = ReLICConfig().training(relic={**options, "run_dir": str(tmp_path / "run")})
    algorithm = ReLIC(config=config)
    try:
        result = train(algorithm)
    finally:
        algorithm.stop()
    assert result["relic"]["env_steps"] == 512
