"""Runs a policy, or an expert, on the blocks of a protocol, without any change of weights.

Acting noise is keyed by (protocol seed, trial, repeat, step), so that a trial's outcome depends on
nothing that happens in other blocks.

Shapes: N rows, K numbers per row.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from envs.core.vector import Observation, TrialVectorEnv
from envs.make import make_trial_env
from relic.evaluation.controls import (
    BlockMemory,
    ClearedMemory,
    ContextControl,
    ForeignMemory,
    LoggedMemory,
    ShuffledMemory,
    TokenLog,
    donor_block,
    limited,
)
from relic.evaluation.protocol import Block, Protocol
from relic.evaluation.records import Record, in_order
from relic.noise import key, row_uniforms
from relic.policy.origin import check_fit
from relic.policy.policy import Policy
from relic.schema import convert

OnAct = Callable[[TrialVectorEnv, Observation, np.ndarray, np.ndarray], np.ndarray]
"""Called before each step with the environment, what the policy sees (its own copy), which rows
begin an episode, and the policy's actions, in the environment's units and not clipped yet. Returns
the actions that are executed, which the policy then remembers in the place of its own."""
# Keys take the place of rows in the noise, which are int64.
_MAX_KEY = (1 << 63) - 1


def make_env(protocol: Protocol) -> TrialVectorEnv:
    """Build the vector environment that the protocol's blocks are stepped in."""
    return make_trial_env(protocol.env, protocol.block, protocol.options)


@dataclass(frozen=True, slots=True)
class ExpertActor:
    """The environment's own expert in the place of a policy."""

    kind: str
    """As `TrialVectorEnv.expert_actions` takes it."""

    def under(self, control: ContextControl) -> ExpertActor:
        """Return the expert under a control; one that knows the task has no context to change.

        Raises:
            ValueError: If there is no such expert.
        """
        if control is ContextControl.KEPT or self.kind == "full":
            return self
        if control is ContextControl.CLEARED:
            return ExpertActor("episode")
        raise ValueError(
            f"controls: must be [cleared] or [] for the expert, got {control.value}. Leave it out."
        )


def run_block(
    actor: Policy | ExpertActor,
    env: TrialVectorEnv,
    protocol: Protocol,
    block: Block,
    *,
    control: ContextControl = ContextControl.KEPT,
    on_act: OnAct | None = None,
) -> Iterator[Record]:
    """Evaluate one block, and yield a record as each episode of a real unit ends.

    Records hold what the environment says of the episode, the trial, the repeat and the episode's
    index in the trial; nothing that depends on the clock.

    Args:
        actor: Who acts: a policy, within the protocol's limit of the context, or an expert.
        env: As `make_env` builds it.
        protocol: The rules.
        block: One of the protocol's.
        control: What the actor remembers when an episode begins.
        on_act: Sees each step, and may put other actions in the place of the policy's.
    """
    control = convert(ContextControl, control, "control")  # a mere name would match none
    if isinstance(actor, ExpertActor):
        yield from _ExpertRunner(actor.under(control), env, protocol, block, on_act).records()
        return
    policy = limited(actor, protocol.context_limit)
    memory = _begin_memory(policy, env, protocol, block, control)
    yield from _PolicyRunner(policy, env, protocol, block, memory, on_act).records()


def _begin_memory(
    policy: Policy, env: TrialVectorEnv, protocol: Protocol, block: Block, control: ContextControl
) -> BlockMemory:
    longest = env.max_episode_steps
    capacity = protocol.capacity(longest)
    if control is ContextControl.CLEARED:
        # It never holds more than the episode that runs.
        return ClearedMemory(policy, block, longest)
    if control is ContextControl.SHUFFLED:
        return ShuffledMemory(policy, block, capacity, seed=protocol.seed)
    if control is ContextControl.FOREIGN:
        donors = _run_donors(policy, env, protocol, donor_block(env, protocol, block))
        return ForeignMemory(policy, block, capacity + longest, donors=donors)
    return BlockMemory(policy, block, capacity)


def _run_donors(policy: Policy, env: TrialVectorEnv, protocol: Protocol, block: Block) -> TokenLog:
    """Let the policy act in the trials that contexts are taken from, and return its tokens."""
    memory = LoggedMemory(policy, block, protocol.capacity(env.max_episode_steps))
    for _ in _PolicyRunner(policy, env, protocol, block, memory).records():
        pass  # what counts is what the memory has logged
    return memory.log


def run_blocks(
    policy: Policy,
    env: TrialVectorEnv,
    protocol: Protocol,
    *,
    control: ContextControl = ContextControl.KEPT,
) -> Iterator[Record]:
    """Evaluate all blocks of a protocol, and yield a record as each episode ends."""
    for block in protocol.blocks():
        yield from run_block(policy, env, protocol, block, control=control)


class _BlockRunner(ABC):
    """The state of a block that is being evaluated."""

    def __init__(
        self, env: TrialVectorEnv, protocol: Protocol, block: Block, on_act: OnAct | None = None
    ):
        self._on_act = on_act
        self._env, self._protocol, self._block = env, protocol, block
        trial_N = np.array([u.trial for u in block.units], np.int64)
        self._observation, _ = env.reset(
            options={"new_trial": np.ones(env.num_envs, bool), "trial": trial_N}
        )
        self._starts_N = np.ones(env.num_envs, bool)
        self._episodes_N = np.zeros(env.num_envs, np.int64)
        self._steps = 0
        self._real_N = np.arange(env.num_envs) < block.num_real

    @abstractmethod
    def _act(self) -> np.ndarray:
        """Return the actions of all rows, as the environment takes them."""

    @abstractmethod
    def _see(self, reward_N: np.ndarray) -> None:
        """Take note of a step; `_starts_N` says which rows ended their episode with it."""

    def records(self) -> Iterator[Record]:
        """Step until all real units have had what the protocol asks for."""
        while not self._finished:
            yield from self._step()

    @property
    def _finished(self) -> bool:
        if self._protocol.steps is not None:
            return self._steps >= self._protocol.steps
        return not self._running_N.any()

    @property
    def _running_N(self) -> np.ndarray:
        limit = self._protocol.episodes
        # Rows that are done step on, unrecorded: the batch of a block never changes its shape.
        return self._real_N & (self._episodes_N < limit if limit is not None else True)

    def _step(self) -> list[Record]:
        """Act once in all rows and return the records of episodes that ended."""
        action_N = self._act()
        self._observation, reward_N, terminated_N, truncated_N, infos = self._env.step(action_N)
        self._steps += 1
        self._starts_N = terminated_N | truncated_N
        self._see(reward_N)
        if not self._starts_N.any():
            return []
        # Chosen before the count goes up, which may end the row's part.
        counted = np.flatnonzero(self._starts_N & self._running_N)
        self._episodes_N[self._starts_N] += 1
        return [self._record(infos, int(row)) for row in counted]

    def _watched(self, action_N: np.ndarray) -> np.ndarray:
        """Let the watcher see the step; return the actions that it wants to be executed."""
        if self._on_act is None:
            return action_N
        return self._on_act(self._env, dict(self._observation), self._starts_N, action_N)

    def _record(self, infos: dict[str, Any], row: int) -> Record:
        fields = {k: v[row].item() for k, v in infos["episode_record"].items()}
        # What an environment could not say is absent; JSON has no NaN.
        fields = {k: v for k, v in fields.items() if math.isfinite(v)}
        unit = self._block.units[row]
        fields |= {"trial": unit.trial, "repeat": unit.repeat, "block": self._block.index}
        # The episode has been counted already.
        fields["episode"] = int(self._episodes_N[row]) - 1
        return fields


class _ExpertRunner(_BlockRunner):
    """The environment's expert acts."""

    def __init__(self, actor: ExpertActor, *block: Any):
        super().__init__(*block)
        self._kind = actor.kind

    def _act(self) -> np.ndarray:
        return self._watched(self._env.expert_actions(self._kind))

    def _see(self, reward_N: np.ndarray) -> None:
        pass  # the environment keeps what its expert knows


class _PolicyRunner(_BlockRunner):
    """A policy acts, from what its memory holds."""

    def __init__(
        self,
        policy: Policy,
        env: TrialVectorEnv,
        protocol: Protocol,
        block: Block,
        memory: BlockMemory,
        on_act: OnAct | None = None,
    ):
        super().__init__(env, protocol, block, on_act)
        self._policy, self._memory = policy, memory
        self._noise_key_N = np.array(
            [int(key(u.trial, u.repeat)) & _MAX_KEY for u in block.units], np.int64
        )
        self._policy.add_reward(self._observation, np.zeros(env.num_envs, np.float32))

    def _act(self) -> np.ndarray:
        # Before the step that begins an episode, so that it is the first to see the changed memory.
        self._memory.begin_episodes(self._starts_N, self._episodes_N)
        device = self._policy.device
        noise_NK = row_uniforms(
            self._protocol.seed, self._noise_key_N, self._steps, self._policy.noise_size
        )
        acted = self._policy.step(
            {k: torch.as_tensor(v, device=device) for k, v in self._observation.items()},
            self._memory.state,
            self._protocol.deterministic,
            episode_starts=torch.from_numpy(self._starts_N).to(device),
            noise=torch.from_numpy(noise_NK).to(device),
        )
        self._token_NE = acted.token
        own = self._policy.to_environment(acted.action)
        if self._on_act is None:
            return self._policy.clip_action(own).cpu().numpy()
        executed = torch.from_numpy(self._watched(own.cpu().numpy())).to(own)
        # Its own actions stay as they are: a way there and back would round them.
        remembered = self._policy.from_environment(executed).to(acted.action)
        remembered = torch.where(executed == own, acted.action, remembered)
        self._memory.state.record_action(remembered)
        return self._policy.clip_action(executed).cpu().numpy()

    def _see(self, reward_N: np.ndarray) -> None:
        self._memory.note(self._token_NE, self._starts_N)
        # A reward belongs to its episode: the next one's first step has seen none.
        seen_N = np.where(self._starts_N, 0.0, reward_N).astype(np.float32)
        self._policy.add_reward(self._observation, seen_N)


def evaluate(
    policy: Policy, protocol: Protocol, *, control: ContextControl = ContextControl.KEPT
) -> list[Record]:
    """Evaluate a whole protocol in this process and return its records in order.

    An evaluation that is kept, resumed or shared by workers goes through `relic.evaluation.workers`
    and `relic.evaluation.records`.
    """
    env = make_env(protocol)
    try:
        check_fit(policy, env)
        return in_order(run_blocks(policy, env, protocol, control=control))
    finally:
        env.close()
