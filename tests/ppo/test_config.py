import math

import pytest

from relic.ppo.config import OptimizerKind, PPOConfig, UpdatesConfig
from relic.schema import ConfigError, build


@pytest.mark.parametrize(
    ("cls", "data", "message"),
    [
        (PPOConfig, {"gamma": 1.5}, r"ppo\.gamma: must be in \[0, 1\], got 1.5"),
        (PPOConfig, {"lr": -1.0}, r"ppo\.lr: must be at least 0 and finite, got -1.0"),
        (PPOConfig, {"vf_coef": math.inf}, r"ppo\.vf_coef: must be at least 0 and finite, got inf"),
        (PPOConfig, {"update_epochs": 0}, r"ppo\.update_epochs: must be at least 1, got 0"),
        (PPOConfig, {"clip_coef": 0.0}, r"ppo\.clip_coef: must be positive, got 0.0"),
        (PPOConfig, {"weight_decay": 0.1}, r"ppo\.weight_decay: must be 0 with optimizer=adam"),
        (PPOConfig, {"credit": "trail"}, r"ppo\.credit: unknown 'trail'.*Did you mean 'trial'"),
        (UpdatesConfig, {"row_fraction": 0.0}, r"updates\.row_fraction: must be in \(0, 1\]"),
        (
            UpdatesConfig,
            {"refresh_memory": False},
            r"updates\.shuffle: must be off without refresh_memory.*shuffle=false",
        ),
        (
            UpdatesConfig,
            {"refresh_in_pass": True},
            r"updates\.refresh_in_pass: must be off where every update is followed by a refresh",
        ),
        (
            UpdatesConfig,
            {"refresh_in_pass": True, "refresh_every": 2, "prefix_gradient": "none"},
            r"updates\.refresh_in_pass: must be off with prefix_gradient=none",
        ),
        (
            UpdatesConfig,
            {"full_order": "time", "full_per_rollout": 4, "refresh_every": 2},
            r"updates\.full_order: must be shuffled where full updates within a rollout",
        ),
        (
            UpdatesConfig,
            {"prefix_window": 64, "prefix_gradient": "none"},
            r"updates\.prefix_window: must be 0 with prefix_gradient=none, got 64.*detached",
        ),
    ],
)
def test_refused_values(cls, data, message):
    path = "ppo" if cls is PPOConfig else "updates"
    with pytest.raises(ConfigError, match=message):
        build(cls, data, path)


def test_plain_values_become_typed_ones():
    config = build(PPOConfig, {"optimizer": "adamw", "weight_decay": 0.1, "time_limit": None})
    assert config.optimizer is OptimizerKind.ADAMW
    assert config.time_limit is None
