"""The facts that all actors of a job share: the run, and the spaces of its environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from gymnasium import spaces

from envs.core.vector import TrialVectorEnv
from relic.run.compose import compose
from relic.run.config import RunConfig
from relic.schema import build
from relic.upgrade import upgrade_config

FACTS = "relic_facts"
"""Key of the environment's facts in what RLlib calls spaces, and in a module's configuration."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be known of an environment that runs elsewhere; a `relic.run` EnvFacts."""

    single_observation_space: spaces.Space[Any]
    single_action_space: spaces.Space[Any]
    max_episode_steps: int
    time_limit_default: str
    privileged: Sequence[str]
    kinds: Mapping[str, str]

    @classmethod
    def of(cls, env: TrialVectorEnv) -> Facts:
        """Read them off an environment."""
        return cls(
            env.single_observation_space,
            env.single_action_space,
            env.max_episode_steps,
            env.time_limit_default,
            tuple(env.privileged),
            dict(env.kinds),
        )


def resolve(options: Mapping[str, Any]) -> RunConfig:
    """Return the checked configuration of a run on Ray.

    Args:
        options: Group choices and dotted keys, as on a command line; or all sections of a
            configuration, nested as in `config.yaml`.

    Raises:
        ConfigError: If anything is refused.
    """
    complete = all(field.name in options for field in fields(RunConfig))
    # A whole one may come from an RLlib checkpoint, which may be old.
    config = build(RunConfig, upgrade_config(options)) if complete else compose(options)
    return replace(config, cluster=replace(config.cluster, backend="ray"))


def run_of(config: Any) -> RunConfig:
    """Return the run that a `ReLICConfig` describes; RLlib's own types do not know of it."""
    return resolve(config.relic)
