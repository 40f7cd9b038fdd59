"""The EnvRunner: simulators, a policy that acts, and its memory, in an actor of their own.

It makes chunks as a learner orders them; `relic.cluster.remote` is the other side. Everything that
acts or remembers is a `relic.ppo` collector, the same as in a local run. State travels between the
two packed: tensors as numpy arrays, which Ray shares in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from torch import Tensor

from envs.core.vector import TrialVectorEnv
from relic.cluster.job import FACTS, Facts, run_of
from relic.ppo.collector import Collector
from relic.ppo.loop import order_for, renew_context, restore_memory
from relic.run.components import build_collector, build_envs, build_policy, build_rollout
from relic.run.encoder import name_encoder
from relic.run.run_directory import RunDirectory
from relic.run.trainer import prepare_process


@dataclass(frozen=True, slots=True)
class Order:
    """One chunk, as a learner wants it."""

    begin: int
    """Steps that the rollout has already; 0 begins a new one, in new trials."""
    until: int
    row_steps: int
    """Steps of each row in the run before this chunk."""
    draw: int
    """Updates of the run so far, which number the shuffle."""


class ReLICEnvRunner(EnvRunner):
    """Acts in some of the rows.

    The one in the driver (`worker_index` 0) only says which spaces the environment has.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        """Read the configuration; environments are built when they are first asked for."""
        super().__init__(config=config, **kwargs)
        self.run = run_of(self.config)
        self.module = None
        self._facts: Facts | None = None
        self._collector: Collector | None = None
        self._is_renewed = False
        """Whether shuffle and refresh are done already for the next chunk."""
        prepare_process(self.run)
        if self.worker_index:
            self.make_env()

    def rows(self) -> range:
        """Return the global numbers of the rows of this actor."""
        runners = self.run.cluster.num_env_runners
        each = self.run.rollout.num_envs // runners
        return range((self.worker_index - 1) * each, self.worker_index * each)

    def make_env(self) -> None:
        """Build the environment of this actor's rows."""
        self.env: TrialVectorEnv | None = build_envs(self.run, self.rows())[0]
        self._facts = Facts.of(self.env)

    def assert_healthy(self) -> None:
        """Check that the constructor has come to its end."""
        assert not self.worker_index or self.env is not None

    def get_spaces(self) -> dict[str, Any]:
        """Return the spaces under RLlib's names, and all facts of the environment under `FACTS`."""
        if self._facts is None:
            env = build_envs(self.run, range(1))[0]
            self._facts = Facts.of(env)
            env.close()
        facts = self._facts
        both = (facts.single_observation_space, facts.single_action_space)
        return {
            INPUT_ENV_SPACES: both,
            INPUT_ENV_SINGLE_SPACES: both,
            DEFAULT_MODULE_ID: both,
            FACTS: facts,
        }

    def sample(self, **kwargs: Any) -> dict[str, Any]:
        """Act for one chunk; RLlib's name for `collect`."""
        return self.collect(**kwargs)

    def collect(
        self, weights: dict[str, Any], order: Order, restored: None = None
    ) -> dict[str, Any]:
        """Act for one chunk.

        Args:
            weights: What the policy acts under, as far as learning changes it.
            order: The chunk. It must follow what this actor did last (`restore` sees to that).
            restored: What `restore` returned, if it was called just before.

        Returns:
            The chunk's columns, and what the learner must know besides; `Collector.state_dict`
            with it, so that another actor could go on from here.
        """
        collector = self._ready()
        rollout = collector.rollout
        assert order.begin in (0, rollout.size), "the learner restores an actor that is behind"
        assert collector.row_steps == order.row_steps, (
            "the learner restores an actor that is behind"
        )
        _take_weights(collector, weights)
        del restored
        if order.begin == 0:
            collector.begin_rollout()
        elif not self._is_renewed:
            # As the learner has done since: it shuffles the order that its update saw.
            schedule = self.run.schedule
            order_for(schedule.table[order.begin // schedule.chunk - 1], rollout, self.run.updates)
            renew_context(
                collector, self.run.updates, draw=order.draw, precision=self.run.ppo.precision
            )
        self._is_renewed = False
        collector.collect(order.until)
        span = slice(order.begin, order.until)
        return pack(
            {
                "chunk": rollout.chunk_state(order.begin, order.until),
                "log_prob": rollout.log_prob_NT[:, span],
                "value": rollout.value_NT[:, span],
                "bootstrap": collector.bootstrap_value(),
                "episodes": collector.take_episodes(),
                "crashes": collector.take_crashes(),
                "times": collector.take_times(),
                "state": collector.state_dict(),
            }
        )

    def restore(self, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Take over where another actor, or a checkpoint, has stopped.

        Args:
            weights: All of the policy's.
            state: `collector` as `sample` returned it; `rollout`, `chunks` and `memory` of these
                rows, None where no rollout is under way.
        """
        state = unpack(state)
        collector = self._ready()
        _take_weights(collector, weights)
        collector.rollout.clear()
        if state["rollout"] is not None:
            collector.rollout.load_state_dict(state["rollout"], state["chunks"])
        collector.load_state_dict(state["collector"])
        if state["memory"] is not None:
            collector.groups[0].state.load_state_dict(state["memory"])
        restore_memory(collector, self.run.updates, precision=self.run.ppo.precision)
        # What was restored is renewed already; a second shuffle would give another order.
        self._is_renewed = True

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return nothing: the learner holds all that is worth keeping."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take nothing: learners send weights with each order."""

    def get_metrics(self) -> dict[str, Any]:
        """Return RLlib's own statistics; episodes go to the learner with their chunk."""
        return self.metrics.reduce()

    def stop(self) -> None:
        """Release the environment."""
        if self._collector is not None:
            self._collector.close()
        if self.env is not None:
            self.env.close()

    def _ready(self) -> Collector:
        """Build policy, rollout and memory, once; the run's encoder exists by then."""
        if self._collector is None:
            assert self.env is not None
            device = torch.device("cpu")
            run = name_encoder(self.run, RunDirectory(self.run.directory))
            policy = build_policy(run, self.env, device)
            rollout = build_rollout(run, policy, self.rows(), device)
            self._collector = build_collector(
                run, [self.env], policy, rollout, world_size=run.cluster.num_env_runners
            )
        return self._collector


def _take_weights(collector: Collector, weights: dict[str, Any]) -> None:
    """Copy weights into the policy, in place, so that caches notice."""
    target = collector.policy.state_dict()
    # Writes count up the parameters' versions, by which memories know that their sinks are stale.
    with torch.no_grad():
        for name, value in unpack(weights).items():
            target[name].copy_(value)


@dataclass(frozen=True, slots=True)
class Shipped:
    """A tensor on its way."""

    array: np.ndarray[Any, Any]


def pack(state: Any) -> Any:
    """Return nested state ready to be sent; types that numpy lacks stay tensors."""
    return _map(state, _ship)


def unpack(state: Any) -> Any:
    """Return what was packed, with memory of its own: arrays that Ray hands out are read-only."""
    return _map(state, _receive)


def _ship(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    host = leaf.detach().cpu()
    # numpy has no bfloat16.
    return host if host.dtype is torch.bfloat16 else Shipped(host.numpy())


def _receive(leaf: Any) -> Any:
    if isinstance(leaf, Shipped):
        return torch.from_numpy(leaf.array.copy())
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _map(state: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(state, dict):
        return {key: _map(value, change) for key, value in state.items()}
    if isinstance(state, list):
        return [_map(value, change) for value in state]
    return change(state)
