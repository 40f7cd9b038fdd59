"""Builds what a run is made of, in an order that refuses bad settings before large allocations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import spaces

from envs.make import make_trial_env
from envs.vector import TrialVectorEnv
from relic.policy import load
from relic.policy.policy import Policy
from relic.ppo.collector import Collector
from relic.ppo.config import Objective
from relic.ppo.learner import Learner
from relic.ppo.returns import TimeLimit
from relic.ppo.rollout import Rollout
from relic.run.config import RunConfig
from relic.run.distributed import Ranks
from relic.run.planner import MemoryPlan, plan_memory
from relic.schema import ConfigError


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of a run in this process."""

    envs: tuple[TrialVectorEnv, ...]
    policy: Policy
    rollout: Rollout
    collector: Collector
    learner: Learner
    plan: MemoryPlan

    def close(self) -> None:
        """Release environments and threads."""
        self.collector.close()
        for env in self.envs:
            env.close()


def build_components(config: RunConfig, ranks: Ranks) -> Components:
    """Build the parts of a run.

    Raises:
        ConfigError: If ranks, rows and groups do not divide, the memory does not suffice, or an
            environment or policy refuses its options.
    """
    try:
        return _build(config, ranks)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def build_policy(config: RunConfig, env: TrialVectorEnv, device: torch.device) -> Policy:
    """Build the policy as the run starts with it: seeded, or from another run's weights."""
    torch.manual_seed(config.seed)
    space = env.single_observation_space
    assert isinstance(space, spaces.Dict)
    policy = Policy(
        config.policy,
        space,
        env.single_action_space,
        max_episode_steps=env.max_episode_steps,
    )
    if config.init_from is not None:
        _copy_weights(policy, config.init_from)
    return policy.to(device)


def _build(config: RunConfig, ranks: Ranks) -> Components:
    if config.rollout.num_envs % (ranks.world_size * config.rollout.groups):
        raise ConfigError(
            f"rollout.num_envs: must be a multiple of ranks times groups, got "
            f"num_envs={config.rollout.num_envs}, ranks={ranks.world_size}, "
            f"groups={config.rollout.groups}. Use a multiple of "
            f"{ranks.world_size * config.rollout.groups}."
        )
    rows = config.rollout.num_envs // ranks.world_size
    first_row = ranks.rank * rows
    envs = _build_envs(config, rows, first_row)
    policy = build_policy(config, envs[0], ranks.device)
    ranks.reduction.broadcast(policy)
    plan = plan_memory(config, policy, rows=rows)
    plan.check(config)
    rollout = Rollout(
        rows,
        config.rollout.num_steps,
        policy.stored_space,
        action_space=policy.action_space,
        device=ranks.device if plan.rollout_on_device else "cpu",
        first_row=first_row,
        demonstrations=config.ppo.objective is Objective.CLONE,
    )
    cloning = config.ppo.objective is Objective.CLONE
    time_limit = config.ppo.time_limit or TimeLimit(envs[0].time_limit_default)
    collector = Collector(
        envs,
        policy,
        rollout,
        seed=config.seed,
        credit=config.ppo.credit,
        time_limit=time_limit,
        expert_share=config.ppo.expert_share if cloning else 0.0,
        world_size=ranks.world_size,
    )
    learner = Learner(
        policy,
        config.ppo,
        config.updates,
        num_envs=rows,
        num_steps=config.rollout.num_steps,
        total_steps=config.total_steps,
        seed=config.seed,
        time_limit=time_limit,
        shards=config.rollout.shards,
        reduction=ranks.reduction,
    )
    return Components(tuple(envs), policy, rollout, collector, learner, plan)


def _build_envs(config: RunConfig, rows: int, first_row: int) -> list[TrialVectorEnv]:
    per_group = rows // config.rollout.groups
    return [
        make_trial_env(
            config.env.id,
            per_group,
            {**config.env.options, "first_row": first_row + group * per_group},
        )
        for group in range(config.rollout.groups)
    ]


def _copy_weights(policy: Policy, path: str) -> None:
    source = load(path).state_dict()
    target = policy.state_dict()
    for name, value in target.items():
        if name not in source or source[name].shape != value.shape:
            found = tuple(source[name].shape) if name in source else "nothing"
            raise ConfigError(
                f"init_from: {name} must have shape {tuple(value.shape)}, got {found} in {path}. "
                "Use the same policy configuration and observations as that run."
            )
    policy.load_state_dict({n: source[n] for n in target})
