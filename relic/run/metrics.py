"""Metrics of a run that cannot hurt it: `metrics.jsonl` always, other loggers as mirrors.

One JSON object per update. Keys that depend on the clock or the machine start with `time/`, except
`wall_s` and `sps`; so two equal runs have equal files but for those. An undefined value is absent.
Means over the episodes that ended in training are of all ranks together.

Shapes: M measures, I indices of an episode in its trial.
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from relic.extras import install_command
from relic.files import (
    Mark,
    changed_since_mark,
    mark_file,
    measured_lines,
    parse_json,
    write_text,
)
from relic.run.distributed import Ranks
from relic.schema import in_lines
from relic.upgrade import upgrade_metrics

_log = logging.getLogger(__name__)
CLOCK_KEYS = ("wall_s", "sps")
"""Keys without the prefix `time/` that differ between two equal runs."""
_CLOSING_S = 30.0
MEASURES = ("return", "length", "success", "spl")
CURVES = ("return", "success")
"""Measures that are also averaged by the episode's index in its trial."""


def summarise_episodes(
    episodes: Mapping[str, np.ndarray], ranks: Ranks
) -> tuple[int, dict[str, Any]]:
    """Average records of episodes; all ranks must call it together.

    Args:
        episodes: Records of this rank, one entry each by name; empty if none ended.
        ranks: Those that train together.

    Returns:
        How many episodes ended, and metrics: means, and means by index with None where no episode
        ended. A measure that no record has is absent.
    """
    index = np.asarray(episodes.get("episode", ()), np.int64)
    # Ranks must sum arrays of one shape.
    longest = torch.tensor([index.max(initial=-1) + 1], device=ranks.device)
    length = int(ranks.reduction.max(longest).item())
    sum_2MI = np.zeros((2, len(MEASURES), length))
    for i, name in enumerate(MEASURES):
        if name in episodes:
            value = np.asarray(episodes[name], float)
            known = np.isfinite(value)  # a simulator that crashed may have said nothing
            sum_2MI[0, i] = np.bincount(index[known], value[known], length)
            sum_2MI[1, i] = np.bincount(index[known], minlength=length)
    sum_MI, count_MI = ranks.reduction.sum(torch.from_numpy(sum_2MI).to(ranks.device)).cpu()
    metrics: dict[str, Any] = {}
    for name, sum_I, count_I in zip(MEASURES, sum_MI, count_MI, strict=True):
        if not count_I.any():
            continue
        metrics[f"{name}_mean"] = float(sum_I.sum() / count_I.sum())
        if name in CURVES:
            pairs = zip(sum_I.tolist(), count_I.tolist(), strict=True)
            metrics[f"{name}_by_episode"] = [s / c if c else None for s, c in pairs]
    return int(ranks.total(len(index))), metrics


class Mirror(Protocol):
    """A second place for metrics. It may fail; the run goes on without it."""

    def write(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """Log scalars at a number of environment steps."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


def is_clock(key: str) -> bool:
    """Say whether a metric depends on the clock or the machine."""
    return key.startswith("time/") or key in CLOCK_KEYS


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a `metrics.jsonl`; a line that a kill cut short at the end is left out.

    A warning says so if others have been lost or changed.

    Raises:
        StateError: If a line is damaged.
    """
    if said := changed_since_mark(path):
        _log.warning(said)
    return [upgrade_metrics(line) for line in measured_lines(path)] if path.exists() else []


def cut_metrics(path: Path, env_steps: int) -> None:
    """Drop lines beyond a checkpoint, which the resumed run will write again, and damaged ones.

    Args:
        path: A `metrics.jsonl`, which may not be there.
        env_steps: Of the checkpoint.
    """
    if said := changed_since_mark(path):
        _log.warning("%s The run goes on; its weights do not depend on it.", said)
    if not path.exists():
        return
    kept = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            steps = _env_steps(line)
            if steps is None and line.endswith(b"\n"):
                _log.warning("%s: line %d is damaged and left out.", path, number)
            elif steps is not None and steps <= env_steps:
                kept.append(line.decode())
    # What is noted is of the longer file. Without it a kill in between raises no false alarm; and
    # it leaves the longer file, or the whole shorter one, which the next start cuts again.
    mark_file(path).unlink(missing_ok=True)
    write_text(path, "".join(kept))
    Mark(path).write()


class MetricsLog:
    """Appends to `metrics.jsonl` and hands each line to the mirrors in the background."""

    def __init__(
        self,
        path: Path,
        mirrors: Mapping[str, Callable[[], Mirror]] | None = None,
        *,
        patience_s: float = 60.0,
    ):
        """Open the log for appending.

        Args:
            path: The file, usually `<run_dir>/metrics.jsonl`.
            mirrors: What opens further loggers, by name. Each is called in a thread of its own.
            patience_s: How long that may take before the run goes on without it.
        """
        self.path = path
        self._mark = Mark(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        named = (mirrors or {}).items()
        self._mirrors = [_Background(name, opened, patience_s) for name, opened in named]

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Append one object. It must hold `env_steps`; non-finite numbers are left out."""
        plain = {k: _plain(v) for k, v in metrics.items()}
        line = {k: v for k, v in plain.items() if _is_defined(v)}
        # Closed after every line, so that a killed run has lost none.
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        for mirror in self._mirrors:
            mirror.send(int(line["env_steps"]), line)

    def secure(self) -> None:
        """Bring the lines to the disk, and note what they are; before a checkpoint counts on them.

        What is missing when the run goes on from there, or has changed, is then said.
        """
        self._mark.write()

    def close(self) -> None:
        """Give the mirrors a few seconds, all together, to finish."""
        for mirror in self._mirrors:
            mirror.end()
        # Not for ever: the run is over, and its own file is complete.
        deadline = time.monotonic() + _CLOSING_S
        for mirror in self._mirrors:
            mirror.wait(deadline)


class TensorBoardMirror:
    """Writes TensorBoard event files."""

    def __init__(self, directory: Path, *, purge_step: int | None = None):
        """Open the writer; events after `purge_step` of an earlier attempt are hidden.

        Raises:
            ImportError: If tensorboard is not installed, with the command that installs it.
        """
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise ImportError(
                "logging.tensorboard: needs the package tensorboard. "
                f"Install it with: {install_command('logging')}"
            ) from None
        self._writer = SummaryWriter(str(directory), purge_step=purge_step)

    def write(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """Log scalars."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, env_steps)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WandbMirror:
    """Logs to Weights & Biases; `mode` may be online, offline or disabled."""

    def __init__(self, *, run_id: str, project: str, mode: str, directory: Path, config: dict):
        """Start or resume the run `run_id`.

        Raises:
            ImportError: If wandb is not installed, with the command that installs it.
        """
        # wandb takes an empty WANDB_MODE, say, for a mode of that name.
        for name in [n for n, value in os.environ.items() if n.startswith("WANDB_") and not value]:
            del os.environ[name]
        try:
            import wandb
        except ImportError:
            raise ImportError(
                "logging.wandb: needs the package wandb. "
                f"Install it with: {install_command('logging')}"
            ) from None
        impatient = wandb.Settings(login_timeout=1)  # or it would ask for a key on a terminal
        self._run = wandb.init(
            id=run_id, project=project, mode=mode, dir=str(directory), config=config,  # type: ignore[arg-type]
            resume="allow", settings=impatient,
        )  # fmt: skip
        self._run.define_metric("*", step_metric="env_steps")

    def write(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """Log scalars against environment steps."""
        self._run.log({**metrics, "env_steps": env_steps})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def new_wandb_id() -> str:
    """Return a fresh id; the checkpoint keeps it, so that a resumed run draws one curve."""
    return uuid.uuid4().hex[:12]


class _Background:
    """Opens one mirror and feeds it from a bounded queue, so that nothing in it stops the run."""

    def __init__(
        self, name: str, opened: Callable[[], Mirror], patience_s: float, *, capacity: int = 1000
    ):
        self._name = name
        self._open = opened
        self._patience_s = patience_s
        self._began = time.monotonic()
        self._is_open = threading.Event()
        self._queue: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue(capacity)
        self._failed = False
        self._failing = threading.Lock()
        # A daemon: a mirror that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"mirror-{name}", daemon=True)
        self._thread.start()

    def send(self, env_steps: int, metrics: Mapping[str, Any]) -> None:
        """Hand over the numbers among some metrics."""
        numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
        waited = time.monotonic() - self._began
        if not self._failed and not self._is_open.is_set() and waited > self._patience_s:
            self._fail(f"it did not open within {self._patience_s:g} s")
        self._put((env_steps, numbers))

    def end(self) -> None:
        """Say that nothing follows."""
        self._put(None)

    def wait(self, deadline: float) -> None:
        """Wait for what was handed over, until a time of the monotonic clock."""
        if self._failed:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._fail("it did not take the last lines in time")

    def _put(self, item: tuple[int, dict[str, float]] | None) -> None:
        if self._failed:
            return
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._fail("its queue is full")

    def _work(self) -> None:
        try:
            mirror = self._open()
            self._is_open.set()
            while not self._failed and (item := self._queue.get()) is not None:
                mirror.write(*item)
            mirror.close()
        # It may fail in any way, and libraries raise SystemExit, too; the run must not.
        except BaseException as error:
            self._fail(in_lines(error, 1) or repr(error))

    def _fail(self, reason: str) -> None:
        with self._failing:  # of the two threads one speaks
            if not self._failed:
                _log.warning(
                    "%s is switched off for this run: %s. metrics.jsonl goes on.",
                    self._name, reason.rstrip("."),
                )  # fmt: skip
            self._failed = True


def _env_steps(line: bytes) -> int | None:
    """Return the steps of a line; None if it is cut or damaged."""
    try:
        steps = parse_json(line)["env_steps"] if line.endswith(b"\n") else None
    except (ValueError, TypeError, LookupError):
        return None
    return steps if isinstance(steps, int) else None


def _is_defined(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
