"""Two and four ranks, each with its part of the rows, against one process with all of them."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PPO = {
    "lr": 1e-3,
    "num_minibatches": 2,
    "update_epochs": 2,
    "normalize_advantage": True,
    "max_grad_norm": 1e9,
}


def conftest():
    """Load the helpers by path: a spawned process knows nothing of pytest's imports."""
    path = Path(__file__).with_name("conftest.py")
    spec = importlib.util.spec_from_file_location("ppo_conftest", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def watched(built):
    """Run one rollout; return the gradient before every optimiser step, and the metrics."""
    gradients = []
    step = built.learner.optimizer.step

    def watch():
        gradients.append(built.learner.gradients.flat.clone())
        step()

    built.learner.optimizer.step = watch
    reports = built.run(1)
    return gradients, [r.metrics for r in reports]


def rank_main(rank, world_size, directory):
    from relic.ppo.reduction import RankReduction

    dist.init_process_group(
        "gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=world_size
    )
    reduction = RankReduction()
    rows = 8 // world_size
    built = conftest().make_training(PPO, num_envs=rows, first_row=rows * rank, reduction=reduction)
    if rank == 1:
        with torch.no_grad():
            for parameter in built.policy.parameters():
                parameter.zero_()
    reduction.broadcast(built.policy)
    gradients, metrics = watched(built)
    torch.save((gradients, metrics, built.collector.env_steps), f"{directory}/rank{rank}.pt")
    dist.destroy_process_group()
    # Torch may hold on to the group until the interpreter is torn down around its threads, which
    # has gone wrong once; all that is asked of this process is on disk.
    os._exit(0)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_equal_one_process(training, tmp_path, count):
    mp.spawn(rank_main, (count, str(tmp_path)), nprocs=count)
    (first, metrics, steps), (second, _, _) = (
        torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, count - 1)
    )
    built = training(PPO, num_envs=8)
    whole, whole_metrics = watched(built)
    assert steps == built.collector.env_steps
    assert len(first) == len(whole) == 16
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    # The very first gradient starts from equal weights; later ones from weights that differ in
    # their last bits.
    assert (first[0] - whole[0]).norm() <= 1e-6 * whole[0].norm()
    for a, b in zip(first, whole, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm()
    for a, b in zip(metrics, whole_metrics, strict=True):
        for name in b:
            torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)
