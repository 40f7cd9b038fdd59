"""The progress display of a run, and the signals that stop it.

It is a bar on a terminal, and a line now and then elsewhere. Ctrl-C, SIGTERM and SIGUSR1 ask to
save and leave.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any

from tqdm import tqdm

from relic import measures
from relic.ppo.schedule import PrefixGradient
from relic.run.config import RunConfig
from relic.run.ranks.supervisor import ASKING, asked_to_stop
from relic.stops import in_main_thread

_log = logging.getLogger(__name__)
PARTS = ("simulate", "act", "learn", "refresh")
_LINE_EVERY_S = 30.0
_ESTIMATED_FROM_S = 5.0
"""Seconds that a speed is measured over before it is told."""


def verdict(times: Mapping[str, float], config: RunConfig) -> str:
    """Say in one line where the time goes and what would help most that is not so already."""
    total = sum(times.get(p, 0.0) for p in PARTS)
    if total <= 0:
        return "no time measured yet"
    shares = {p: times.get(p, 0.0) / total for p in PARTS}
    split = ", ".join(f"{p} {100 * s:.0f} %" for p, s in shares.items())
    slowest = max(shares, key=lambda p: shares[p])
    return f"{split}. Faster with {_advice(config)[slowest]}."


def _advice(config: RunConfig) -> dict[str, str]:
    """Return with what each part would be faster."""
    rollout, updates = config.rollout, config.updates
    partial = updates.per_rollout > updates.full_per_rollout
    simulate = ["more env threads"]
    if rollout.groups == 1 and rollout.num_envs > 1:
        simulate.append("rollout.groups=2")
    learn = [f"fewer ppo.update_epochs ({config.ppo.update_epochs} now)"]
    if config.ppo.update_epochs == 1:
        learn = ["a smaller policy"]
    if partial and updates.prefix_gradient is PrefixGradient.FULL:
        learn.append("updates.prefix_gradient=detached")
    return {
        "simulate": ", or ".join(simulate),
        "act": f"more rows (rollout.num_envs, {rollout.num_envs} now)",
        "learn": ", or ".join(learn),
        "refresh": f"fewer updates.per_rollout ({updates.per_rollout} now)",
    }


def plan_line(config: RunConfig, done: int) -> str:
    """Say what a start will run.

    Args:
        config: The run.
        done: Environment steps that it has done already.
    """
    each, planned = config.steps_per_rollout, config.planned_steps
    if done > planned:
        return (
            f"steps: {done:,}, more than total_steps={config.total_steps:,}; the rollout is ended"
        )
    left = -(-max(planned - done, 0) // each)
    rounded = ""
    if planned != config.total_steps:
        rounded = f" (total_steps={config.total_steps:,}, rounded up to whole rollouts)"
    before = f"{done:,} to " if done else ""
    rollouts = "rollout" if left == 1 else "rollouts"
    return f"steps: {before}{planned:,}, in {left:,} {rollouts} of {each:,}{rounded}"


def duration(seconds: float) -> str:
    """Return a time in words, to about a tenth."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * unit:
            count = seconds / unit
            return f"{count:.0f} {name}" if count >= 10 else f"{count:.1f} {name}"
    return f"{seconds:.0f} seconds"


def tell(text: str) -> None:
    """Print a line without breaking a bar."""
    tqdm.write(text, file=sys.stderr)


class Progress:
    """Shows a run's progress until it is closed."""

    def __init__(self, *, total: int, done: int, enabled: bool = True):
        """Start at `done` of `total` environment steps; show nothing unless enabled."""
        self._enabled = enabled
        self._terminal = sys.stderr.isatty()
        self._total = total
        self._last_line = time.monotonic()
        self._first: tuple[float, int] | None = None
        """When, and at how many steps, the first update was done: what starts take is over then."""
        self._estimated = False
        self._bar = tqdm(
            total=total, initial=done, unit=" steps", unit_scale=True, smoothing=0.1,
            disable=not (enabled and self._terminal), dynamic_ncols=True,
        )  # fmt: skip

    def update(self, metrics: Mapping[str, Any]) -> None:
        """Show the newest metrics."""
        if not self._enabled:
            return
        self._estimate(metrics["env_steps"])
        shown = {
            label: measures.number(metrics[key], label)
            for label, key in (("return", "return_mean"), ("success", "success_mean"))
            if key in metrics
        }
        if self._terminal:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(metrics["env_steps"] - self._bar.n)
            return
        if time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            scores = ", ".join(f"{k} {v}" for k, v in shown.items())
            steps = f"{metrics['env_steps']:,} of {self._total:,} steps"
            self.say(f"{steps}, {metrics['sps']:,.0f}/s, {scores}")

    def _estimate(self, steps: int) -> None:
        """Say once how long the rest will take about."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, steps
        took, did = now - self._first[0], steps - self._first[1]
        if self._estimated or took < _ESTIMATED_FROM_S or not did or steps >= self._total:
            return
        self._estimated = True
        left = (self._total - steps) * took / did
        self.say(f"about {duration(left)} to go, at {did / took:,.0f} steps/s")

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self._enabled:
            tell(text)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


class StopRequest:
    """While entered, remembers that a signal asked to stop; a second Ctrl-C stops at once."""

    def __init__(self, *, supervised: bool = False) -> None:
        """Start without a request.

        Args:
            supervised: A parent process listens to Ctrl-C, and tells the user what happens.
        """
        self._supervised = supervised
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has asked."""
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        """Take over the signals, where they come to this thread."""
        for number in ASKING if in_main_thread() else ():
            if self._supervised and number == signal.SIGINT:
                continue
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if not self._supervised:
            _log.warning(asked_to_stop(self.signal))
