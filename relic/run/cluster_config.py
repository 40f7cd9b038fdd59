"""How a run is laid out over a Ray cluster. Ray itself is imported in `relic.cluster` alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from relic.ppo.schedule import check_divides
from relic.run.bounds import at_least, at_most


class Placement(Enum):
    """Where a cluster job simulates."""

    COLOCATED = "colocated"
    """Each learner owns its simulators: only gradients are exchanged."""
    SPLIT = "split"
    """EnvRunner actors simulate and act; for simulators that crash or live on other nodes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterConfig:
    """The same training as a Ray RLlib job."""

    backend: Literal["none", "ray"] = "none"
    """None: no cluster; the run is this process, or the ranks that torchrun starts."""
    placement: Placement = Placement.COLOCATED
    num_learners: int = 1
    """Ranks that learn; the rows are cut evenly among them."""
    num_env_runners: int = 1
    """Actors that simulate for the learners, as many for each; only with placement=split."""
    address: str | None = None
    """Cluster to join, as host:port or auto. None: the one of RAY_ADDRESS, or one of its own."""
    cpus_per_learner: int = 1
    gpus_per_learner: int | None = None
    """None: one each where device is not cpu and the cluster has as many."""
    cpus_per_env_runner: int = 1
    start_timeout_s: float = 60.0
    """Longest wait for a cluster's resources, or for an actor to come back."""
    timeout_s: float = 1800.0
    """An actor or exchange that takes longer for one update counts as dead."""
    max_failures: int = 3
    """How often a run that lost a learner starts again from its last checkpoint."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("num_learners", "num_env_runners", "cpus_per_learner", "cpus_per_env_runner"):
            at_least(name, getattr(self, name), 1)
        at_least("gpus_per_learner", self.gpus_per_learner or 0, 0)
        at_least("max_failures", self.max_failures, 0)
        for name in ("start_timeout_s", "timeout_s"):
            at_least(name, getattr(self, name), 1)

    @property
    def env_runners(self) -> int:
        """EnvRunner actors of the job."""
        return self.num_env_runners if self.placement is Placement.SPLIT else 0

    def check_rows(self, num_envs: int, groups: int) -> None:
        """Refuse actors that cannot share the rows evenly."""
        at_most("cluster.num_learners", self.num_learners, "rollout.num_envs", num_envs)
        check_divides("cluster.num_learners", self.num_learners, "rollout.num_envs", num_envs)
        if self.placement is Placement.COLOCATED:
            rows = num_envs // self.num_learners
            check_divides("rollout.groups", groups, "rows of a learner", rows)
        if self.placement is Placement.SPLIT:
            runners, name = self.num_env_runners, "cluster.num_env_runners"
            at_most(name, runners, "rollout.num_envs", num_envs)
            check_divides(name, runners, "rollout.num_envs", num_envs)
            check_divides("cluster.num_learners", self.num_learners, name, runners)
