"""Evaluations of a run on trials that it is not trained on.

A `Validator` measures the policy now and then during training; `final_scores` says at the end what
the newest agent is worth beside the one that the run began with, on fresh trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from envs.core.vector import TrialVectorEnv
from envs.make import make_trial_env
from relic.arguments import merged
from relic.evaluation.curves import area, tabulate
from relic.evaluation.evaluator import evaluate, make_env, run_blocks
from relic.evaluation.protocol import Protocol
from relic.evaluation.records import Record, count_crashed, in_order, policy_digest
from relic.evaluation.trained_agent import check_memory, known_trials
from relic.files import is_intact, parse_json, write_sealed
from relic.measures import number
from relic.policy import load
from relic.policy.loading import find_checkpoint
from relic.policy.origin import check_fit
from relic.policy.policy import Policy
from relic.run.components import build_envs, build_policy
from relic.run.config import RunConfig
from relic.run.distributed import Ranks
from relic.run.encoder import name_encoder
from relic.run.run_directory import RunDirectory
from relic.schema import ConfigError
from relic.stops import refusals

MEASURES = ("return", "success", "spl")


def validation_protocol(config: RunConfig) -> Protocol:
    """Return what a run's validation evaluates."""
    part = config.validation
    return Protocol(
        name=f"{config.experiment}-validation",
        env=config.env.id,
        options=merged(config.env.options, part.options),
        trials=part.trials,
        episodes=part.episodes,
        block=part.trials,
        seed=config.seed,
    )


def validation_env(config: RunConfig) -> TrialVectorEnv | None:
    """Return one row of the validation's environment to check a policy with, None without one.

    Raises:
        ConfigError: If it cannot be built, or has too few trials for the final validation.
    """
    part, protocol = config.validation, validation_protocol(config)
    if part.every_rollouts is None and not part.final_trials:
        return None
    with refusals():
        env = make_trial_env(protocol.env, 1, protocol.options)
    # Those of a validation may come round again; final ones would no longer be new.
    if part.final_trials and part.trials + part.final_trials > env.num_trials:
        env.close()
        raise ConfigError(
            f"validation.final_trials: must be among the {env.num_trials} trials that "
            f"{env.dataset_name} has, behind the {part.trials} of validation.trials, got "
            f"{part.final_trials}. Use fewer of either, or set final_trials=0."
        )
    return env


def check_validation(config: RunConfig, policy: Policy, env: TrialVectorEnv) -> None:
    """Check, before anything is trained, that the policy can act in the validation's environment.

    Args:
        config: The run.
        policy: Of the run.
        env: What `validation_env` returned.

    Raises:
        ConfigError: If it does not fit, or asks for more memory than there is.
    """
    part, protocol = config.validation, validation_protocol(config)
    with refusals():
        check_fit(policy, env)
        if part.every_rollouts is not None:
            check_memory(
                policy,
                part.trials,
                protocol.capacity(env.max_episode_steps),
                policy.device,
                asked="validation",
                advice="Use fewer validation.trials or validation.episodes.",
            )


def check_parts(config: RunConfig) -> None:
    """Refuse what the parts of a run would refuse, before minutes go into its encoder.

    Raises:
        ConfigError: If environment, policy or validation cannot be had as they are configured.
    """
    with refusals():
        (env,) = build_envs(config, range(1))
        try:
            policy = build_policy(config, env, torch.device("cpu"))
        finally:
            env.close()
    if (other := validation_env(config)) is not None:
        with closing(other):
            check_validation(config, policy, other)


class Validator:
    """Measures the policy now and then. Its noise is its own: training does not notice it."""

    def __init__(self, config: RunConfig, ranks: Ranks):
        """Build the environment of this rank's part of the validation."""
        self._ranks = ranks
        self._protocol = share_of(validation_protocol(config), ranks)
        self._from_episode = config.validation.score_from_episode
        self._env = None if self._protocol is None else make_env(self._protocol)

    def run(self, policy: Policy) -> dict[str, Any]:
        """Evaluate and return metrics that start with `val/`; all ranks call it together."""
        was_training = policy.training
        policy.eval()
        own: list[Record] = []
        if self._protocol is not None and self._env is not None:
            with torch.no_grad():
                own = list(run_blocks(policy, self._env, self._protocol))
        policy.train(was_training)
        return summarise(of_all(own, self._ranks), from_episode=self._from_episode)

    def close(self) -> None:
        """Release the environment."""
        if self._env is not None:
            self._env.close()


def share_of(protocol: Protocol, ranks: Ranks) -> Protocol | None:
    """Return a rank's part of the trials of a protocol; None where it has none."""
    begin, end = (n * protocol.trials // ranks.world_size for n in (ranks.rank, ranks.rank + 1))
    if begin == end:
        return None
    return replace(
        protocol,
        first_trial=protocol.first_trial + begin,
        trials=end - begin,
        block=min(protocol.block, end - begin),
    )


def of_all(records: Sequence[Record], ranks: Ranks) -> list[Record]:
    """Return the records of all ranks, in order; they must ask together."""
    return in_order(chain(*ranks.reduction.gather(list(records))))


def summarise(records: Sequence[Record], *, from_episode: int = 0) -> dict[str, Any]:
    """Average the measures that records have: late episodes as one number, all by index."""
    metrics: dict[str, Any] = {}
    for name in MEASURES:
        curve = by_episode(records, name)
        if not curve:
            continue
        late = [r[name] for r in records if name in r and r["episode"] >= from_episode]
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


def final_scores(config: RunConfig, directory: RunDirectory, ranks: Ranks) -> str:
    """Say how the agent does, and how it did when the run began, with 95 % intervals.

    They are evaluated once: what came out is kept in the run directory, and belongs to the weights.

    Args:
        config: The run; its validation says what is evaluated.
        directory: Where its checkpoints are.
        ranks: Those that share the trials; all call it together.
    """
    agent = policy_digest(find_checkpoint(directory.path))
    said = _kept_scores(directory.final_scores, agent) if ranks.is_first else None
    if ranks.any(said is not None):
        return said or ""
    said = _measure(config, directory, ranks)
    if ranks.is_first:
        write_sealed(directory.final_scores, {"policy": agent, "scores": said.splitlines()})
    return said


def _kept_scores(path: Path, agent: str) -> str | None:
    """Return the scores of an agent that were measured before, if they were and are whole."""
    try:
        content = parse_json(path.read_bytes())
        known = is_intact(path, content) and content["policy"] == agent
        return "\n".join(content["scores"]) if known else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _measure(config: RunConfig, directory: RunDirectory, ranks: Ranks) -> str:
    """Evaluate the agent as it is and as the run began; all ranks together."""
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
        begun = build_policy(name_encoder(config, directory), env, torch.device("cpu"))
    finally:
        env.close()
    trained = load(directory.path)
    kind = kind_of_trials(config, protocol)
    first = "untrained" if config.init_from is None else f"as it began, from {config.init_from}"
    return "\n".join(
        f"{name}: {_score(policy, protocol, ranks)} {kind}"
        for name, policy in (("trained", trained), (first, begun))
    )


def kind_of_trials(config: RunConfig, protocol: Protocol) -> str:
    """Say whether the agent was trained on the trials of a protocol."""
    known = known_trials(protocol, config.env.id, config.env.options)
    return f"trials, {len(known)} of them of those that it trains on" if known else "unseen trials"


def _score(policy: Policy, protocol: Protocol, ranks: Ranks) -> str:
    policy.eval()
    share = share_of(protocol, ranks)
    with torch.no_grad():
        own = [] if share is None else evaluate(policy, share)
    records = of_all(own, ranks)
    name = "success" if "success" in records[0] else "return"
    interval = area(tabulate(records, name))
    mean, low, high = (number(interval[part], name) for part in ("mean", "low", "high"))
    crashed = count_crashed(records)
    cut = f", {crashed} of which crashed" if crashed else ""
    shown = "unknown interval"
    if interval["low"] is not None:
        shown = f"95 % interval {low.removesuffix(' %')} to {high}"
    return f"mean {name} {mean} ({shown}) in {len(records)} episodes{cut} of {protocol.trials}"
