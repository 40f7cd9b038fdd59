"""A small evaluation during training, on trials that are not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from envs.vector import TrialVectorEnv
from relic.evaluation.evaluator import Record, make_env, run_block
from relic.evaluation.protocol import Protocol
from relic.policy.policy import Policy
from relic.run.config import RunConfig

MEASURES = ("return", "success", "spl")


def validation_protocol(config: RunConfig) -> Protocol:
    """Return what a run's validation evaluates."""
    part = config.validation
    return Protocol(
        name=f"{config.experiment}-validation",
        env=config.env.id,
        options={**config.env.options, **part.options},
        trials=part.trials,
        episodes=part.episodes,
        block=part.trials,
        seed=config.seed,
    )


class Validator:
    """Measures the policy now and then. Its noise is its own: training does not notice it."""

    def __init__(self, config: RunConfig):
        """Build the environment of the validation."""
        self._protocol = validation_protocol(config)
        self._from_episode = config.validation.score_from_episode
        self._env: TrialVectorEnv = make_env(self._protocol)

    def run(self, policy: Policy) -> dict[str, Any]:
        """Evaluate and return metrics that start with `val/`."""
        was_training = policy.training
        policy.eval()
        with torch.no_grad():
            records = [
                record
                for block in self._protocol.blocks()
                for record in run_block(policy, self._env, self._protocol, block)
            ]
        policy.train(was_training)
        return summarise(records, from_episode=self._from_episode)

    def close(self) -> None:
        """Release the environment."""
        self._env.close()


def summarise(records: Sequence[Record], *, from_episode: int = 0) -> dict[str, Any]:
    """Average the measures that records have: late episodes as one number, all by index."""
    metrics: dict[str, Any] = {}
    for name in MEASURES:
        curve = by_episode(records, name)
        if not curve:
            continue
        late = [r[name] for r in records if r["episode"] >= from_episode]
        if late:
            metrics[f"val/{name}"] = float(np.mean(late))
        metrics[f"val/{name}_by_episode"] = curve
    return metrics


def by_episode(records: Sequence[Record], name: str) -> list[float | None]:
    """Return the mean of a measure by the episode's index in its trial; None where none ended."""
    values: dict[int, list[float]] = {}
    for record in records:
        if name in record:
            values.setdefault(record["episode"], []).append(float(record[name]))
    if not values:
        return []
    return [float(np.mean(values[i])) if i in values else None for i in range(max(values) + 1)]
