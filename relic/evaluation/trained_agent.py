"""The agent to evaluate: a trained policy with its task, or an expert."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from envs.core.vector import TrialVectorEnv
from envs.make import default_protocol, make_trial_env
from relic.arguments import merged
from relic.evaluation.controls import limited
from relic.evaluation.evaluator import ExpertActor
from relic.evaluation.protocol import NO_LIMIT, Protocol, load_protocol
from relic.evaluation.records import policy_digest
from relic.evaluation.settings import Asked, named_protocol, set_fields
from relic.policy.loading import (
    DESCRIPTION_FILE,
    check_device,
    find_checkpoint,
    load,
    read_meta,
)
from relic.policy.origin import (
    check_fit,
    check_programs,
    find_origin,
    programs_in,
    remember_programs,
)
from relic.policy.policy import Policy
from relic.schema import ConfigError, build, choice
from relic.shipped import outside

DEFAULT_PROTOCOLS = {
    "relic/Darkroom-v0": "darkroom_test",
    "relic/FourBoxes-v0": "four_boxes_test",
    "relic/Houses-v0": "houses_small_val",
    "relic/Revisits-v0": "revisits_val",
}
"""Of the environments that come with this project."""


@dataclass(frozen=True, slots=True)
class TrainedAgent:
    """A checkpoint, and what its run's configuration says of its environment."""

    root: Path
    """Where its evaluations go: the run, or the directory that a checkpoint alone was found in."""
    checkpoint: Path
    env: str
    options: Mapping[str, Any]
    meta: Mapping[str, Any]
    trained_steps: int | None = None
    """Steps of a trial in training, which is one rollout; None where the run does not say it."""

    @property
    def name(self) -> str:
        """How the checkpoint is called."""
        return self.checkpoint.name

    @property
    def digest(self) -> str:
        """Changes with the configuration or the weights."""
        return policy_digest(self.checkpoint)

    def actor(self, protocol: Protocol, device: str) -> Policy:
        """Load the policy, within the protocol's limit of the context."""
        return limited(load(self.checkpoint, device), protocol.context_limit)


@dataclass(frozen=True, slots=True)
class Expert:
    """The environment's own expert, to be evaluated by the protocol of an agent or alone."""

    kind: str
    """`full` or `memory`; see `TrialVectorEnv.expert_actions`."""
    root: Path
    """Where its evaluations go: the run that it is compared with, or the working directory."""
    env: str
    options: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=dict)
    trained_steps: int | None = None

    @property
    def name(self) -> str:
        """What stands in the place of a checkpoint."""
        return f"expert_{self.kind}"

    @property
    def digest(self) -> str:
        """Tells it from policies."""
        return f"expert {self.kind}"

    def actor(self, protocol: Protocol, device: str) -> ExpertActor:
        """Return who acts."""
        del protocol, device  # it remembers all of a trial, and computes on the CPU
        return ExpertActor(self.kind)


def find_agent(path: str | Path, which: Literal["latest", "best"] = "latest") -> TrainedAgent:
    """Find the policy and the configuration of a run directory or a checkpoint.

    Raises:
        FileNotFoundError: If the path holds no policy, or no configuration comes with it.
        ConfigError: If the configuration is damaged.
    """
    return _agent_at(find_checkpoint(path, which=which))


def find_agents(path: str | Path, which: Literal["latest", "best", "all"]) -> list[TrainedAgent]:
    """Find what of a run directory is asked for, or a checkpoint; `all` is in order of steps.

    Raises:
        FileNotFoundError: If the path holds no policy, or no configuration comes with it.
        ConfigError: If the configuration is damaged.
    """
    choice(which, ("latest", "best", "all"), "which")
    if which != "all":
        return [find_agent(path, which)]
    found = (file.parent for file in (Path(path) / "checkpoints").glob(f"*/{DESCRIPTION_FILE}"))
    whole = sorted(path for path in found if not path.suffix)  # `.unfinished` is being written
    agents = [_agent_at(checkpoint) for checkpoint in whole]
    agents.sort(key=lambda agent: agent.meta.get("env_steps", 0))
    return agents or [find_agent(path)]


def _agent_at(checkpoint: Path) -> TrainedAgent:
    origin = find_origin(checkpoint)
    return TrainedAgent(
        outside(origin.root),
        checkpoint,
        origin.env,
        origin.options,
        read_meta(checkpoint),
        origin.num_steps,
    )


def chosen_protocol(name: str | None, changes: Mapping[str, Any], env: str | None = None) -> Asked:
    """Return a protocol with its fields changed, or make one of them.

    Args:
        name: Of the protocol, or the path of its file. None: that of the environment.
        changes: Values by dotted name of its field; `env` names the environment.
        env: The run's environment, where there is one.

    Raises:
        ConfigError: If the name or a value is refused, or too little is said.
        ValueError: If there is no such environment.
    """
    if name is not None:
        return named_protocol(name, changes)
    env = changes.get("env", env)
    assert env is not None  # the command line refuses that neither is there
    rest = {key: value for key, value in changes.items() if key != "env"}
    base = protocol_of(env)
    if base is not None:
        return Asked.of(base, rest)
    if rest.keys().isdisjoint(("trials", "episodes", "steps")):
        raise ConfigError(
            f"protocol: must be given for {env}, which has none by default. Set trials=50 "
            "episodes=10 and options.split=val, or whatever holds out trials; or "
            "protocol=FILE.yaml.\n"
            "docs/own_environment.md says how an environment gets a default."
        )
    made = build(Protocol, set_fields({"name": _name_of(env), "env": env}, rest), "protocol")
    return Asked(made, made)


def protocol_of(env: str) -> Protocol | None:
    """Return the protocol that an environment has by default, None if it has none.

    Raises:
        ConfigError: If what an environment of one's own says is none.
    """
    if env in DEFAULT_PROTOCOLS:
        return load_protocol(DEFAULT_PROTOCOLS[env])
    said, where = default_protocol(env), f"{env}.default_protocol"
    if said is None:
        return None
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where}: must be a dict of a protocol's fields, got {said!r:.80}.")
    return build(Protocol, {"name": _name_of(env), **said, "env": env}, where)


def _name_of(env: str) -> str:
    return re.sub(r"\W+", "_", env)


def fit_protocol(
    agent: TrainedAgent | Expert,
    protocol: Protocol,
    *,
    allow_trained: bool = False,
    device: str = "cpu",
    workers: int = 1,
) -> Protocol:
    """Return the protocol with the run's own options where it says nothing, checked.

    A protocol names the task; what else an environment needs, such as the agent's sensors and
    resolution, is as the run had it.

    Args:
        agent: What is evaluated.
        protocol: How.
        allow_trained: Pass even trials that the run was trained on.
        device: Where the policy will be.
        workers: Processes that each evaluate a block at a time.

    Raises:
        ConfigError: If the environment is another, or its trials were trained on.
        ValueError: If the policy does not fit the environment, the limit of the context or the
            length of the trials.
    """
    check_device(device)
    if protocol.env != agent.env:
        raise ConfigError(
            f"protocol: must be of the run's environment {agent.env}, got {protocol.name} of "
            f"{protocol.env}. Choose another protocol."
        )
    check_programs(agent.root, agent.options, protocol.options)
    remember_programs(protocol.options)
    # The protocol's options come last: they say what the task is.
    fitted = replace(protocol, options=merged(agent.options, protocol.options))
    env = make_trial_env(fitted.env, 1, fitted.options)
    try:
        if protocol.first_trial + protocol.trials > env.num_trials:
            raise ConfigError(
                f"protocol.trials: must name each of the {env.num_trials} trials of "
                f"{env.dataset_name} once, got {protocol.first_trial} to "
                f"{protocol.first_trial + protocol.trials - 1}. Lower first_trial or trials, or "
                "raise repeats."
            )
        if isinstance(agent, Expert):
            _check_expert(agent, env, protocol)
            return fitted
        shared = trained_on(agent, fitted)
        if shared and not allow_trained:
            raise ConfigError(
                "protocol: must not use trials that the run was trained on, got "
                f"{len(shared)} of {protocol.trials} in {env.dataset_name}. Choose another split, "
                "or set allow_trained=true to measure what it remembers."
            )
        policy = limited(load(agent.checkpoint), protocol.context_limit)
        check_fit(policy, env)
        longest = env.max_episode_steps
        steps = protocol.capacity(longest)
        check_reach(policy, protocol.least_episodes(longest), steps)
        blocks = min(workers, protocol.num_blocks)
        check_memory(policy, blocks * protocol.block, steps, device)
    finally:
        env.close()
    return fitted


def _check_expert(expert: Expert, env: TrialVectorEnv, protocol: Protocol) -> None:
    if protocol.context_limit != NO_LIMIT:
        raise ConfigError(
            "context_limit: must not be given with expert, whose memory has no limit, got "
            f"{protocol.context_limit}. Evaluate the run alone."
        )
    env.reset()
    try:
        env.expert_actions(expert.kind)
    except NotImplementedError:
        raise ConfigError(
            f"expert: must be one that {expert.env} has, got {expert.kind}. "
            "Choose another environment, or leave expert out."
        ) from None


def check_reach(policy: Policy, episodes: int, steps: int) -> None:
    """Check that the policy's tables of positions reach as far as trials may go.

    Args:
        policy: Who acts.
        episodes: That a trial has at least.
        steps: That a trial may have.

    Raises:
        ValueError: If a table is too short.
    """
    reach = policy.memory.reach
    if reach.episodes is not None and episodes > reach.episodes:
        raise ValueError(
            f"protocol.episodes: must be at most {reach.episodes}, for which the policy has "
            f"learned positions, got trials of {episodes} or more. Use fewer."
        )
    if reach.steps is not None and steps > reach.steps:
        raise ValueError(
            f"protocol: must keep trials within the {reach.steps} steps that the policy has "
            f"learned positions for, got up to {steps}. Use fewer episodes or steps."
        )


def check_memory(
    policy: Policy,
    rows: int,
    steps: int,
    device: str | torch.device,
    *,
    asked: str = "protocol",
    advice: str = "Use fewer episodes, a smaller block, fewer workers, or context_limit=last:N.",
) -> None:
    """Check that what the policy is to remember fits into the memory that is free.

    Args:
        policy: Who acts, within its limit.
        rows: Trials that are remembered at once.
        steps: That a trial may have.
        device: Where the policy will be.
        asked: What says how much that is.
        advice: What to do where it is too much.

    Raises:
        ValueError: If it does not fit.
    """
    wanted = rows * policy.memory.bytes_per_row(steps)
    cuda = torch.device(device).type == "cuda" and torch.cuda.is_available()
    free = torch.cuda.mem_get_info(device)[0] if cuda else psutil.virtual_memory().available
    if wanted > free:
        raise ValueError(
            f"{asked}: {rows} trials of up to {steps:,} steps must fit into the {free / 2**30:.1f} "
            f"GiB of memory that are free, got {wanted / 2**30:.1f} GiB. {advice}"
        )


def trained_on(agent: TrainedAgent | Expert, protocol: Protocol) -> list[int]:
    """Return the trials of the protocol whose tasks the run was trained on."""
    if isinstance(agent, Expert):
        return []
    # Not by programs that only the run names.
    own = merged(agent.options, programs_in(protocol.options))
    return known_trials(protocol, agent.env, own)


def known_trials(protocol: Protocol, env: str, options: Mapping[str, Any]) -> list[int]:
    """Return the trials of the protocol whose tasks an environment that was trained in has, too."""
    evaluated, trained = (
        make_trial_env(name, 1, chosen)
        for name, chosen in ((protocol.env, protocol.options), (env, options))
    )
    try:
        first = protocol.first_trial
        return evaluated.shared_trials(trained, range(first, first + protocol.trials))
    finally:
        evaluated.close()
        trained.close()
