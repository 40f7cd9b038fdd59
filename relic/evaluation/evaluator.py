"""Runs a policy on the blocks of a protocol: same step as in training, no weight changes.

Acting noise is keyed by (protocol seed, trial, repeat, step), so that a trial's outcome depends on
nothing that happens in other blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from envs.make import make_trial_env
from envs.vector import TrialVectorEnv
from relic.evaluation.protocol import Block, Protocol
from relic.policy.policy import Policy
from relic.ppo.noise import key, row_uniforms

Record = dict[str, Any]
_MAX_KEY = (1 << 63) - 1


def make_env(protocol: Protocol) -> TrialVectorEnv:
    """Build the vector environment that the protocol's blocks are stepped in."""
    return make_trial_env(protocol.env, protocol.block, protocol.options)


def run_block(
    policy: Policy, env: TrialVectorEnv, protocol: Protocol, block: Block
) -> Iterator[Record]:
    """Evaluate one block, and yield a record as each episode of a real unit ends.

    Records hold what the environment says of the episode, the trial, the repeat and the episode's
    index in the trial; nothing that depends on the clock.
    """
    runner = _BlockRunner(policy, env, protocol, block)
    while not runner.finished:
        yield from runner.step()


class _BlockRunner:
    """The state of a block that is being evaluated."""

    def __init__(self, policy: Policy, env: TrialVectorEnv, protocol: Protocol, block: Block):
        self._policy, self._env, self._protocol, self._block = policy, env, protocol, block
        self._device = next(policy.parameters()).device
        trial_N = np.array([u.trial for u in block.units], np.int64)
        self._noise_key_N = np.array(
            [int(key(u.trial, u.repeat)) & _MAX_KEY for u in block.units], np.int64
        )
        self._observation, _ = env.reset(
            options={"new_trial": np.ones(env.num_envs, bool), "trial": trial_N}
        )
        capacity = protocol.capacity(env.max_episode_steps)
        self._state = policy.initial_state(env.num_envs, capacity)
        self._starts_N = np.ones(env.num_envs, bool)
        self._episodes_N = np.zeros(env.num_envs, np.int64)
        self._steps = 0
        self._real_N = np.arange(env.num_envs) < block.num_real

    @property
    def finished(self) -> bool:
        if self._protocol.steps is not None:
            return self._steps >= self._protocol.steps
        return not self._running_N.any()

    @property
    def _running_N(self) -> np.ndarray:
        limit = self._protocol.episodes
        return self._real_N & (self._episodes_N < limit if limit is not None else True)

    def step(self) -> list[Record]:
        """Act once in all rows and return the records of episodes that ended."""
        noise_NK = row_uniforms(
            self._protocol.seed, self._noise_key_N, self._steps, self._policy.noise_size
        )
        acted = self._policy.step(
            {k: torch.from_numpy(v).to(self._device) for k, v in self._observation.items()},
            self._state,
            self._protocol.deterministic,
            episode_starts=torch.from_numpy(self._starts_N).to(self._device),
            noise=torch.from_numpy(noise_NK).to(self._device),
        )
        self._observation, _, terminated_N, truncated_N, infos = self._env.step(
            acted.action.cpu().numpy()
        )
        self._steps += 1
        self._starts_N = terminated_N | truncated_N
        if not self._starts_N.any():
            return []
        counted = np.flatnonzero(self._starts_N & self._running_N)
        self._episodes_N[self._starts_N] += 1
        return [self._record(infos, int(row)) for row in counted]

    def _record(self, infos: dict[str, Any], row: int) -> Record:
        fields = {k: v[row].item() for k, v in infos["episode_record"].items()}
        unit = self._block.units[row]
        fields |= {"trial": unit.trial, "repeat": unit.repeat, "block": self._block.index}
        fields["episode"] = int(self._episodes_N[row]) - 1
        return fields


def evaluate(policy: Policy, protocol: Protocol) -> list[Record]:
    """Evaluate a whole protocol in this process and return its records in order.

    For evaluations that should be kept, resumed or shared by workers, see `relic.evaluation.store`.
    """
    env = make_env(protocol)
    try:
        records = [
            r for block in protocol.blocks() for r in run_block(policy, env, protocol, block)
        ]
    finally:
        env.close()
    return sorted(records, key=lambda r: (r["repeat"], r["trial"], r["episode"]))
