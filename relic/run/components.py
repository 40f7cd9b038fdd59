"""Builds the parts of a run, and refuses bad settings before large allocations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from gymnasium import spaces
from torch import Tensor

from envs.core.hooks import TrialHooks
from envs.core.kernels import compile_ahead
from envs.core.vector import TrialVectorEnv
from envs.make import kernel_parts, make_trial_env, option_names
from relic.policy import load
from relic.policy.config import PolicyConfig
from relic.policy.loading import find_checkpoint, load_config
from relic.policy.policy import Policy
from relic.ppo.collector import Collector
from relic.ppo.config import ExpertKind
from relic.ppo.learner import Learner
from relic.ppo.returns import TimeLimit
from relic.ppo.rollout import Rollout
from relic.ppo.source import RolloutSource
from relic.run.config import RunConfig
from relic.run.distributed import Ranks
from relic.run.planner import MemoryPlan, plan_memory
from relic.run.run_directory import Saved
from relic.schema import ConfigError, differences, to_plain
from relic.stops import refusals


class EnvFacts(Protocol):
    """What policy and learner must know of an environment, wherever it runs."""

    @property
    def single_observation_space(self) -> spaces.Space[Any]:
        """What one row sees."""
        ...

    @property
    def single_action_space(self) -> spaces.Space[Any]:
        """What one row does."""
        ...

    @property
    def max_episode_steps(self) -> int:
        """An episode that lasts this long is truncated."""
        ...

    @property
    def time_limit_default(self) -> str:
        """How a learner should see time limits."""
        ...

    @property
    def privileged(self) -> Sequence[str]:
        """Observations that an agent must not know."""
        ...

    @property
    def kinds(self) -> Mapping[str, str]:
        """What arrays of an observation hold, where the environment says it."""
        ...


_LEARNING = {"learning": "relic.run.kernels:learn"}
"""What is compiled beside the environment; see `envs.core.kernels.compile_ahead`."""

MakeSource = Callable[[Policy, Rollout], RolloutSource]
"""Makes who fills the rollout, by the policy's actions."""


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of a run in this process."""

    envs: tuple[TrialVectorEnv, ...]
    policy: Policy
    rollout: Rollout
    collector: RolloutSource
    learner: Learner
    plan: MemoryPlan

    def close(self) -> None:
        """Release environments and threads."""
        self.collector.close()
        for env in self.envs:
            env.close()


def build_components(config: RunConfig, ranks: Ranks) -> Components:
    """Build the parts of a run whose environments live in this process.

    Raises:
        ConfigError: If ranks, rows and groups do not divide, the memory does not suffice, or an
            environment or policy refuses its options.
    """
    with refusals():
        groups = config.rollout.groups
        envs = build_envs(config, rows_of_rank(config, ranks, groups=groups), groups=groups)

        def collector(policy: Policy, rollout: Rollout) -> Collector:
            return build_collector(config, envs, policy, rollout, world_size=ranks.world_size)

        return assemble(config, ranks, envs[0], collector, envs=envs)


def rows_of_rank(config: RunConfig, ranks: Ranks, *, groups: int = 1) -> range:
    """Return the global numbers of the rows of this process.

    Raises:
        ConfigError: If ranks, and the groups of each, do not divide the rows.
    """
    parts = ranks.world_size * groups
    if config.rollout.num_envs % parts:
        raise ConfigError(
            f"rollout.num_envs: must be a multiple of ranks times groups, got "
            f"num_envs={config.rollout.num_envs}, ranks={ranks.world_size}, groups={groups}. "
            f"Use a multiple of {parts}."
        )
    rows = config.rollout.num_envs // ranks.world_size
    return range(ranks.rank * rows, (ranks.rank + 1) * rows)


def build_policy(config: RunConfig, facts: EnvFacts, device: torch.device) -> Policy:
    """Build the policy as the run starts with it: seeded, or from another run's weights."""
    # Initial weights depend on the run's seed alone, not on what was drawn before.
    torch.manual_seed(config.seed)
    space = facts.single_observation_space
    assert isinstance(space, spaces.Dict)
    _check_shown(config, space)
    policy = Policy(
        with_word_of(facts, config.policy),
        space,
        facts.single_action_space,
        max_episode_steps=facts.max_episode_steps,
    )
    if config.init_from is not None:
        _copy_weights(policy, config.init_from)
    return policy.to(device)


def _check_shown(config: RunConfig, space: spaces.Dict) -> None:
    """Refuse inputs that the environment shows only if an option of the same name says so."""
    for key in config.policy.encoder.keys or ():
        if key not in space.spaces and key in option_names(config.env.id):
            raise ConfigError(
                f"policy.encoder.keys: must name what the environment shows, got {key!r}, which "
                f"is an option of it. Set env.options.{key}=true."
            )


def with_word_of(facts: EnvFacts, policy: PolicyConfig) -> PolicyConfig:
    """Return a policy's configuration with what the environment says of its observations.

    What the configuration says of them itself goes before that.
    """
    space = facts.single_observation_space
    assert isinstance(space, spaces.Dict)
    shown = space.spaces.keys()
    said = {key: kind for key, kind in facts.kinds.items() if key in shown}
    hidden = [key for key in facts.privileged if key in shown]
    encoder = replace(
        policy.encoder,
        kinds=said | policy.encoder.kinds,
        privileged=tuple(dict.fromkeys([*hidden, *policy.encoder.privileged])),
    )
    return replace(policy, encoder=encoder)


def with_saved_inputs(config: RunConfig, saved: Saved | None) -> RunConfig:
    """Let a run that goes on take its observations for what it took them for before.

    An older version may have judged them otherwise, and an environment may have changed its word.
    """
    if saved is None:
        return config
    before = load_config(saved.path).encoder
    encoder = replace(config.policy.encoder, kinds=before.kinds, privileged=before.privileged)
    return replace(config, policy=replace(config.policy, encoder=encoder))


def build_rollout(
    config: RunConfig, policy: Policy, rows: range, device: torch.device | str
) -> Rollout:
    """Allocate the rollout of some rows, by their global numbers."""
    return Rollout(
        len(rows),
        config.rollout.num_steps,
        policy.stored_space,
        action_space=policy.action_space,
        dtypes=policy.stored_dtypes,
        device=device,
        first_row=rows.start,
        demonstrations=config.ppo.expert_steps > 0,
    )


def build_collector(
    config: RunConfig,
    envs: Sequence[TrialVectorEnv],
    policy: Policy,
    rollout: Rollout,
    *,
    world_size: int,
) -> Collector:
    """Build who fills a rollout from environments of this process."""
    return Collector(
        envs,
        policy,
        rollout,
        seed=config.seed,
        credit=config.ppo.credit,
        time_limit=_time_limit(config, envs[0]),
        expert_share=config.ppo.expert_share if config.ppo.expert_steps else 0.0,
        expert_steps=config.ppo.expert_steps,
        expert=config.ppo.expert,
        world_size=world_size,
        cache_dtype=config.rollout.torch_cache_dtype,
        cuda_graph=config.rollout.cuda_graph and policy.device.type == "cuda",
    )


def assemble(
    config: RunConfig,
    ranks: Ranks,
    facts: EnvFacts,
    make_source: MakeSource,
    *,
    envs: Sequence[TrialVectorEnv] = (),
) -> Components:
    """Build policy, rollout and learner around a source of rollouts.

    Args:
        config: The run.
        ranks: This process among those of the run.
        facts: Of the environment that the source acts in.
        make_source: Is called once memory is known to suffice.
        envs: Environments of this process, to be closed with the parts.
    """
    rows = rows_of_rank(config, ranks)
    policy = build_policy(config, facts, ranks.device)
    if envs:
        # Only now that environment and policy have refused nothing: it may take a minute.
        compile_ahead({**kernel_parts(config.env.id), **_LEARNING})
    # Ranks that begin alike stay alike, since they step by the same summed gradients.
    ranks.reduction.broadcast(policy)
    plan = plan_memory(
        config,
        policy,
        rows=len(rows),
        processes=ranks.on_this_machine,
        on_device=ranks.on_this_device,
    )
    plan.check(config)
    device = ranks.device if plan.rollout_on_device else "cpu"
    # Only now: the plan may have refused what would not fit.
    rollout = build_rollout(config, policy, rows, device)
    learner = Learner(
        policy,
        config.ppo,
        config.updates,
        num_envs=len(rows),
        num_steps=config.rollout.num_steps,
        total_steps=config.planned_steps,
        seed=config.seed,
        time_limit=_time_limit(config, facts),
        reduction=ranks.reduction,
    )
    return Components(tuple(envs), policy, rollout, make_source(policy, rollout), learner, plan)


def build_envs(config: RunConfig, rows: range, *, groups: int = 1) -> list[TrialVectorEnv]:
    """Build environments that share some rows, given by their global numbers, in order."""
    each = len(rows) // groups
    envs = [
        make_trial_env(config.env.id, each, {**config.env.options, "first_row": first_row})
        for first_row in rows[::each]
    ]
    _check_expert(config, envs[0])
    return envs


def _check_expert(config: RunConfig, env: TrialVectorEnv) -> None:
    kind = config.ppo.expert
    hook = "ask_expert" if kind is ExpertKind.FULL else "ask_memory_expert"
    if config.ppo.expert_steps and getattr(type(env), hook) is getattr(TrialHooks, hook):
        raise ConfigError(
            f"ppo.expert: must be one that {config.env.id} has to clone it, got {kind.value}. "
            "Use another, or set ppo.objective=ppo and ppo.clone_steps=0."
        )


def _time_limit(config: RunConfig, facts: EnvFacts) -> TimeLimit:
    return config.ppo.time_limit or TimeLimit(facts.time_limit_default)


def changes_at_start(config: RunConfig) -> list[str]:
    """Say what of the policy's configuration differs from that of the weights it starts from.

    Weights of the same shape may mean something else then, as with other units of a vector.
    """
    if config.init_from is None:
        return []
    before, now = to_plain(load_config(find_checkpoint(config.init_from))), to_plain(config.policy)
    # What the environment says of itself, and files whose weights are replaced.
    free = ("encoder.checkpoint", "encoder.kinds", "encoder.privileged")
    found = differences(before, now, free=free)
    return [f"init_from: policy.{line} (changed since {config.init_from})" for line in found]


def _copy_weights(policy: Policy, path: str) -> None:
    loaded = load(path)
    if loaded.action_space != policy.action_space:
        raise ConfigError(
            f"init_from: must be a policy with the actions {policy.action_space}, got "
            f"{loaded.action_space} in {path}. What it has learned means nothing in others."
        )
    for key in policy.encoder.plan.inputs:
        seen, shown = loaded.observation_space.get(key), policy.observation_space[key]
        if seen is not None and seen != shown:
            raise ConfigError(
                f"init_from: must be a policy that saw {key} as {shown}, got {seen} in {path}. Its "
                "weights mean nothing for others."
            )
    source, target = loaded.state_dict(), policy.state_dict()
    for name, value in target.items():
        if name not in source or source[name].shape != value.shape:
            found = tuple(source[name].shape) if name in source else "nothing"
            raise ConfigError(
                f"init_from: {name} must have shape {tuple(value.shape)}, got {found} in {path}. "
                "Use the same policy configuration and observations as that run."
            )
    # Heads that only teach may be left out: nobody acts by them.
    more = [n for n in source if n not in target and not n.startswith("auxiliary.")]
    if more:
        raise ConfigError(
            f"init_from: must be a policy with no other weights than this one, got {len(more)} "
            f"more in {path}, such as {more[0]}. Use the same policy configuration as that run."
        )
    policy.load_state_dict({n: source[n] for n in target} | _known_ranges(target, source))


def _known_ranges(target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the activation ranges of CNNs that only the target has been calibrated for.

    They hold for the source's CNN, of before there was calibration, if its weights are the same.
    """
    found = {}
    for name, ranges in target.items():
        backbone, _, last = name.rpartition(".")
        if last != "ranges" or source[name].any():
            continue
        weights = [n for n in target if n.startswith(f"{backbone}.layers.")]
        if all(torch.equal(source[n], target[n]) for n in weights):
            found[name] = ranges
    return found
