"""The schedule of updates in a rollout: a table that is known before the first step.

Pure; it knows no environment, policy or clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class UpdateKind(Enum):
    """What an update's loss covers."""

    PARTIAL = "partial"
    """The newest chunk, or chunks; the forward pass still sees all before them."""
    FULL = "full"
    """Every step of the rollout so far."""


class PrefixGradient(Enum):
    """What a partial update does with the steps before those that carry its loss."""

    FULL = "full"
    """Recomputes them and lets the gradient through."""
    DETACHED = "detached"
    """Uses their keys and values as they stand in the acting cache, as constants."""
    NONE = "none"
    """Leaves them out, as if the trial began with the steps that carry the loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedUpdate:
    """One line of the table: the spans into which an update cuts the context of a row.

        0            begin         loss_from       chunk_from         at_step       num_steps
        |   prefix     |    window     |  older chunks  |  newest chunk  |  not yet    |
        |   constant,  |  recomputed   |  with loss     |  with loss     |  collected  |
        |   or left out|  without loss |                |                |             |
                       |<------------ the pass with gradient ----------->|

    Most updates have fewer spans. By default a partial update's pass is its newest chunk alone:
    begin = loss_from = chunk_from. A full update's loss covers everything: begin = loss_from = 0.
    """

    index: int
    """Number of the update within its rollout."""
    begin: int
    """Steps before it are a constant that the pass sees in the memory, or are left out."""
    loss_from: int
    """The loss counts steps `[loss_from, at_step)`."""
    chunk_from: int
    """Steps `[chunk_from, at_step)` were collected since the update before."""
    at_step: int
    """The update happens when this many steps are in the rollout."""
    kind: UpdateKind
    teaches: bool
    """Auxiliary heads have their lessons, on all steps of the rollout so far."""
    last: bool
    """The rollout ends with this update: no shuffle, no refresh, new trials."""


class UpdateSchedule:
    """The updates of one rollout, the same in every rollout."""

    def __init__(
        self,
        num_steps: int,
        *,
        per_rollout: int = 1,
        full_per_rollout: int = 1,
        loss_chunks: int = 1,
        prefix_gradient: PrefixGradient = PrefixGradient.DETACHED,
        prefix_window: int = 0,
    ) -> None:
        """Lay out the table.

        Args:
            num_steps: Steps per row and rollout.
            per_rollout: Updates per rollout, evenly spaced; 1 means no partial updates.
            full_per_rollout: How many of them are full, evenly spaced, the last one included. With
                0 even the last is partial (truncated backpropagation for recurrent policies).
            loss_chunks: Chunks that the loss of a partial update covers, the newest last.
            prefix_gradient: What a partial update does with the steps before its loss.
            prefix_window: How many of them it recomputes where the others are constant.

        Raises:
            ValueError: If one number does not divide the next.
        """
        check_divides("updates.per_rollout", per_rollout, "num_steps", num_steps)
        if full_per_rollout != 0:
            check_divides(
                "updates.full_per_rollout", full_per_rollout, "updates.per_rollout", per_rollout
            )
        self.num_steps = num_steps
        self.per_rollout = per_rollout
        self.full_per_rollout = full_per_rollout
        self.loss_chunks = loss_chunks
        self.prefix_gradient = prefix_gradient
        self.prefix_window = prefix_window
        self.table = tuple(self._plan())

    @property
    def chunk(self) -> int:
        """Steps between two updates."""
        return self.num_steps // self.per_rollout

    def _plan(self) -> Iterator[PlannedUpdate]:
        full_every = self.per_rollout // self.full_per_rollout if self.full_per_rollout else None
        for index in range(self.per_rollout):
            at_step = (index + 1) * self.chunk
            full = full_every is not None and (index + 1) % full_every == 0
            last = index + 1 == self.per_rollout
            # Early in a rollout there are fewer chunks than the loss might cover.
            covered = index + 1 if full else min(self.loss_chunks, index + 1)
            loss_from = at_step - covered * self.chunk
            # A pass that begins at 0 needs no prefix: gradient reaches the first step.
            whole = full or self.prefix_gradient is PrefixGradient.FULL
            yield PlannedUpdate(
                index=index,
                begin=0 if whole else max(0, loss_from - self.prefix_window),
                loss_from=loss_from,
                chunk_from=at_step - self.chunk,
                at_step=at_step,
                kind=UpdateKind.FULL if full else UpdateKind.PARTIAL,
                teaches=full or last,
                last=last,
            )

    def remaining(self, size: int) -> tuple[PlannedUpdate, ...]:
        """Return the updates still to come when `size` steps are collected and learned from."""
        return tuple(u for u in self.table if u.at_step > size)


_LOOKED_AT = 10_000


def check_divides(name: str, divisor: int, whole_name: str, whole: int) -> None:
    """Refuse a divisor that leaves a rest, and name the nearest ones that do not.

    Raises:
        ValueError: If `divisor` is not a positive divisor of `whole`.
    """
    if divisor >= 1 and whole % divisor == 0:
        return
    # Not all are looked at: of a number with twenty digits that would take for ever.
    middle = min(max(divisor, 1), whole)
    around = range(max(1, middle - _LOOKED_AT), min(whole, middle + _LOOKED_AT) + 1)
    fitting = {1, whole, *(d for d in around if whole % d == 0)}
    nearest = sorted(fitting, key=lambda d: abs(d - divisor))[:4]
    near = ", ".join(str(d) for d in sorted(nearest))
    raise ValueError(
        f"{name}: must divide {whole_name}, got {name.rpartition('.')[2]}={divisor}, "
        f"{whole_name.rpartition('.')[2]}={whole}. Use {near}."
    )
