"""A long run must not need more memory than a short one."""

import gc
import tracemalloc

import psutil
import pytest
import torch

from relic.run.compose import compose
from relic.run.distributed import join_ranks
from relic.run.trainer import Trainer

from .conftest import TINY

ROLLOUTS, WARM, ROWS, STEPS = 50, 10, 32, 16


def held() -> tuple[int, int, int, int]:
    """Return the tensors that are alive, their bytes, those of objects, and of the process."""
    gc.collect()
    tensors = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
    objects, _ = tracemalloc.get_traced_memory()
    resident = psutil.Process().memory_info().rss
    return len(tensors), sum(x.nbytes for x in tensors), objects, resident


@pytest.mark.slow
def test_memory_stays_flat_over_fifty_rollouts(tmp_path):
    config = compose(
        {
            **dict(item.split("=", 1) for item in TINY),
            "run_dir": str(tmp_path / "run"),
            "total_steps": ROLLOUTS * ROWS * STEPS,
            "rollout": {"num_envs": ROWS, "num_steps": STEPS},
            "updates.per_rollout": 2,
            "env.options.horizon": 4,
            "validation.every_rollouts": 5,
        }
    )
    tracemalloc.start()
    trainer = Trainer(config, join_ranks("cpu"))
    seen = []
    try:
        for metrics in trainer.updates(lambda: False):
            if metrics["update"] == "full":
                seen.append(held())
        rollout = trainer.parts.rollout.nbytes
    finally:
        trainer.close()
        tracemalloc.stop()
    assert len(seen) == ROLLOUTS
    tensors, tensor_bytes, objects, resident = zip(*seen[WARM - 1 :], strict=True)
    assert max(tensors) == min(tensors)
    assert max(tensor_bytes) == min(tensor_bytes)
    # Python keeps a kilobyte of small objects now and then; a column that stays is far more.
    assert (objects[-1] - objects[0]) / (ROLLOUTS - WARM) < rollout / 8
    assert (resident[-1] - resident[0]) / (ROLLOUTS - WARM) < 2**18
