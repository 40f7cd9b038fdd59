"""The RLlib Learner: one rank of the run, with all parts of `relic.run` and `relic.ppo`.

RLlib starts it, gives it a device and joins it to its peers; the trainer inside is the local one.
Losses, minibatches and schedules of RLlib are not used, so nothing is computed twice or otherwise.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from ray.actor import ActorHandle
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from relic.cluster.job import FACTS, Facts, run_of
from relic.cluster.remote import RemoteCollector
from relic.policy.policy import Policy
from relic.ppo.reduction import RankReduction, Reduction
from relic.run.components import Components, assemble, build_components, refusals
from relic.run.config import Placement, RunConfig
from relic.run.distributed import Ranks
from relic.run.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Step:
    """What a learner did up to and including one update."""

    metrics: dict[str, Any] | None
    """As in `metrics.jsonl`, of the first rank. None: there was nothing left to do."""
    env_steps: int
    rollout_ended: bool
    finished: bool
    restarts: int
    """EnvRunners of this rank that had to be started again so far."""


class ReLICModule(TorchRLModule):
    """The policy as RLlib holds it, for its weights alone: RLlib never looks into a batch."""

    def __init__(self, policy: Policy) -> None:
        """Wrap the policy; its parameters are the module's."""
        super().__init__(
            observation_space=policy.observation_space,
            action_space=policy.action_space,
            model_config={},
        )
        self.policy = policy


class ReLICLearner(TorchLearner):
    """Runs a local trainer as one rank of the cluster's."""

    trainer: Trainer

    def _make_module(self) -> MultiRLModule:
        """Build the trainer, and wrap its policy for RLlib."""
        run: RunConfig = run_of(self.config)
        if run.cluster.placement is Placement.SPLIT:
            build = partial(_build_remote, facts=self._facts())
        else:
            build = build_components
        self.trainer = Trainer(run, self._join(run), build)
        self._updates: Generator[dict[str, Any]] | None = None
        self._stopping = False
        module = MultiRLModule()
        module.add_module(DEFAULT_MODULE_ID, ReLICModule(self.trainer.parts.policy))
        return module

    def _facts(self) -> Facts:
        """Return what the first EnvRunner has said of its environment."""
        spec: Any = self._module_spec
        return spec.rl_module_specs[DEFAULT_MODULE_ID].model_config[FACTS]

    def _join(self, run: RunConfig) -> Ranks:
        """Make a group of all learners in which nobody waits for ever."""
        if not self.distributed:
            return Ranks(0, 1, self._device, Reduction())
        # A group of its own beside RLlib's, for the sake of the timeout.
        group = dist.new_group(timeout=timedelta(seconds=run.cluster.timeout_s))
        assert isinstance(group, dist.ProcessGroup)
        return Ranks(dist.get_rank(), dist.get_world_size(), self._device, RankReduction(group))

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Show RLlib the optimiser; its learning rate is the trainer's business."""
        learner = self.trainer.parts.learner
        self.register_optimizer(
            module_id=module_id,
            optimizer=learner.optimizer,
            params=learner.gradients.parameters,
        )

    def _make_modules_ddp_if_necessary(self) -> None:
        """Leave the module bare: `relic.ppo.reduction` sums gradients, as one flat tensor."""

    def compute_loss_for_module(self, **kwargs: Any) -> Any:
        """Refuse: losses need whole contexts, which RLlib's batches are not.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "ReLICLearner.compute_loss_for_module: losses are computed by train_update(), got a "
            "call of RLlib's own update. Use ReLIC.train()."
        )

    def connect(self, runners: Sequence[ActorHandle]) -> None:
        """Take over the EnvRunners of this rank, those next to each other in the order of rows."""
        ranks = self.trainer.ranks
        each = len(runners) // ranks.world_size
        collector = self.trainer.parts.collector
        assert isinstance(collector, RemoteCollector)
        collector.connect(runners[ranks.rank * each : (ranks.rank + 1) * each])

    def train_update(self, stopping: bool) -> Step:
        """Train up to and including the next update; all ranks call it together.

        Args:
            stopping: Save after it, and end the run there.
        """
        self._stopping = stopping
        metrics = next(self._under_way(), None)
        self._weights_seq_no += 1
        rollout = self.trainer.parts.rollout
        return Step(
            # All ranks measure the same means; one copy goes to the driver.
            metrics if self.trainer.ranks.is_first or metrics is None else {},
            self.trainer.env_steps,
            rollout.size in (0, rollout.num_steps),
            self.trainer.is_finished,
            restarts=self.trainer.parts.collector.restarts,
        )

    def describe(self) -> list[str]:
        """Return what is to be said of the run before it starts."""
        return self.trainer.parts.plan.lines()

    def save_run(self) -> Path:
        """Save a checkpoint now, and return where it lies; all ranks call it together."""
        self._under_way()
        return self.trainer.save().path

    def rewind(self) -> None:
        """Go on from the newest checkpoint of the run directory, whatever was done since."""
        self._close_updates()

    def shutdown(self) -> None:
        """Release environments, threads and files."""
        self._close_updates()
        self.trainer.close()
        self.trainer.ranks.close()
        super().shutdown()

    def _under_way(self) -> Generator[dict[str, Any]]:
        """Return the updates to come; the first call takes up what the run directory holds."""
        if self._updates is None:
            self.trainer.resume()
            self._updates = self.trainer.updates(lambda: self._stopping)
        return self._updates

    def _close_updates(self) -> None:
        if self._updates is not None:
            self._updates.close()
            self._updates = None


def _build_remote(config: RunConfig, ranks: Ranks, *, facts: Facts) -> Components:
    """Build the parts of a rank whose rollouts come from EnvRunners."""
    runners = config.cluster.num_env_runners // ranks.world_size
    with refusals():
        return assemble(
            config,
            ranks,
            facts,
            lambda policy, rollout: RemoteCollector(
                policy,
                rollout,
                config=config,
                num_runners=runners,
                world_size=ranks.world_size,
            ),
        )
