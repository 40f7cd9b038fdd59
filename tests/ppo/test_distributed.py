"""Two ranks, each with half of the rows, against one process with two shards."""

import importlib.util
import os
from pathlib import Path

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


def rank_main(rank, directory):
    from relic.ppo.reduction import RankReduction

    dist.init_process_group(
        "gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=2
    )
    reduction = RankReduction()
    built = conftest().make_training(
        PPO, num_envs=4, first_row=4 * rank, reduction=reduction, shards=2
    )
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


def test_two_ranks_equal_one_process_with_two_shards(training, tmp_path):
    mp.spawn(rank_main, (str(tmp_path),), nprocs=2)
    (first, metrics, steps), (second, _, _) = (
        torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)
    )
    built = training(PPO, num_envs=8, shards=2)
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
