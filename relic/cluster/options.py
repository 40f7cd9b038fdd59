"""The options of `train.py` inside an RLlib configuration, and the run that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from relic.run.compose import compose
from relic.run.config import RunConfig
from relic.schema import build


def resolve(options: Mapping[str, Any]) -> RunConfig:
    """Return the checked configuration of a run on Ray.

    Args:
        options: Group choices and dotted keys, as on a command line; or all sections of a
            configuration, nested as in `config.yaml`.

    Raises:
        ConfigError: If anything is refused.
    """
    complete = all(field.name in options for field in fields(RunConfig))
    config = build(RunConfig, options) if complete else compose(options)
    return replace(config, cluster=replace(config.cluster, backend="ray"))


def run_of(config: Any) -> RunConfig:
    """Return the run that a `ReLICConfig` describes; RLlib's own types do not know of it."""
    return resolve(config.relic)
