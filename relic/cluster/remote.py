"""A source of rollouts from EnvRunner actors, on the learner's side.

The learner keeps the whole rollout and a memory of its own, which it refreshes as the actors
refresh theirs; so its loss sees the context that they acted on (in another number format where it
has a GPU and bf16). An actor that dies costs a chunk: the learner holds all that its successor
needs to make the same chunk again.

Shapes: N rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError
from torch import Tensor

from relic.cluster.env_runner import Order, pack, unpack
from relic.policy.policy import Policy
from relic.ppo.rollout import Rollout
from relic.ppo.source import RolloutSource, RowGroup
from relic.run.config import ClusterConfig, RunConfig

_log = logging.getLogger(__name__)
_ATTEMPTS = 3
_PING_S = 10.0


class LostRunnerError(RuntimeError):
    """An EnvRunner that does not come back, or dies of the same chunk again and again."""

    foreseen = True


@dataclass(slots=True)
class Link:
    """One EnvRunner, and what its successor would need."""

    group: RowGroup
    actor: ActorHandle | None = None
    state: dict[str, Any] | None = None
    """The collector as it was when the newest chunk began; None before the first."""
    current: bool = True
    """Whether the actor stands where the learner does."""


class RemoteCollector(RolloutSource):
    """Fills the rollout of a learner from its EnvRunners, one for each part of the rows."""

    def __init__(
        self,
        policy: Policy,
        rollout: Rollout,
        *,
        config: RunConfig,
        num_runners: int,
        world_size: int,
    ) -> None:
        """Set up; `connect` must follow.

        Args:
            policy: Who acts, as the learner has it.
            rollout: What is filled.
            config: The run.
            num_runners: EnvRunners of this rank; they share its rows evenly, in order.
            world_size: Ranks.
        """
        super().__init__(
            policy,
            rollout,
            seed=config.seed,
            world_size=world_size,
            cache_dtype=config.rollout.torch_cache_dtype,
        )
        self._updates = config.updates
        self._cluster: ClusterConfig = config.cluster
        each = rollout.num_envs // num_runners
        self._links = [
            Link(self._new_group(slice(i * each, (i + 1) * each))) for i in range(num_runners)
        ]
        self._bootstrap_N = torch.zeros(rollout.num_envs)
        self._chunk = config.schedule.chunk

    @property
    def groups(self) -> Sequence[RowGroup]:
        """The groups of rows, one for each EnvRunner."""
        return [link.group for link in self._links]

    def connect(self, actors: Sequence[ActorHandle]) -> None:
        """Name the EnvRunners, in the order of their rows."""
        for link, actor in zip(self._links, actors, strict=True):
            link.actor = actor

    def begin_rollout(self) -> None:
        """Forget the last rollout; the EnvRunners do so with their next order."""
        self.rollout.clear()
        for link in self._links:
            link.group.state.reset()
            self._draw_depth_mask(link.group)

    def collect(self, until: int) -> None:
        """Have all EnvRunners make a chunk under the present weights, and take it in."""
        begin = self.rollout.size
        # An update follows every chunk, so this is the number of updates, by which the learner
        # shuffles.
        order = Order(begin, until, self.row_steps, draw=self.row_steps // self._chunk)
        # Put once, for all EnvRunners to read.
        weights = ray.put(pack(self._moving_weights()))
        for link in self._links:
            link.group.prefix = link.group.state.memory.snapshot()
        calls = [self._ask(link, weights, order) for link in self._links]
        answers = [
            self._receive(link, call, weights, order)
            for link, call in zip(self._links, calls, strict=True)
        ]
        for link, answer in zip(self._links, answers, strict=True):
            self._take(link, unpack(answer), order)
        # EnvRunners work side by side, so the slowest is what one waits for.
        for name in answers[0]["times"]:
            self.times[name] += max(answer["times"].get(name, 0.0) for answer in answers)
        self.rollout.size = until
        self.row_steps += until - begin
        if not self._updates.refresh_memory:
            self._append_to_memory(begin, until)

    def bootstrap_value(self) -> Tensor:
        """Return what the EnvRunners' critics expect from here on, (N,)."""
        return self._bootstrap_N.to(self.policy.device)

    def state_dict(self) -> dict[str, Any]:
        """Return what a local collector with as many groups would."""
        states = [link.state or {"groups": [{"env": None}]} for link in self._links]
        return {
            "row_steps": self.row_steps,
            "started": self._links[0].state is not None,
            "groups": [state["groups"][0] for state in states],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state; EnvRunners get their part of it before their next chunk."""
        self.row_steps = int(state["row_steps"])
        groups = state["groups"]
        parts = [None] * len(self._links) if groups is None else [[group] for group in groups]
        for link, part in zip(self._links, parts, strict=True):
            link.state = {**state, "groups": part}
            link.current = False
            link.group.state.reset()
            self._draw_depth_mask(link.group)

    def close(self) -> None:
        """Let go of the EnvRunners; they belong to the algorithm."""
        for link in self._links:
            link.actor = None

    def _ask(self, link: Link, weights: ObjectRef, order: Order) -> ObjectRef:
        """Send an order, and before it all that an actor which is behind must know."""
        assert link.actor is not None, "connect() comes first"
        restored = None
        if not link.current:
            everything = pack(self.policy.state_dict())
            restored = link.actor.restore.remote(everything, self._successor_state(link))
            link.current = True
        # An order that waits for `restored` fails if that failed.
        return link.actor.collect.remote(weights, order, restored)

    def _successor_state(self, link: Link) -> dict[str, Any]:
        """Return what another actor needs to begin the newest chunk."""
        rollout, rows = self.rollout, link.group.rows
        under_way = rollout.size > 0
        keeps_memory = under_way and not self._updates.refresh_memory
        return pack(
            {
                "collector": link.state,
                "rollout": rollout.state_dict(rows) if under_way else None,
                "chunks": [rollout.chunk_state(0, rollout.size, rows)],
                "memory": link.group.state.state_dict() if keeps_memory else None,
            }
        )

    def _receive(
        self, link: Link, call: ObjectRef, weights: ObjectRef, order: Order
    ) -> dict[str, Any]:
        """Wait for a chunk; have it made again where the actor dies or says nothing.

        Raises:
            LostRunnerError: If that does not help.
        """
        rows = self.rollout.global_row_N[link.group.rows]
        who = f"the EnvRunner of rows {rows[0]} to {rows[-1]}"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return ray.get(call, timeout=self._cluster.timeout_s)
            except GetTimeoutError:
                reason = f"said nothing for {self._cluster.timeout_s:g} s"
                assert link.actor is not None
                ray.kill(link.actor, no_restart=False)
            except RayActorError:
                reason = "died"
            _log.warning(
                "%s %s: steps %d to %d of its rows are lost (attempt %d of %d).",
                who, reason, order.begin, order.until, attempt, _ATTEMPTS,
            )  # fmt: skip
            self.restarts += 1
            self._wait_for(link, who)
            # Before the first chunk a new actor stands where the lost one stood.
            link.current = link.state is None
            call = self._ask(link, weights, order)
        raise LostRunnerError(
            f"RemoteCollector.collect: {who} must make steps {order.begin} to {order.until}, but "
            f"failed {_ATTEMPTS} times. Look at its log; a simulator may be broken there."
        )

    def _wait_for(self, link: Link, who: str) -> None:
        """Wait until Ray has started the actor again."""
        assert link.actor is not None
        deadline = time.monotonic() + self._cluster.start_timeout_s
        while True:
            try:
                ray.get(link.actor.ping.remote(), timeout=_PING_S)
            except (RayActorError, GetTimeoutError):
                if time.monotonic() > deadline:
                    raise LostRunnerError(
                        f"RemoteCollector.collect: {who} must come back within "
                        f"cluster.start_timeout_s={self._cluster.start_timeout_s:g}, but did not. "
                        "Give the cluster room for it, or more time."
                    ) from None
                time.sleep(1.0)
            else:
                return

    def _take(self, link: Link, answer: dict[str, Any], order: Order) -> None:
        """Write what an EnvRunner made into the rollout."""
        rollout, rows = self.rollout, link.group.rows
        part = (rows, slice(order.begin, order.until))
        rollout.load_chunk(answer["chunk"], rows)
        rollout.log_prob_NT[part] = answer["log_prob"].to(rollout.device)
        rollout.value_NT[part] = answer["value"].to(rollout.device)
        self._bootstrap_N[rows] = answer["bootstrap"]
        if answer["episodes"]:
            self._episodes.append(answer["episodes"])
        self._crashes += answer["crashes"]
        link.state = answer["state"]

    def _append_to_memory(self, begin: int, end: int) -> None:
        """Remember a chunk as its EnvRunner does, where no refresh will do it later."""
        for link in self._links:
            batch = self.rollout.batch(link.group.rows_N, begin, end, self.policy.device)
            self.policy.replay(batch, link.group.state)

    def _moving_weights(self) -> dict[str, Tensor]:
        """Return what learning may change of the policy."""
        frozen = {name for name, p in self.policy.named_parameters() if not p.requires_grad}
        return {k: v for k, v in self.policy.state_dict().items() if k not in frozen}
