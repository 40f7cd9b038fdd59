"""Context controls: what the policy remembers when an episode begins.

A limit (`limited`) holds at every step. The cache applies it: a step that is no longer seen is no
longer kept. Steps keep the indices that they had in the trial, and the weights do not change.

A control (`ContextControl`) changes the memory before each episode, and nothing else; even the
acting noise stays the same. Controls rebuild the memory from the tokens that it was given before,
so no observation is encoded twice.

Shapes: N rows, K some of the rows, T steps, E model dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from envs.core.vector import TrialVectorEnv
from relic.evaluation.protocol import Block, Protocol, limit_fields
from relic.noise import Stream, keyed_permutation
from relic.policy.policy import Policy
from relic.policy.steps import PolicyState
from relic.schema import ConfigError


class ContextControl(Enum):
    """What the policy remembers when an episode begins."""

    KEPT = "kept"
    """All episodes of the trial so far."""
    CLEARED = "cleared"
    """Nothing: no episode can profit from earlier ones."""
    SHUFFLED = "shuffled"
    """All episodes of the trial so far, each whole, in an order drawn anew for each episode."""
    FOREIGN = "foreign"
    """As many episodes, but those that the policy had in the protocol's next trial."""


CONTROLS = tuple(control for control in ContextControl if control is not ContextControl.KEPT)


class TokenLog:
    """What the memory was given in a block, step by step."""

    def __init__(self, num_rows: int, capacity: int):
        """Make room for the steps of all rows.

        Args:
            num_rows: N.
            capacity: Steps of the block.
        """
        self._capacity = capacity
        self._token_NTE: Tensor | None = None
        self._ends_NT = np.zeros((num_rows, capacity), bool)
        self._steps = 0

    def write(self, token_NE: Tensor, ended_N: np.ndarray) -> None:
        """Append a step of all rows, and whether it was the last of its episode."""
        if self._token_NTE is None:
            shape = (len(token_NE), self._capacity, token_NE.shape[-1])
            self._token_NTE = torch.empty(shape, dtype=token_NE.dtype, device=token_NE.device)
        self._token_NTE[:, self._steps] = token_NE
        self._ends_NT[:, self._steps] = ended_N
        self._steps += 1

    def episodes(self, row: int) -> list[Tensor]:
        """Return the tokens (T, E) of each finished episode of a row, in order."""
        if self._token_NTE is None:
            return []
        ends = np.flatnonzero(self._ends_NT[row, : self._steps]) + 1
        return [self._token_NTE[row, a:b] for a, b in pairwise([0, *ends.tolist()])]


class BlockMemory:
    """The memory of a block's rows under `ContextControl.KEPT`; controls change what it holds."""

    def __init__(self, policy: Policy, block: Block, capacity: int):
        """Begin a block.

        Args:
            policy: Whose memory.
            block: The rows.
            capacity: Steps of a row's longest possible trial.
        """
        self._policy, self._block = policy, block
        self.state = policy.initial_state(len(block.units), capacity)

    def begin_episodes(self, starts_N: np.ndarray, episodes_N: np.ndarray) -> None:
        """Set the state to what the policy is to remember at the start of an episode.

        Args:
            starts_N: Rows whose next step begins an episode, bool.
            episodes_N: Finished episodes of each row.
        """

    def note(self, token_NE: Tensor, ended_N: np.ndarray) -> None:
        """Take note of a step: the tokens, and which rows' episodes ended with it."""


class ClearedMemory(BlockMemory):
    """A memory that is emptied before each episode."""

    def begin_episodes(self, starts_N: np.ndarray, episodes_N: np.ndarray) -> None:
        """Empty the rows that begin an episode."""
        if starts_N.any():
            self.state.reset(starts_N)


class LoggedMemory(BlockMemory):
    """A memory that is kept, and what it was given besides."""

    def __init__(self, policy: Policy, block: Block, capacity: int):
        """Begin a block; see `BlockMemory`."""
        super().__init__(policy, block, capacity)
        self.log = TokenLog(len(block.units), capacity)

    def note(self, token_NE: Tensor, ended_N: np.ndarray) -> None:
        """Log the step."""
        self.log.write(token_NE, ended_N)


class ShuffledMemory(LoggedMemory):
    """A memory that holds the row's own episodes in another order before each episode."""

    def __init__(self, policy: Policy, block: Block, capacity: int, *, seed: int):
        """Begin a block; `seed` decides the orders, together with trial, repeat and episode."""
        super().__init__(policy, block, capacity)
        self._seed = seed

    def begin_episodes(self, starts_N: np.ndarray, episodes_N: np.ndarray) -> None:
        """Fill the rows that begin an episode, where there is more than one order."""
        # A single episode has one order: what is remembered stays as it is.
        rows = np.flatnonzero(starts_N & (episodes_N > 1)).tolist()
        refill(self._policy, self.state, rows, [self._shuffled(row) for row in rows])

    def _shuffled(self, row: int) -> list[Tensor]:
        own, unit = self.log.episodes(row), self._block.units[row]
        # By trial and repeat, not by row: the order is the same in whatever block the trial stands.
        keys = (self._seed, Stream.SHUFFLE, unit.trial, unit.repeat, len(own))
        return [own[i] for i in keyed_permutation(len(own), *keys)]


class ForeignMemory(BlockMemory):
    """A memory that holds the first episodes of another trial before each episode."""

    def __init__(self, policy: Policy, block: Block, capacity: int, *, donors: TokenLog):
        """Begin a block.

        Args:
            policy: Whose memory.
            block: The rows.
            capacity: Steps of the longest possible trial of a donor and one more episode.
            donors: What the policy was given in the other trial of each row.
        """
        super().__init__(policy, block, capacity)
        self._donors = donors

    def begin_episodes(self, starts_N: np.ndarray, episodes_N: np.ndarray) -> None:
        """Fill the rows that begin an episode; a donor with fewer episodes gives all it has."""
        rows = np.flatnonzero(starts_N).tolist()
        parts = [self._donors.episodes(row)[: episodes_N[row]] for row in rows]
        refill(self._policy, self.state, rows, parts)


def refill(
    policy: Policy, state: PolicyState, rows: Sequence[int], episodes: Sequence[Sequence[Tensor]]
) -> None:
    """Let rows remember given episodes and nothing else; their next step begins an episode.

    Args:
        policy: Whose memory.
        state: Written.
        rows: Rows of the state.
        episodes: For each row the tokens (T, E) of its episodes, in order.
    """
    if not rows:
        return
    state.reset(rows)
    length_K = [sum(map(len, row)) for row in episodes]
    if not max(length_K):
        return
    example = next(episode for row in episodes for episode in row)
    x_KTE = example.new_zeros((len(rows), max(length_K), example.shape[-1]))
    starts_KT = torch.zeros(x_KTE.shape[:2], dtype=torch.bool, device=x_KTE.device)
    for k, row in enumerate(episodes):
        begin = 0
        for episode in row:
            x_KTE[k, begin : begin + len(episode)] = episode
            starts_KT[k, begin] = True
            begin += len(episode)
    # Tokens go in, not observations: no picture is encoded twice.
    with torch.no_grad():
        policy.memory.prefill(x_KTE, starts_KT, state.memory, rows, length_K)


def donor_block(env: TrialVectorEnv, protocol: Protocol, block: Block) -> Block:
    """Return the block that other trials' contexts are taken from.

    Each row's is the next trial of the protocol that is in another place.

    Raises:
        ConfigError: If all trials are in one place.
    """
    first, count = protocol.first_trial, protocol.trials

    def after(trial: int) -> int:
        own = env.place_of(trial)
        later = (first + (trial - first + i) % count for i in range(1, count))
        found = next((other for other in later if env.place_of(other) != own), None)
        if found is None:
            raise ConfigError(
                "controls: foreign needs a trial in another place to take the context from, got "
                f"{count} in one place. Raise trials, or leave foreign out."
            )
        return found

    units = tuple(replace(unit, trial=after(unit.trial)) for unit in block.units)
    return replace(block, units=units)


def limited(policy: Policy, limit: str) -> Policy:
    """Return a policy that acts within a limit, with the same weights.

    The limit stands in the place of the policy's own.

    Args:
        policy: Shares its weights with the result; returned itself if the limit is there already.
        limit: As `limit_fields` reads it.

    Raises:
        ValueError: If the memory cannot be limited.
    """
    asked = limit_fields(limit)
    if not asked:
        return policy
    config = policy.config
    if not config.memory_can.context_limit:
        raise ValueError(
            f"context_limit: must be none for a memory of kind {config.memory}, got {limit!r}. "
            "It has no steps that could be left out."
        )
    memory = config.memory_class.limit_context(config.memory_config, **asked)
    if memory == config.memory_config:
        return policy
    other = Policy(
        config.with_memory_config(memory),
        policy.observation_space,
        policy.action_space,
        max_episode_steps=policy.max_episode_steps,
        pretrained=False,
    )
    # Assigned, not copied: both are one set of weights.
    other.load_state_dict(policy.state_dict(), assign=True)
    return other.to(policy.device).train(policy.training)
