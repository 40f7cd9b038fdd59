"""One trial recorded step by step, and what the policy attends to in it.

`record_trial` keeps what was seen and done, and where the agent was. `attention_of` works out
afterwards how much each step attends to which episode, from the policy's own queries and keys
(`relic.policy.attention.layer_attention`).

Shapes: L layers, H heads, T steps of the trial, Q some of them, I episode index, J sinks
and steps, K places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.core.demonstrations import Demonstrations, record_expert, rehearse
from envs.core.vector import Observation, TrialVectorEnv
from relic.evaluation.evaluator import make_env, run_block
from relic.evaluation.maps import Positions, TrialMap, map_of
from relic.evaluation.protocol import Protocol
from relic.evaluation.records import Record
from relic.policy.attention.layer_attention import LayerAttention
from relic.policy.origin import check_fit
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch

Floats = NDArray[np.float32]
_AT_ONCE = 256
"""Queries whose weights are held at once: a row of them is as long as the trial."""


@dataclass(frozen=True, slots=True)
class RecordedTrial:
    """The steps of one trial."""

    trial: int
    shown: int
    """Episodes that were demonstrated; the policy acted in the others."""
    map: TrialMap
    position_T2: Positions
    """Where the agent was when it acted, in the units of the map."""
    batch: SequenceBatch
    """What it saw and did, one row."""
    records: tuple[Record, ...]
    """Of its episodes, in order."""

    @property
    def episode_T(self) -> np.ndarray:
        """Index of each step's episode."""
        starts_T = self.batch.episode_starts[0].cpu().numpy()
        return np.cumsum(starts_T) - 1

    def episode(self, index: int) -> slice:
        """Return the steps of an episode."""
        steps = np.flatnonzero(self.episode_T == index)
        return slice(int(steps[0]), int(steps[-1]) + 1)

    def goals(self, episode: int) -> Positions:
        """Return where what the episode asks for is, (K, 2)."""
        return self.map.goals(int(self.records[episode]["goal"]))


def record_trial(
    policy: Policy,
    protocol: Protocol,
    trial: int,
    *,
    episodes: int,
    shown: int = 0,
    demonstrations: Demonstrations | None = None,
) -> RecordedTrial:
    """Let a policy live through one trial and keep everything.

    Args:
        policy: Who acts.
        protocol: With the run's options filled in, see `fit_protocol`. Its trials and lengths do
            not matter.
        trial: Number of the trial.
        episodes: How many, shown ones included.
        shown: Of these, how many are demonstrated at the beginning.
        demonstrations: Of the trial. None: those of the environment's expert.

    Raises:
        ValueError: If the policy does not fit the environment, or the environment has no map.
        DemonstrationError: If the demonstrations do not fit the trial.
    """
    single = replace(
        protocol, first_trial=trial, trials=1, repeats=1, block=1, steps=None, episodes=episodes
    )
    env = make_env(single)
    try:
        check_fit(policy, env)
        if shown and demonstrations is None:
            demonstrations, _ = record_expert(env, [trial], shown)
        elif shown and demonstrations is not None:
            rehearse(demonstrations, env, [trial], shown)
        keeper = _Keeper(demonstrations, shown)
        (block,) = single.blocks()
        records = tuple(run_block(policy, env, single, block, on_act=keeper))
        return RecordedTrial(
            trial=trial,
            shown=shown,
            map=map_of(env),
            position_T2=np.concatenate(keeper.positions),
            batch=keeper.batch(policy),
            records=records,
        )
    finally:
        env.close()


class _Keeper:
    """Keeps each step of a block of one row."""

    def __init__(self, demonstrations: Demonstrations | None, shown: int) -> None:
        self._demonstrations, self._shown = demonstrations, shown
        self.positions: list[Positions] = []
        self._seen: list[Observation] = []
        self._starts: list[np.ndarray] = []
        self._actions: list[np.ndarray] = []

    def __call__(
        self,
        env: TrialVectorEnv,
        observation: Observation,
        starts_N: np.ndarray,
        action_N: np.ndarray,
    ) -> np.ndarray:
        if self._demonstrations is not None:
            action_N = self._demonstrations.act(env, self._shown, action_N)
        self.positions.append(map_of(env).poses(env, observation)[:, :2])
        self._seen.append(observation)
        self._starts.append(starts_N.copy())
        self._actions.append(action_N.copy())
        return action_N

    def batch(self, policy: Policy) -> SequenceBatch:
        """Return all steps in one row, where the policy is."""

        def row(steps: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(steps, axis=1)).to(policy.device)

        seen = {name: row([o[name] for o in self._seen]) for name in self._seen[0]}
        action = policy.from_environment(row(self._actions))
        return SequenceBatch(
            observation=policy.encode_observation(seen),
            action=action,
            prev_action=action.roll(1, dims=1),  # not looked at where an episode starts
            episode_starts=row(self._starts),
        )


@dataclass(frozen=True, slots=True)
class TrialAttention:
    """The attention of a policy in one trial."""

    recorded: RecordedTrial
    layers: tuple[LayerAttention, ...]

    @property
    def num_heads(self) -> int:
        """H."""
        return self.layers[0].query_NHTD.shape[1]

    def to_steps(self, steps: slice) -> Floats:
        """Return how much each head attends to each step of the trial, (L, H, T).

        Args:
            steps: The queries; their mean is returned. What is missing to one goes to the sinks.
        """
        means = [layer.weights(steps)[0, :, :, layer.num_sinks :].mean(1) for layer in self.layers]
        return torch.stack(means).cpu().numpy()

    def shares(self) -> Shares:
        """Return where the attention of each step goes."""
        episode_T = self.recorded.episode_T
        parts = [_layer_shares(layer, episode_T) for layer in self.layers]
        sink_LHT, episode_LHTI = (np.stack(part) for part in zip(*parts, strict=True))
        return Shares(sink_LHT, episode_LHTI, episode_T)


@dataclass(frozen=True, slots=True)
class Shares:
    """How each step's attention is divided; sink, own and earlier sum to one."""

    sink_LHT: Floats
    episode_LHTI: Floats
    """To the steps of each episode."""
    episode_T: NDArray[np.int64]
    """The episode of each step that attends."""

    @property
    def own_LHT(self) -> Floats:
        """To the episode that the step is in."""
        index = self.episode_T[None, None, :, None]
        return np.take_along_axis(self.episode_LHTI, index, axis=3)[..., 0]

    @property
    def earlier_LHT(self) -> Floats:
        """To earlier episodes."""
        return self.episode_LHTI.sum(axis=3) - self.own_LHT

    def by_episode(self) -> Floats:
        """Return the mean over the steps of each episode, (L, H, I attending, I attended)."""
        count = self.episode_LHTI.shape[3]
        means = [self.episode_LHTI[:, :, self.episode_T == i].mean(axis=2) for i in range(count)]
        return np.stack(means, axis=2)


def attention_of(policy: Policy, recorded: RecordedTrial) -> TrialAttention:
    """Work out what a policy attended to.

    Args:
        policy: The one that acted in the trial; another one shows what it would have
            attended to there.
        recorded: The trial.

    Raises:
        ValueError: If the policy's memory is no transformer.
    """
    with torch.no_grad(), policy.memory.watch_attention() as layers:
        policy.evaluate_actions(recorded.batch)
    return TrialAttention(recorded, tuple(layers))


def _layer_shares(layer: LayerAttention, episode_T: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the shares of the sinks (H, T) and of each episode (H, T, I)."""
    num_steps = len(episode_T)
    of_episode_TI = torch.zeros(num_steps, int(episode_T[-1]) + 1)
    of_episode_TI[torch.arange(num_steps), torch.from_numpy(episode_T)] = 1.0
    sinks, episodes = [], []
    # Weights of all queries at once would grow with T x T.
    for begin in range(0, num_steps, _AT_ONCE):
        weights_HQJ = layer.weights(slice(begin, begin + _AT_ONCE))[0].cpu().float()
        sinks.append(weights_HQJ[..., : layer.num_sinks].sum(-1))
        episodes.append(weights_HQJ[..., layer.num_sinks :] @ of_episode_TI)
    return torch.cat(sinks, dim=1).numpy(), torch.cat(episodes, dim=1).numpy()
