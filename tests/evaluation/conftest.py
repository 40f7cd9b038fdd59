"""A small untrained agent in a small Darkroom: enough to evaluate in a second."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from envs.make import make_trial_env
from relic.evaluation.protocol import Protocol
from relic.policy.config import PolicyConfig
from relic.policy.loading import save_policy
from relic.policy.policy import Policy
from relic.schema import build

HORIZON = 12
OPTIONS = {"split": "train", "size": 4, "horizon": HORIZON}


def small_policy(seed: int = 0, **encoder: object) -> Policy:
    env = make_trial_env("relic/Darkroom-v0", 1, OPTIONS)
    sizes = {"num_layers": 1, "num_heads": 2, "width": 16, "mlp_width": 16}
    config = build(PolicyConfig, {"transformer": sizes, "encoder": encoder})
    torch.manual_seed(seed)
    policy = Policy(
        config,
        env.single_observation_space,  # type: ignore[arg-type]
        env.single_action_space,
        max_episode_steps=env.max_episode_steps,
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return policy.eval()


def small_protocol(**changes: object) -> Protocol:
    fields: dict = {
        "name": "small",
        "env": "relic/Darkroom-v0",
        "options": {**OPTIONS, "split": "test"},
        "trials": 3,
        "repeats": 2,
        "episodes": 4,
        "block": 4,
        **changes,
    }
    return build(Protocol, fields)


@pytest.fixture
def policy() -> Policy:
    return small_policy()


@pytest.fixture
def run(tmp_path) -> Path:
    """A run directory as training leaves it, with two checkpoints."""
    directory = tmp_path / "run"
    for seed, name in enumerate(("step_000000000100", "step_000000000200")):
        save_policy(
            directory / "checkpoints" / name, small_policy(seed), env_steps=100 + 100 * seed
        )
    pointers = {"best": "step_000000000100", "latest": "step_000000000200"}
    for pointer, name in pointers.items():
        (directory / "checkpoints" / f"{pointer}.json").write_text(json.dumps({"name": name}))
    config = {"experiment": "small", "env": {"id": "relic/Darkroom-v0", "options": OPTIONS}}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return directory
