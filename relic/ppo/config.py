"""Configuration of learning: PPO, and when it learns from which part of a rollout.

What depends on two sections at once is checked in `check_learning`.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

from relic.ppo.schedule import (
    PlannedUpdate,
    PrefixGradient,
    UpdateSchedule,
    check_divides,
)
from relic.schema import FINITE, FRACTION, POSITIVE, Bound, at_least, check_bounds

if TYPE_CHECKING:
    import torch

_SHARE = Bound("be in (0, 1]", lambda v: 0 < v <= 1, "Use 1 for all rows.")

_WARMUP_START = 1e-3
"""Share of the learning rate that a warm-up begins with."""


class OptimizerKind(Enum):
    """Which optimiser; both in their fused form."""

    ADAM = "adam"
    ADAMW = "adamw"


class Anneal(Enum):
    """How a coefficient moves over the environment steps of a run."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class Objective(Enum):
    """What is learned."""

    PPO = "ppo"
    """The reward."""
    CLONE = "clone"
    """The actions of the environment's expert (behaviour cloning); the critic learns returns."""
    LESSONS = "lessons"
    """The lessons of auxiliary heads alone (`policy.recall.relabelled`), in every update."""


class ExpertKind(Enum):
    """Which expert of the environment is cloned, by what it knows."""

    FULL = "full"
    """The expert that knows the whole task, also what no policy can know."""
    MEMORY = "memory"
    """The expert that knows only what was in its view in the trial, as a policy's context does."""


class Credit(Enum):
    """How far a reward is credited back."""

    EPISODE = "episode"
    """Nothing crosses an episode's end."""
    TRIAL = "trial"
    """The episodes of a trial are one stream; only the trial's own end is an end.

    The agent then maximises reward per step of the trial. Where an episode can be ended at will and
    progress is rewarded, an agent may learn to end episodes early, in order to be placed anew.
    """


class TimeLimit(Enum):
    """What the end of an episode by its time limit is worth."""

    TERMINAL = "terminal"
    """Nothing: right if the policy sees the clock and the horizon is fixed."""
    BOOTSTRAP = "bootstrap"
    """What the critic expects from the last observation, as if the episode went on."""


class FullOrder(Enum):
    """Order of the episodes in the context that a full update sees."""

    SHUFFLED = "shuffled"
    """As the context stands since the last shuffle."""
    TIME = "time"
    """As they happened: nearer to the contexts that the agent acted in. A step whose context has
    been shuffled since has a ratio other than one, whatever was learned."""


class Precision(Enum):
    """Number format of the matrix products; parameters and losses are always float32."""

    FP32 = "fp32"
    BF16 = "bf16"
    """Autocast, on CUDA only."""

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which learning and refreshes run their passes."""
        if self is Precision.BF16 and device.type == "cuda":
            import torch  # what describes a run is read without it

            # No gradient scaler: bfloat16 has the range of float32.
            return torch.autocast("cuda", torch.bfloat16)
        return contextlib.nullcontext()


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOConfig:
    """How an update changes the policy."""

    objective: Objective = Objective.PPO
    """What is learned."""
    clone_steps: Annotated[int, at_least(0)] = 0
    """Rollouts that begin before this many environment steps clone, whatever the objective: a
    start for what the reward alone would take long to find."""
    lesson_steps: Annotated[int, at_least(0)] = 0
    """Rollouts that begin before this many environment steps teach the lessons of auxiliary heads
    alone: a memory that can recall, before anything else is learned. While this is less than
    `clone_steps`, the expert acts as it does while cloning."""
    expert_share: Annotated[float, FRACTION] = 1.0
    """Share of episodes in which the expert acts while cloning; else the policy does."""
    expert: ExpertKind = ExpertKind.FULL
    """Which expert is cloned."""

    lr: Annotated[float, FINITE] = 2e-4
    """Learning rate after the warm-up."""
    lr_anneal: Anneal = Anneal.COSINE
    """How the learning rate changes after the warm-up."""
    lr_end: Annotated[float, FRACTION] = 0.0
    """Final learning rate, as a fraction of lr."""
    warmup_steps: Annotated[int, at_least(0)] = 100_000
    """Environment steps over which the learning rate rises linearly from a thousandth of lr."""
    optimizer: OptimizerKind = OptimizerKind.ADAM
    """Which optimiser."""
    adam_eps: Annotated[float, POSITIVE] = 1e-5
    """Added to the denominator of Adam's step."""
    weight_decay: Annotated[float, FINITE] = 0.0
    """Decoupled weight decay; needs adamw."""
    max_grad_norm: Annotated[float, POSITIVE] = 0.2
    """The norm of the gradient over all parameters is clipped to this."""

    update_epochs: Annotated[int, at_least(1)] = 4
    """Passes over the rows in each update."""
    num_minibatches: Annotated[int, at_least(1)] = 2
    """Optimiser steps per epoch; must divide num_envs. Rows are never cut."""
    microbatch_tokens: Annotated[int | None, at_least(1)] = None
    """Tokens that go through the policy at once; null takes a whole minibatch. Never fewer than
    one row. Gradients of a minibatch add up, so this changes memory and speed only."""

    gamma: Annotated[float, FRACTION] = 0.99
    """Discount per step."""
    gae_lambda: Annotated[float, FRACTION] = 0.95
    """Decay of the advantage trace."""
    credit: Credit = Credit.EPISODE
    """How far a reward is credited back."""
    time_limit: TimeLimit | None = None
    """Value of the state after a time limit; null takes what the environment recommends."""
    reward_scale: Annotated[float, POSITIVE] = 1.0
    """Rewards are multiplied by this before anything is learned from them."""
    normalize_advantage: bool = False
    """Bring each minibatch's advantages to mean 0 and deviation 1."""

    clip_coef: Annotated[float, POSITIVE] = 0.2
    """Half-width of the trusted interval of the ratio."""
    dual_clip: Annotated[float | None, at_least(1)] = None
    """Most times that a negative advantage counts, however much likelier its action has become;
    null: no limit. For updates whose contexts differ from those that the agent acted in."""
    clip_value: bool = True
    """Clip moves of the value by clip_coef too."""
    vf_coef: Annotated[float, FINITE] = 0.5
    """Weight of the value loss."""
    ent_coef: Annotated[float, FINITE] = 0.1
    """Weight of the entropy bonus."""
    ent_coef_end: Annotated[float | None, FINITE] = None
    """Its weight at the end; null keeps it. The move is linear."""
    target_kl: Annotated[float | None, POSITIVE] = None
    """An update ends before an optimiser step whose minibatch has an approx_kl above 1.5 times
    this; null: never."""
    precision: Precision = Precision.FP32
    """Number format of matrix products."""

    def __post_init__(self) -> None:
        """Refuse values that nothing can be learned with."""
        check_bounds(self)
        if self.weight_decay and self.optimizer is not OptimizerKind.ADAMW:
            raise ValueError(
                f"weight_decay: must be 0 with optimizer=adam, got {self.weight_decay}. "
                "Use optimizer=adamw."
            )

    @property
    def expert_steps(self) -> float:
        """Environment steps before which rollouts that begin learn from the expert."""
        return math.inf if self.objective is Objective.CLONE else self.clone_steps

    def learning_rate_at(self, env_steps: int, total_steps: int) -> float:
        """Return the learning rate after so many environment steps of a run of `total_steps`."""
        if env_steps < self.warmup_steps:
            share = env_steps / self.warmup_steps
            return self.lr * (_WARMUP_START + (1.0 - _WARMUP_START) * share)
        done = _share_done(env_steps - self.warmup_steps, total_steps - self.warmup_steps)
        return self.lr * _interpolate(self.lr_anneal, 1.0, self.lr_end, done)

    def entropy_coefficient_at(self, env_steps: int, total_steps: int) -> float:
        """Return the weight of the entropy bonus after so many environment steps of a run."""
        end = self.ent_coef if self.ent_coef_end is None else self.ent_coef_end
        done = _share_done(env_steps, total_steps)
        return _interpolate(Anneal.LINEAR, self.ent_coef, end, done)

    def objective_at(self, began: int) -> Objective:
        """Return what a rollout is for that began after so many environment steps."""
        if began < self.lesson_steps or self.objective is Objective.LESSONS:
            return Objective.LESSONS
        return Objective.CLONE if began < self.expert_steps else Objective.PPO


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdatesConfig:
    """When the policy learns from a rollout, and what happens to its context in between."""

    per_rollout: int = 16
    """Updates per rollout; must divide num_steps. 1 means no partial updates."""
    full_per_rollout: int = 1
    """How many of them cover the whole rollout; must divide per_rollout. 0: none."""
    row_fraction: Annotated[float, _SHARE] = 1.0
    """Share of the rows that a partial update uses, drawn anew each time."""
    prefix_gradient: PrefixGradient = PrefixGradient.DETACHED
    """What a partial update does with the steps before those that carry its loss."""
    prefix_window: Annotated[int, at_least(0)] = 0
    """With prefix_gradient=detached, so many steps before the loss are recomputed and let the
    gradient through; what comes before them stays constant. For memories that keep every step."""
    loss_chunks: Annotated[int, at_least(1)] = 1
    """Chunks that a partial update's loss covers: the newest one, and once more those before it in
    the context. More than 1: for memories that keep every step."""
    shuffle: bool = True
    """Permute completed episodes in the context after each partial update."""
    full_order: FullOrder = FullOrder.SHUFFLED
    """Order of the episodes that a full update sees."""
    refresh_memory: bool = True
    """Recompute the context's keys and values under the new weights."""
    refresh_every: Annotated[int, at_least(1)] = 1
    """Shuffle and refresh after every so many updates of a rollout only. In between the agent acts
    on keys and values of older weights, and so does the learner where prefix_gradient=detached
    has no window."""
    refresh_in_pass: bool = False
    """Where no refresh follows a partial update, put the keys and values of its last epoch's passes
    into the memory. They cost nothing, and were made under nearly the new weights. Rows that this
    epoch left out (row_fraction, target_kl) keep theirs. For memories that keep every step."""
    refresh_values: bool = True
    """Renew the stored state values in the same pass, and those of final observations if the next
    updates learn from steps before their chunk."""
    refresh_log_probs: bool = False
    """Renew the stored log-probs in the same pass: older chunks are then compared with the newest
    policy."""
    refresh_tokens: Annotated[int | None, at_least(1)] = 65_536
    """Tokens that are recomputed at once; null takes all rows. Never fewer than one row."""

    def __post_init__(self) -> None:
        """Refuse combinations whose context would be wrong."""
        check_bounds(self)
        if self.prefix_window and self.prefix_gradient is not PrefixGradient.DETACHED:
            raise ValueError(
                f"prefix_window: must be 0 with prefix_gradient={self.prefix_gradient.value}, got "
                f"{self.prefix_window}. Set prefix_window=0, or use prefix_gradient=detached."
            )
        if self.refresh_in_pass:
            self._check_in_pass()
        # Elsewhere, a full update's order would not be that of the memory that follows it.
        if (
            self.full_order is FullOrder.TIME
            and self.full_per_rollout > 1
            and self.refresh_every > 1
        ):
            raise ValueError(
                "full_order: must be shuffled where full updates within a rollout are not all "
                f"followed by a refresh, got time with full_per_rollout={self.full_per_rollout}, "
                f"refresh_every={self.refresh_every}. Use one of them with 1."
            )
        if self.refresh_memory:
            return
        for name in ("shuffle", "refresh_values", "refresh_log_probs"):
            if getattr(self, name):
                raise ValueError(
                    f"{name}: must be off without refresh_memory, got true. "
                    f"Set refresh_memory=true or {name}=false."
                )

    def _check_in_pass(self) -> None:
        """Refuse what would always be overwritten, or made without the steps before."""
        if self.refresh_memory and self.refresh_every == 1:
            raise ValueError(
                "refresh_in_pass: must be off where every update is followed by a refresh, got "
                "true. Set refresh_every to more than 1, or refresh_memory=false."
            )
        if self.prefix_gradient is PrefixGradient.NONE:
            raise ValueError(
                "refresh_in_pass: must be off with prefix_gradient=none, whose pass does not see "
                "the context, got true. Use prefix_gradient=detached."
            )

    def keeps_pass(self, planned: PlannedUpdate) -> bool:
        """Say whether an update leaves the keys and values of its last pass in the memory."""
        return self.refresh_in_pass and not (planned.last or self.renews_after(planned.index))

    @property
    def passes_the_chunk_alone(self) -> bool:
        """Whether a partial update's pass begins with its chunk."""
        is_full = self.prefix_gradient is PrefixGradient.FULL
        return not (is_full or self.prefix_window or self.loss_chunks > 1)

    def renews_after(self, index: int) -> bool:
        """Say whether the context is renewed after an update of a rollout, by its number in it."""
        return self.refresh_memory and (index + 1) % self.refresh_every == 0


def check_learning(
    ppo: PPOConfig, updates: UpdatesConfig, *, num_envs: int, num_steps: int
) -> UpdateSchedule:
    """Check what the sections ask of each other and of the rollout.

    Args:
        ppo: How an update changes the policy.
        updates: When updates happen.
        num_envs: Rows of all ranks.
        num_steps: Steps per row and rollout.

    Returns:
        The schedule of updates.

    Raises:
        ValueError: If rows or steps do not divide.
    """
    schedule = UpdateSchedule(
        num_steps,
        per_rollout=updates.per_rollout,
        full_per_rollout=updates.full_per_rollout,
        loss_chunks=updates.loss_chunks,
        prefix_gradient=updates.prefix_gradient,
        prefix_window=updates.prefix_window,
    )
    steps = ppo.update_epochs * ppo.num_minibatches
    if updates.refresh_in_pass and updates.passes_the_chunk_alone and steps == 1:
        raise ValueError(
            "updates.refresh_in_pass: must be off where an update is a single optimiser step on "
            "the chunk alone, whose pass has the weights that acted, got true. Use more of "
            "ppo.update_epochs or ppo.num_minibatches, or set updates.refresh_in_pass=false."
        )
    check_divides("ppo.num_minibatches", ppo.num_minibatches, "num_envs", num_envs)
    used = updates.row_fraction * num_envs
    if abs(used - round(used)) > 1e-6 or round(used) % ppo.num_minibatches:
        raise ValueError(
            f"updates.row_fraction: must leave a multiple of ppo.num_minibatches of num_envs, got "
            f"{updates.row_fraction} * {num_envs} = {used:g} rows for {ppo.num_minibatches} "
            f"minibatches. Use a multiple of {ppo.num_minibatches / num_envs:g}."
        )
    return schedule


def num_strata(rows: int, used: int, num_minibatches: int) -> int:
    """Return into how many strata rows are cut for minibatches; as many ranks can share them.

    Args:
        rows: Of all ranks.
        used: Those that an update learns from.
        num_minibatches: Of an epoch; divides the rows that are used.
    """
    return math.gcd(rows, used // num_minibatches)


def most_ranks(ppo: PPOConfig, updates: UpdatesConfig, *, num_envs: int) -> int:
    """Return among how many processes all updates' minibatches can be shared out.

    So can they among as many as divide that number.
    """
    used = round(updates.row_fraction * num_envs)
    return math.gcd(*(num_strata(num_envs, n, ppo.num_minibatches) for n in (num_envs, used)))


def check_ranks(
    ppo: PPOConfig, updates: UpdatesConfig, *, num_envs: int, ranks: int, name: str = "ranks"
) -> None:
    """Refuse a number of processes that cannot have equal parts of every minibatch.

    Args:
        ppo: How an update changes the policy.
        updates: When updates happen.
        num_envs: Rows of all ranks.
        ranks: Processes that share them.
        name: Key that says how many.

    Raises:
        ValueError: Names numbers that can.
    """
    check_divides(name, ranks, "rows of a minibatch", most_ranks(ppo, updates, num_envs=num_envs))


def _interpolate(kind: Anneal, start: float, end: float, done: float) -> float:
    """Go from `start` to `end` as `done` goes from 0 to 1."""
    if kind is Anneal.CONSTANT:
        return start
    if kind is Anneal.LINEAR:
        return start + (end - start) * done
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * done))


def _share_done(steps: int, total_steps: int) -> float:
    return 1.0 if total_steps <= 0 else min(max(steps / total_steps, 0.0), 1.0)
