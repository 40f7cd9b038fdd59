"""The kernels of acting and learning, compiled by a tiny run; see `envs.core.kernels`."""

from __future__ import annotations

import torch

from relic.ppo.loop import run_rollout
from relic.ppo.reduction import Reduction
from relic.run.components import build_components
from relic.run.compose import compose
from relic.run.distributed import Ranks


def learn() -> None:
    """Train where nothing needs to be compiled to simulate, with heads as in houses."""
    config = compose(
        {
            "experiment": "darkroom",
            # Of few steps in a pass kernels would not pay, and so not be met.
            "rollout": {"num_envs": 2, "num_steps": 256},
            "ppo.num_minibatches": 2,
            "policy.transformer": {"num_heads": 4, "width": 96, "mlp_width": 192},
            "device": "cpu",
            "threads": 1,
        }
    )
    parts = build_components(config, Ranks(0, 1, torch.device("cpu"), Reduction()))
    try:
        for _ in run_rollout(parts.collector, parts.learner, parts.learner.schedule):
            pass
    finally:
        parts.close()
