"""The agent: observation to token, token to memory, memory to action and value.

A `Policy` acts by `step`, one cached decode for all rows, and learns by `evaluate_actions`, one
full pass with gradient; both see the same numbers. It knows no rollout or loss, and of its
environment only where to find it. The path of an observation is told in
`relic.policy.encoders.encoders`.

Shapes: N rows, T steps, E model dim, A action dimensions, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from envs.core.vector import TrialVectorEnv
from relic.policy.action_units import action_units
from relic.policy.auxiliary import AuxiliaryHead, AuxiliaryLosses
from relic.policy.auxiliary_config import AuxiliaryConfig
from relic.policy.config import PolicyConfig
from relic.policy.critic import PrivilegedCritic
from relic.policy.encoders.config import PREV_REWARD
from relic.policy.encoders.encoders import Observation, ObservationEncoder
from relic.policy.heads import ValueHead, actor_head
from relic.policy.linear import Linear
from relic.policy.memory.memories import make_memory
from relic.policy.memory.sequence_model import Rows, SequenceState, row_indices
from relic.policy.origin import make_env
from relic.policy.steps import PolicyOutput, PolicyState, PolicyStep, SequenceBatch

Columns = Mapping[str, Tensor]
"""Tensors (N, T, ...) by name."""


def in_slices(function: Callable[[Columns], Tensor], columns: Columns, size: int) -> Tensor:
    """Apply a function that treats steps one by one to slices of them.

    With gradient, what a slice computes inside is dropped and computed again in the backward pass.

    Args:
        function: From columns to a tensor (N, T, ...), whatever T is.
        columns: What it is given.
        size: Steps of a slice. Where there are no more, nothing is computed again.
    """
    steps = next(iter(columns.values())).shape[1]
    if steps <= size:
        return function(columns)
    parts = []
    for begin in range(0, steps, size):
        part = {name: column[:, begin : begin + size] for name, column in columns.items()}
        if torch.is_grad_enabled():
            # Else the backward pass would keep what all slices compute inside, and slices would
            # save nothing.
            parts.append(checkpoint(function, part, use_reentrant=False))
        else:
            parts.append(function(part))
    return torch.cat(parts, dim=1)


class Policy(nn.Module):
    """A policy with a memory of its trial.

    Args:
        config: Encoders and memory.
        observation_space: Space of one row's observation.
        action_space: `Discrete`, or a flat `MultiDiscrete`, `MultiBinary` or float `Box`.
        max_episode_steps: Longest episode; sizes the table of in-episode positions.
        pretrained: Read pretrained encoders from the paths of the configuration. Off where all
            weights are loaded next.

    Raises:
        ValueError: If the spaces and the configuration do not fit together.
    """

    def __init__(
        self,
        config: PolicyConfig,
        observation_space: spaces.Dict,
        action_space: gymnasium.Space,
        *,
        max_episode_steps: int,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.observation_space = observation_space
        self.action_space = action_space
        self.max_episode_steps = max_episode_steps
        self.checkpoint: Path | None = None
        """Where it was loaded from."""
        width = config.width
        # Heads check the spaces, so they come first.
        self.actor = actor_head(width, action_space, config.log_std)
        self.action_units = action_units(action_space)
        privileged = config.critic.privileged
        self.critic = (
            PrivilegedCritic(config.critic, config.encoder, observation_space, width)
            if privileged
            else ValueHead(width)
        )
        sections = config.auxiliary
        heads = {n: section.build(observation_space, width) for n, section in sections.items()}
        self.auxiliary = nn.ModuleDict(heads)
        self.encoder = ObservationEncoder(
            config.encoder,
            observation_space,
            action_space,
            width=width,
            pretrained=pretrained,
            targets=[*privileged, *(k for section in sections.values() for k in section.targets)],
        )
        for name, section in sections.items():
            self._check_observed(name, section)
            heads[name].find_with(self.encoder.sighted)
        self.token = Linear(self.encoder.num_features, width)
        self.memory = make_memory(config, max_episode_steps=max_episode_steps)
        self.features = Linear(width, width)

    def _check_observed(self, name: str, section: AuxiliaryConfig) -> None:
        """Refuse a head that reads what no rollout keeps, or whose lesson contradicts a token."""
        for key in (*section.targets, *section.reads):
            if key not in self.stored_space.spaces:
                raise ValueError(
                    f"encoder.keys: must hold {key!r}, which policy.{name} reads, got "
                    f"{list(self.config.encoder.keys or ())}. Add it, or set policy.{name}=null."
                )
        for key, instead in section.no_inputs.items():
            if key in self.encoder.plan.inputs:
                raise ValueError(
                    f"encoder.keys: must leave {key!r} out where policy.{name} is not told of it, "
                    f"got {', '.join(self.encoder.plan.inputs)}. Name the others, or set {instead}."
                )

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.token.weight.device

    def make_env(self, num_envs: int, **options: Any) -> TrialVectorEnv:
        """Build the environment that a loaded policy was trained in, with its options.

        Args:
            num_envs: Rows.
            options: Of the environment, to be changed, such as `split="val"`.

        Raises:
            FileNotFoundError: If the configuration of the run is gone.
            ConfigError: If the configuration is damaged, or the policy was not loaded.
            ValueError: If the environment refuses an option, or no longer fits the policy.
        """
        return make_env(self, num_envs, options)

    @property
    def noise_size(self) -> int:
        """Uniforms that one action takes."""
        return self.actor.noise_size

    @property
    def stored_space(self) -> spaces.Dict:
        """What a rollout keeps of an observation: features where an encoder is frozen."""
        return self.encoder.stored_space

    @property
    def stored_dtypes(self) -> dict[str, torch.dtype]:
        """Types of what a rollout keeps; says bfloat16 where `stored_space` cannot."""
        return self.encoder.stored_dtypes

    @torch.no_grad()
    def encode_observation(self, observation: Observation) -> dict[str, Tensor]:
        """Return what a rollout keeps of an observation; `step` and `evaluate_actions` take it too.

        Args:
            observation: (..., *shape of the space) by key; keys that are not used are dropped.

        Raises:
            ValueError: If an observation is missing.
        """
        return self.encoder.encode(observation, self.device)

    def add_reward(self, observation: dict[str, Any], reward_N: np.ndarray) -> None:
        """Put the previous reward into an observation, if it is an input that is not shown."""
        if self.encoder.plan.adds_reward:
            observation[PREV_REWARD] = reward_N

    def initial_state(
        self, num_envs: int, capacity: int, *, dtype: torch.dtype | None = None
    ) -> PolicyState:
        """Return the state before the first step of N trials.

        Args:
            num_envs: N.
            capacity: Steps that a trial may have.
            dtype: Of what is remembered. Default: that of the parameters.
        """
        memory = self.memory.initial_state(num_envs, capacity, self.device, dtype)
        shape = (num_envs, *(self.action_space.shape or ()))
        kind = torch.float32 if isinstance(self.action_space, spaces.Box) else torch.int64
        prev_action = torch.zeros(shape, dtype=kind, device=self.device)
        started = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        return PolicyState(memory, prev_action, started)

    def step(
        self,
        observation: Observation,
        state: PolicyState,
        deterministic: bool = False,
        *,
        episode_starts: Tensor | np.ndarray | None = None,
        noise: Tensor | np.ndarray | None = None,
        write: bool = True,
    ) -> PolicyStep:
        """Act in every row; advances `state` unless `write` is off.

        Args:
            observation: (N, ...) by key, raw or as `encode_observation` returned it.
            state: Of the trials so far.
            deterministic: Take the likeliest action instead of a sample.
            episode_starts: bool (N,). None: episodes start only where the trial begins.
            noise: Uniforms (N, noise_size) in [0, 1) that decide the samples. None: torch's own.
            write: Off: the step is not remembered.

        The value is NaN where the critic is privileged and its observations are missing.

        Raises:
            ContextOverflowError: If a row's memory is full; nothing has been written then.
        """
        with torch.inference_mode():
            features_NE, x_NE = self._decode(observation, state, episode_starts, write=write)
            distribution = self.actor(features_NE)
            if deterministic:
                action = distribution.mode()
            elif noise is None:
                uniforms = torch.rand((len(x_NE), self.noise_size), device=x_NE.device)
                action = distribution.sample(uniforms)
            else:
                action = distribution.sample(torch.as_tensor(noise, device=x_NE.device))
            if write:
                # In place: the state's tensors are ordinary ones, made outside of inference mode.
                state.prev_action.copy_(action)
                state.started.fill_(True)
            log_prob, value = distribution.log_prob(action), self._value(features_NE, observation)
        # Copies made out here are ordinary tensors, which autograd may meet again.
        return PolicyStep(action.clone(), log_prob.clone(), value.clone(), x_NE.clone())

    def value(
        self,
        observation: Observation,
        state: PolicyState,
        *,
        episode_starts: Tensor | np.ndarray | None = None,
    ) -> Tensor:
        """Return the value (N,) of an observation; `state` is not written."""
        with torch.inference_mode():
            features_NE, _ = self._decode(observation, state, episode_starts, write=False)
            value_N = self._value(features_NE, observation)
        return value_N.clone()

    def evaluate_actions(
        self,
        batch: SequenceBatch,
        prefix: SequenceState | None = None,
        *,
        depth_mask_NL: Tensor | None = None,
    ) -> PolicyOutput:
        """Evaluate actions that were taken, with gradient.

        Args:
            batch: The steps.
            prefix: The memory of what came before them, as a constant; it is not written. None: the
                trial begins with the batch.
            depth_mask_NL: Layer factors of each row, where the memory has depth dropout.
        """
        x_NTE = self._tokens(batch)
        y_NTE = self.memory(x_NTE, batch.episode_starts, prefix, depth_mask_NL=depth_mask_NL)
        return self._output(y_NTE, batch)

    @torch.no_grad()
    def replay(
        self,
        batch: SequenceBatch,
        state: PolicyState,
        rows: Rows | None = None,
        lengths: Sequence[int] | np.ndarray | Tensor | None = None,
    ) -> PolicyOutput:
        """Append steps that were taken to chosen rows' trials and evaluate them; advances `state`.

        Args:
            batch: The steps of the chosen rows, in the order of `rows`.
            state: Of the trials so far.
            rows: Rows of the state, as a bool mask or indices. None: all.
            lengths: Steps of each row of the batch that count. None: all.

        Raises:
            ContextOverflowError: If a row would be overfull; nothing has been written then.
        """
        x_NTE = self._tokens(batch)
        y_NTE = self.memory.prefill(x_NTE, batch.episode_starts, state.memory, rows, lengths)
        index = torch.as_tensor(row_indices(rows, len(state.started)), device=x_NTE.device)
        last = batch.action[:, -1]
        if lengths is not None:
            steps = torch.as_tensor(lengths, device=x_NTE.device).long()
            last = batch.action[torch.arange(len(steps), device=steps.device), steps - 1]
            # A row without a step keeps the action it has.
            index, last = index[steps > 0], last[steps > 0]
        state.prev_action[index] = last.to(state.prev_action)
        state.started[index] = True
        return self._output(y_NTE, batch)

    def auxiliary_losses(
        self, output: PolicyOutput, batch: SequenceBatch
    ) -> dict[str, AuxiliaryLosses]:
        """Return losses and metrics of the auxiliary heads, by the heads' names."""
        losses = {}
        for name, head in self.auxiliary.items():
            assert isinstance(head, AuxiliaryHead)
            losses[name] = head.auxiliary_losses(output.auxiliary[name], batch)
        return losses

    def to_environment(self, action: Tensor) -> Tensor:
        """Return actions of `step` in the environment's units, not clipped yet."""
        return action if self.action_units is None else self.action_units.to_environment(action)

    def from_environment(self, action: Tensor) -> Tensor:
        """Return actions in the environment's units, such as an expert's, in those of `step`."""
        return action if self.action_units is None else self.action_units.from_environment(action)

    def clip_action(self, action: Tensor) -> Tensor:
        """Return actions in the environment's units with vectors clipped to the action space."""
        if not isinstance(self.action_space, spaces.Box):
            return action
        low = torch.as_tensor(self.action_space.low, device=action.device)
        high = torch.as_tensor(self.action_space.high, device=action.device)
        return torch.minimum(torch.maximum(action, low), high)

    def _decode(
        self,
        observation: Observation,
        state: PolicyState,
        episode_starts: Tensor | np.ndarray | None,
        *,
        write: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return features for the heads, and the tokens that the memory was given."""
        if episode_starts is None:
            starts_N = ~state.started
        else:
            starts_N = torch.as_tensor(episode_starts, device=state.started.device)
        x_NE = self._token(observation, state.prev_action, starts_N)
        y_NE = self.memory.step(x_NE, starts_N, state.memory, write)
        return self._features(y_NE, observation)[0], x_NE

    def _features(self, y_E: Tensor, observation: Observation) -> tuple[Tensor, dict[str, Any]]:
        """Return what the heads of action and value are given, and what auxiliary heads said."""
        told_E, said = y_E, {}
        for name, head in self.auxiliary.items():
            added_E, said[name] = head(y_E, observation)
            # Heads read the memory's own output, not what the others added: their order does not
            # matter.
            told_E = told_E if added_E is None else told_E + added_E
        return self.features(told_E), said

    def _value(self, features_E: Tensor, observation: Observation) -> Tensor:
        if isinstance(self.critic, PrivilegedCritic):
            return self.critic(features_E, observation)
        return self.critic(features_E)

    def _token(
        self, observation: Observation, prev_action: Tensor, episode_starts: Tensor
    ) -> Tensor:
        return self.token(self.encoder(observation, prev_action, episode_starts))

    def _tokens(self, batch: SequenceBatch) -> Tensor:
        """Return the tokens (N, T, E) of many steps."""
        given = {"prev_action": batch.prev_action, "episode_starts": batch.episode_starts}
        seen = {f"observation {key}": value for key, value in batch.observation.items()}

        def make(columns: Columns) -> Tensor:
            observation = {key: columns[f"observation {key}"] for key in batch.observation}
            return self._token(observation, columns["prev_action"], columns["episode_starts"])

        return in_slices(make, given | seen, self.config.encoder.slice_steps)

    def _output(self, y_NTE: Tensor, batch: SequenceBatch) -> PolicyOutput:
        features_NTE, said = self._features(y_NTE, batch.observation)
        distribution = self.actor(features_NTE)
        return PolicyOutput(
            log_prob=distribution.log_prob(batch.action),
            value=self._value(features_NTE, batch.observation),
            entropy=distribution.entropy(),
            distribution=distribution,
            auxiliary=said,
        )
