"""One trial, step by step, as a policy lived it: what it saw and did, and where it was.

Shape suffixes: T steps of the trial.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from envs.demonstrations import Demonstrations, record_expert, rehearse
from envs.vector import Observation, TrialVectorEnv
from relic.evaluation.evaluator import Record, check_fit, make_env, run_block
from relic.evaluation.grounds import Ground, Positions, ground_of
from relic.evaluation.protocol import Protocol
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch


@dataclass(frozen=True, slots=True)
class Trace:
    """The steps of one trial."""

    trial: int
    shown: int
    """Episodes that were demonstrated; the policy acted in the others."""
    ground: Ground
    position_T2: Positions
    """Where the agent was when it acted, in the units of the ground."""
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
        return self.ground.goals(int(self.records[episode]["goal"]))


def record_trial(
    policy: Policy,
    protocol: Protocol,
    trial: int,
    *,
    episodes: int,
    shown: int = 0,
    demonstrations: Demonstrations | None = None,
) -> Trace:
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
        return Trace(
            trial=trial,
            shown=shown,
            ground=ground_of(env),
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
        self.positions.append(ground_of(env).positions(env, observation))
        self._seen.append(observation)
        self._starts.append(starts_N.copy())
        self._actions.append(action_N.copy())
        return action_N

    def batch(self, policy: Policy) -> SequenceBatch:
        """Return all steps in one row, where the policy is."""

        def row(steps: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(steps, axis=1)).to(policy.device)

        seen = {name: row([o[name] for o in self._seen]) for name in self._seen[0]}
        action = row(self._actions)
        return SequenceBatch(
            observation=policy.encode_observation(seen),
            action=action,
            prev_action=action.roll(1, dims=1),  # not looked at where an episode starts
            episode_starts=row(self._starts),
        )
