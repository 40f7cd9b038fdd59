"""The RLlib learner in this process: no cluster is started."""

import os

import pytest
import ray
import torch.distributed as dist
import torch.multiprocessing as mp

from relic.cluster import ReLICConfig
from relic.cluster.env_runner import ReLICEnvRunner

from .conftest import TINY, distance, metrics, train_locally


@pytest.fixture
def build():
    """Return a function that builds a learner as RLlib does; they are shut down at the end."""
    built = []

    def learner(run_dir, **options):
        config = ReLICConfig().training(relic={**TINY, **options, "run_dir": str(run_dir)})
        spaces = ReLICEnvRunner(config=config, worker_index=0, num_workers=0).get_spaces()
        built.append(config.build_learner(spaces=spaces))
        built[-1].build()
        return built[-1]

    yield learner
    for one in built:
        one.shutdown()


def test_a_learner_is_the_local_trainer(local, tmp_path, build):
    learner = build(tmp_path / "run")
    steps = []
    while (step := learner.train_update(False)).metrics is not None:
        steps.append(step)
    assert [s.env_steps for s in steps] == [128 * (i + 1) for i in range(12)]
    assert [s.rollout_ended for s in steps] == [False, False, False, True] * 3
    assert [s.finished for s in steps] == [False] * 11 + [True]
    assert distance(local, tmp_path / "run") <= 1e-6
    assert metrics(local) == metrics(tmp_path / "run")
    assert not ray.is_initialized()


def test_rllib_holds_the_policy_and_its_optimiser(tmp_path, build):
    learner = build(tmp_path / "run")
    parts = learner.trainer.parts
    inside = learner.module["default_policy"].parameters()
    assert all(a is b for a, b in zip(inside, parts.policy.parameters(), strict=True))
    assert learner.get_optimizer("default_policy") is parts.learner.optimizer
    with pytest.raises(NotImplementedError, match="train_update"):
        learner.compute_loss_for_module()


def test_a_stopped_learner_saves_and_another_goes_on(local, tmp_path, build):
    learner = build(tmp_path / "run")
    learner.train_update(False)
    learner.train_update(True)
    assert learner.train_update(False).metrics is None, "it has left"
    learner.shutdown()
    again = build(tmp_path / "run")
    while again.train_update(False).metrics is not None:
        pass
    assert distance(local, tmp_path / "run") == 0
    assert metrics(local) == metrics(tmp_path / "run")


def test_rewinding_goes_on_from_the_newest_checkpoint(local, tmp_path, build):
    learner = build(
        tmp_path / "run", **{"checkpoint.interval_s": 1e6, "checkpoint.best_metric": None}
    )
    for _ in range(4):
        learner.train_update(False)
    saved = learner.save_run()
    assert saved.name == "step_000000000512"
    learner.train_update(False)
    learner.rewind()
    while learner.train_update(False).metrics is not None:
        pass
    assert distance(local, tmp_path / "run") == 0


def rank_main(rank, directory, options):
    from relic.cluster import ReLICConfig
    from relic.cluster.env_runner import ReLICEnvRunner

    dist.init_process_group(
        "gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=2
    )
    config = ReLICConfig().training(relic=options)
    config.validate()
    spaces = ReLICEnvRunner(config=config, worker_index=0, num_workers=0).get_spaces()
    learner = config.build_learner(spaces=spaces)
    learner.build()
    while learner.train_update(False).metrics is not None:
        pass
    learner.shutdown()
    # Not through the teardown of an interpreter that still has the group's threads.
    os._exit(0)


@pytest.mark.slow
@pytest.mark.cluster
def test_two_learners_are_a_local_run(tmp_path):
    options = {**TINY, "ppo.num_minibatches": 1, "run_dir": str(tmp_path / "run")}
    two = {**options, "cluster.num_learners": 2}
    mp.spawn(rank_main, (str(tmp_path), two), nprocs=2)
    local = train_locally(tmp_path / "local", **{"ppo.num_minibatches": 1})
    assert distance(local, tmp_path / "run") <= 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cluster.placement": "spilt"},
            "cluster.placement: unknown 'spilt'.*Did you mean 'split'",
        ),
        ({"cluster.num_learners": 8}, "cluster.num_learners: must be at most rollout.num_envs"),
        ({"cluster.num_learners": 3}, "cluster.num_learners: must divide rollout.num_envs"),
        ({"cluster.num_learners": 4}, "cluster.num_learners: must divide rows of a minibatch"),
        ({"cluster.num_learners": 2, "ranks": 2}, "ranks: must be null on Ray"),
        ({"cluster.num_learners": 0}, "cluster.num_learners: must be at least 1"),
        (
            {"cluster.placement": "split", "cluster.num_learners": 2, "cluster.num_env_runners": 1},
            "cluster.num_learners: must divide cluster.num_env_runners",
        ),
        (
            {"cluster.placement": "split", "cluster.num_env_runners": 3},
            "cluster.num_env_runners: must divide rollout.num_envs",
        ),
        ({"cluster.num_learner": 2}, "Did you mean 'num_learners'"),
        ({"experiment": "darkrom"}, "Did you mean 'darkroom'"),
    ],
)
def test_bad_input_is_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        ReLICConfig().training(relic={**TINY, **options}).validate()


def test_rllibs_own_numbers_must_agree():
    config = ReLICConfig().training(relic={**TINY, "cluster.num_learners": 2})
    with pytest.raises(ValueError, match=r"must be what cluster\.num_learners says"):
        config.learners(num_learners=4).validate()
    config.learners(num_learners=2).validate()
