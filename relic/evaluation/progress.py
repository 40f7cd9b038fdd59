"""How far an evaluation is, and how long it will still take."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from relic.evaluation.evaluator import Record
from relic.evaluation.protocol import Protocol
from relic.evaluation.store import Job
from relic.evaluation.workers import OnEpisode

_LINE_EVERY_S = 30.0


@contextmanager
def progress(
    protocol: Protocol, left: Sequence[Job], num_jobs: int, *, enabled: bool
) -> Iterator[OnEpisode]:
    """Show a bar with the time left on a terminal, and a line now and then elsewhere.

    Episodes are counted, or steps where the protocol limits those.

    Args:
        protocol: That is evaluated.
        left: Blocks to do.
        num_jobs: Blocks altogether.
        enabled: Off: show nothing.
    """
    terminal = sys.stderr.isatty()
    blocks = list(protocol.blocks())
    each, unit = protocol.episodes or protocol.steps or 0, "steps" if protocol.steps else "episodes"
    total = sum(blocks[job.block].num_real * each for job in left)
    if enabled and len(left) < num_jobs:
        print(f"{num_jobs - len(left)} of {num_jobs} blocks are done already", file=sys.stderr)
    bar = tqdm(total=total, unit=f" {unit}", disable=not (enabled and terminal))
    began = last = time.monotonic()
    done = 0

    def on_episode(record: Record) -> None:
        nonlocal last, done
        amount = record["length"] if protocol.steps else 1
        done += amount
        bar.update(amount)
        now = time.monotonic()
        if enabled and not terminal and now - last >= _LINE_EVERY_S:
            last = now
            seconds = (now - began) / done * (total - done)
            print(f"{done:,} of {total:,} {unit}, {_clock(seconds)} left", file=sys.stderr)

    with bar:
        yield on_episode


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
