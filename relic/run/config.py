"""The configuration of a run: one frozen dataclass per component, all checked before a start.

Policies are configured in `relic.policy`, learning in `relic.ppo`; environments check their own
options. Derived numbers are properties, and nothing changes a configuration after it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from relic.policy.config import PolicyConfig
from relic.ppo.config import PPOConfig, Precision, UpdatesConfig, check_learning, check_ranks
from relic.ppo.schedule import PrefixGradient, UpdateSchedule, check_divides
from relic.schema import (
    MOST_THREADS,
    POSITIVE,
    ConfigError,
    at_least,
    build,
    check_bounds,
    nearest,
    to_plain,
    within,
)

if TYPE_CHECKING:
    import torch


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
    """Whether Ray runs the job. none: this machine, or the ranks that torchrun starts."""
    placement: Placement = Placement.COLOCATED
    """Where the environments are."""
    num_learners: Annotated[int, at_least(1)] = 1
    """Ranks that learn; the rows are cut evenly among them."""
    num_env_runners: Annotated[int, at_least(1)] = 1
    """Actors that simulate for the learners, as many for each; only with placement=split."""
    address: str | None = None
    """Cluster to join, as host:port or auto. None: that of RAY_ADDRESS, or a new one."""
    cpus_per_learner: Annotated[int, at_least(1)] = 1
    """Cores that Ray keeps for each learner."""
    gpus_per_learner: Annotated[int | None, at_least(0)] = None
    """None: one each where device is not cpu and the cluster has as many."""
    cpus_per_env_runner: Annotated[int, at_least(1)] = 1
    """Cores that Ray keeps for each EnvRunner."""
    start_timeout_s: Annotated[float, at_least(1)] = 60.0
    """Longest wait for Ray to start on this machine, for a cluster's resources, or for an actor to
    come back."""
    timeout_s: Annotated[float, at_least(1)] = 1800.0
    """An actor or exchange that takes longer for one update counts as dead."""
    max_failures: Annotated[int, at_least(0)] = 3
    """How often a run that lost a learner starts again from its last checkpoint."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_bounds(self)

    @property
    def env_runners(self) -> int:
        """EnvRunner actors of the job."""
        return self.num_env_runners if self.placement is Placement.SPLIT else 0

    def check_rows(self, num_envs: int, groups: int) -> None:
        """Refuse actors that cannot share the rows evenly."""
        _check_at_most("cluster.num_learners", self.num_learners, "rollout.num_envs", num_envs)
        check_divides("cluster.num_learners", self.num_learners, "rollout.num_envs", num_envs)
        if self.placement is Placement.COLOCATED:
            rows = num_envs // self.num_learners
            check_divides("rollout.groups", groups, "rows of a learner", rows)
        if self.placement is Placement.SPLIT:
            runners, name = self.num_env_runners, "cluster.num_env_runners"
            _check_at_most(name, runners, "rollout.num_envs", num_envs)
            check_divides(name, runners, "rollout.num_envs", num_envs)
            check_divides("cluster.num_learners", self.num_learners, name, runners)


BEST_METRICS = ("val/return", "val/success", "val/spl")
"""What may pick the best checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvConfig:
    """Which environment, and how it is made."""

    id: str = "relic/Darkroom-v0"
    """Gymnasium id of an environment that `import envs` registers, or `module:function`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment, described where it is defined: that of houses in
    envs/objectnav/config.py and envs/houses/env.py."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutConfig:
    """How much is collected in a trial of each row."""

    num_envs: Annotated[int, within(1, 2**20)] = 128
    """Rows of the vector environment, over all ranks."""
    num_steps: Annotated[int, within(1, 2**31)] = 512
    """Steps of one row in a rollout: the length of the context that is trained."""
    device: Literal["auto", "host", "policy"] = "auto"
    """Where the rollout is stored; auto stores it with the policy if the memory plan allows it."""
    cache_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the keys and values that acting attends to. The half formats take half the
    bytes; the ratio of an update's first step is then near 1, not equal to it. On a CPU bfloat16
    is read in less than half the time, and float16 slowly."""
    cuda_graph: bool = False
    """On CUDA, replay the transformer's step from a graph instead of launching its kernels one by
    one. A step then reads up to twice the slots that it sees. With a cache_dtype of half precision
    it does not, if PyTorch's packed kernel takes lengths (2.12 on)."""
    groups: Annotated[int, at_least(1)] = 1
    """Rows are cut into so many groups that take turns: while the policy acts for one, the others
    simulate in threads of their own. Divides num_envs."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_bounds(self)
        if self.num_envs % self.groups:
            raise ValueError(
                f"groups: must divide num_envs, got groups={self.groups}, "
                f"num_envs={self.num_envs}. Use 1 or 2."
            )

    @property
    def torch_cache_dtype(self) -> torch.dtype:
        """`cache_dtype` as PyTorch has it."""
        import torch  # what describes a run is read without it

        return getattr(torch, self.cache_dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """Training of the picture encoder on labelled pictures, before the policy begins."""

    pictures: Annotated[int, at_least(0)] = 0
    """Labelled pictures of train houses. 0: the encoder is not pretrained."""
    epochs: Annotated[int, at_least(1)] = 2
    """Passes over each part of them."""
    batch: Annotated[int, at_least(1)] = 64
    """Pictures per optimiser step."""
    lr: Annotated[float, POSITIVE] = 3e-3
    """Largest learning rate; it rises quickly and falls to nothing."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_bounds(self)
        if 0 < self.pictures < 2 * self.batch:
            raise ValueError(
                f"pictures: must be 0 or at least two batches of {self.batch}, got "
                f"{self.pictures}. Use more pictures or a smaller pretrain.batch."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """When the run is saved, and what is kept."""

    interval_s: Annotated[float, at_least(0)] = 600.0
    """Seconds between two checkpoints, taken at the next update boundary."""
    keep: Annotated[int, at_least(1)] = 2
    """How many of the newest checkpoints are kept."""
    milestone_steps: Annotated[int | None, at_least(1)] = None
    """Keep one checkpoint for good for each so many environment steps."""
    best_metric: str | None = None
    """Validation metric that picks the best checkpoint, such as val/return. None: no best."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_bounds(self)
        if self.best_metric is not None and self.best_metric not in BEST_METRICS:
            hint = nearest(self.best_metric, BEST_METRICS)
            raise ValueError(f"best_metric: unknown {self.best_metric!r}. {hint}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig:
    """A small evaluation during training, on trials that are not trained on."""

    every_rollouts: Annotated[int | None, at_least(1)] = None
    """Rollouts between two validations. None: never."""
    trials: Annotated[int, within(1, 2**20)] = 16
    """Trials of a validation, the same ones each time."""
    episodes: Annotated[int, at_least(1)] = 8
    """Episodes per trial."""
    options: dict[str, Any] = field(default_factory=dict)
    """Environment options that differ from training, usually the split."""
    score_from_episode: Annotated[int, at_least(0)] = 0
    """`val/return` and `val/success` average the episodes from this index in the context on."""
    final_trials: Annotated[int, within(0, 2**20)] = 0
    """Trials on which a finished run's agent is measured, and as it began; they follow those
    of the validation, so that there must be as many. 0: neither is."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_bounds(self)
        if self.score_from_episode >= self.episodes:
            raise ValueError(
                f"score_from_episode: must be below episodes, got {self.score_from_episode} of "
                f"{self.episodes}. Use {self.episodes - 1} or less."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggingConfig:
    """Where metrics go besides `metrics.jsonl`."""

    progress: bool = True
    """Show a progress bar on a terminal, lines elsewhere."""
    tensorboard: bool = False
    """Write event files for TensorBoard."""
    wandb: Literal["disabled", "online", "offline"] = "disabled"
    """Whether to send them to Weights & Biases; offline keeps them for `wandb sync`."""
    wandb_project: str = "relic"
    """Project there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that a run depends on."""

    experiment: str = "custom"
    """Name of the experiment, for the run directory's default."""
    seed: Annotated[int, at_least(0)] = 0
    """Seed of all random numbers of the run."""
    total_steps: Annotated[int, at_least(1)] = 3_000_000
    """Environment steps over all rows; the run ends with the rollout that reaches it."""
    run_dir: str | None = None
    """Directory of the run. None: runs/<experiment>-seed<seed>."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the policy acts and learns; auto takes CUDA if it is available."""
    ranks: Annotated[int | None, within(1, MOST_THREADS)] = None
    """Processes on this machine that share the rows and learn as one; results do not depend on
    their number. None: one per core, as far as there are enough rows; one on CUDA, where several
    take turns on the GPUs."""
    threads: Annotated[int | None, within(1, MOST_THREADS)] = None
    """CPU threads of torch in each process. None: the cores are divided evenly."""
    deterministic: bool = False
    """Make CUDA give bit-equal results, at some cost in speed."""
    init_from: str | None = None
    """Run directory or checkpoint whose policy weights the run starts from."""
    env: EnvConfig = field(default_factory=EnvConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    updates: UpdatesConfig = field(default_factory=UpdatesConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        """Check what concerns several components."""
        check_bounds(self)
        self._check_memory()
        self.schedule  # noqa: B018 - refuses what does not divide
        if self.cluster.backend != "none":
            self._check_cluster()
        elif self.ranks is not None:
            self._check_ranks(self.ranks)
        if self.ppo.precision is Precision.BF16 and self.device == "cpu":
            raise ValueError("ppo.precision: must be fp32 on the CPU, got bf16. Use fp32.")
        if self.device == "cpu":
            _check_all_equal("rollout", self.rollout, {"cuda_graph": False}, when="on the CPU")
        if self.checkpoint.best_metric is not None and self.validation.every_rollouts is None:
            raise ValueError(
                "checkpoint.best_metric: must come with a validation, got "
                "validation.every_rollouts=null. Set validation.every_rollouts."
            )

    @classmethod
    def completed(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return a stored configuration with the fields that it was made without at their default.

        One of a version with other fields stays as it is: a comparison will name them.
        """
        try:
            return to_plain(build(cls, stored))
        except ConfigError:
            return dict(stored)

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(self.run_dir or f"runs/{self.experiment}-seed{self.seed}")

    @property
    def schedule(self) -> UpdateSchedule:
        """The updates of one rollout."""
        return check_learning(
            self.ppo,
            self.updates,
            num_envs=self.rollout.num_envs,
            num_steps=self.rollout.num_steps,
        )

    def _check_memory(self) -> None:
        """Refuse what the memory cannot do."""
        can, memory = self.policy.memory_can, self.policy.memory
        rollout, updates = {}, {}
        if not can.half_precision:
            rollout["cache_dtype"] = "float32"
        if not can.cuda_graph:
            rollout["cuda_graph"] = False
        _check_all_equal("rollout", self.rollout, rollout, when=f"with policy.memory={memory}")
        if not can.keeps_steps:
            updates = {"prefix_window": 0, "loss_chunks": 1, "refresh_in_pass": False}
        when = f"where the memory ({memory}) does not keep and see every step of a trial"
        _check_all_equal("updates", self.updates, updates, when=when)
        constant = self.updates.prefix_gradient is PrefixGradient.DETACHED
        if self.policy.recall is not None and self.updates.shuffle and constant:
            # What was seen before a step of an older chunk is in the prefix, in another order.
            when = "with policy.recall, a shuffled context and prefix_gradient=detached"
            _check_all_equal("updates", self.updates, {"loss_chunks": 1}, when=when)

    def _check_ranks(self, ranks: int) -> None:
        """Refuse processes that cannot share the rows evenly."""
        rows, groups = self.rollout.num_envs, self.rollout.groups
        check_ranks(self.ppo, self.updates, num_envs=rows, ranks=ranks)
        check_divides("rollout.groups", groups, "rows of a rank", rows // ranks)

    def _check_cluster(self) -> None:
        """Refuse what the ranks of a cluster could not do with their part of the rows."""
        if self.ranks is not None:
            raise ValueError(
                f"ranks: must be null on Ray, whose ranks are cluster.num_learners, got "
                f"{self.ranks}. Set ranks=null."
            )
        if self.cluster.placement is Placement.SPLIT:
            when = "with cluster.placement=split, unlike colocated"
            only_local = {"refresh_every": 1, "refresh_in_pass": False}
            _check_all_equal("updates", self.updates, only_local, when=when)
            _check_all_equal("rollout", self.rollout, {"cuda_graph": False}, when=when)
        self.cluster.check_rows(self.rollout.num_envs, self.rollout.groups)
        check_ranks(
            self.ppo,
            self.updates,
            num_envs=self.rollout.num_envs,
            ranks=self.cluster.num_learners,
            name="cluster.num_learners",
        )

    @property
    def planned_steps(self) -> int:
        """Environment steps that the run does: `total_steps` up to the end of a rollout."""
        return -(-self.total_steps // self.steps_per_rollout) * self.steps_per_rollout

    @property
    def steps_per_rollout(self) -> int:
        """Environment steps of one rollout, over all rows."""
        return self.rollout.num_envs * self.rollout.num_steps


def _check_at_most(name: str, value: int, most_name: str, most: int) -> None:
    """Refuse a value that is larger than another field's."""
    if value > most:
        raise ValueError(
            f"{name}: must be at most {most_name}, got {value} for {most}. Use {most} or fewer."
        )


def _check_all_equal(
    section: str, part: object, values: Mapping[str, object], *, when: str
) -> None:
    """Refuse fields of a section that are not what a choice made elsewhere asks of them.

    Args:
        section: Path of the section.
        part: The section.
        values: What each field must be.
        when: The choice, to follow "must be ...".
    """
    for name, value in values.items():
        given = getattr(part, name)
        if given != value:
            wanted, got = (str(x).lower() for x in (value, given))
            path = f"{section}.{name}"
            raise ValueError(f"{path}: must be {wanted} {when}, got {got}. Set {path}={wanted}.")
