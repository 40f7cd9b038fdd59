"""Evaluations of a run on trials that it is not trained on.

A `Validator` measures the policy now and then during training; `final_scores` says at the end what
the newest agent is worth beside the untrained one, on fresh trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from envs.core.vector import TrialVectorEnv
from envs.make import make_trial_env
from relic.evaluation.curves import area, tabulate
from relic.evaluation.evaluator import check_fit, evaluate, make_env, run_blocks
from relic.evaluation.protocol import Protocol
from relic.evaluation.records import Record
from relic.policy import load
from relic.policy.policy import Policy
from relic.pretraining.pretrain import name_encoder
from relic.run.components import build_policy, refusals
from relic.run.config import RunConfig
from relic.run.run_directory import RunDirectory

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


def check_validation(config: RunConfig, policy: Policy) -> None:
    """Check, before anything is trained, that the policy can act in the validation's environment.

    Raises:
        ConfigError: If it cannot be built, or does not fit.
    """
    protocol = validation_protocol(config)
    with refusals():
        env = make_trial_env(protocol.env, 1, protocol.options)
        try:
            check_fit(policy, env)
        finally:
            env.close()


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
            records = list(run_blocks(policy, self._env, self._protocol))
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
    having = [r for r in records if name in r]
    return mean_by_index([r["episode"] for r in having], [r[name] for r in having])


def mean_by_index(index_K: ArrayLike, value_K: ArrayLike) -> list[float | None]:
    """Return the mean of the values at each index from 0 on; None where there is none."""
    index, value = np.asarray(index_K, int), np.asarray(value_K, float)
    return [
        float(value[index == i].mean()) if (index == i).any() else None
        for i in range(index.max(initial=-1) + 1)
    ]


def final_scores(config: RunConfig, directory: RunDirectory) -> str:
    """Evaluate the trained and the untrained agent; say how they did, with 95 % intervals.

    Args:
        config: The run; its validation says what is evaluated.
        directory: Where its checkpoints are.
    """
    part = config.validation
    protocol = replace(
        validation_protocol(config),
        name=f"{config.experiment}-final",
        first_trial=part.trials,  # the validation may have picked a checkpoint on those before
        trials=part.final_trials,
        block=min(part.final_trials, 32),
    )
    env = make_env(protocol)
    try:
        untrained = build_policy(name_encoder(config, directory), env, torch.device("cpu"))
    finally:
        env.close()
    trained = load(directory.path)
    return "\n".join(
        f"{name}: {_score(policy, protocol)}"
        for name, policy in (("trained", trained), ("untrained", untrained))
    )


def _score(policy: Policy, protocol: Protocol) -> str:
    policy.eval()
    with torch.no_grad():
        records = evaluate(policy, protocol)
    name = "success" if "success" in records[0] else "return"
    interval = area(tabulate(records, name))
    shown = "unknown interval"
    if interval["low"] is not None:
        shown = f"95 % interval {interval['low']:.3f} to {interval['high']:.3f}"
    return (
        f"mean {name} {interval['mean']:.3f} ({shown}) in {len(records)} episodes of "
        f"{protocol.trials} unseen trials"
    )
