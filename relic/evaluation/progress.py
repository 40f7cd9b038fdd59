"""How far an evaluation is, and how long it will still take."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from relic.evaluation.protocol import Protocol
from relic.evaluation.store import Job
from relic.evaluation.workers import OnEpisode

_LINE_EVERY_S = 30.0


@contextmanager
def progress(
    protocol: Protocol, left: Sequence[Job], num_jobs: int, *, enabled: bool
) -> Iterator[OnEpisode]:
    """Show a bar with the time left on a terminal, and a line now and then elsewhere."""
    terminal = sys.stderr.isatty()
    blocks = list(protocol.blocks())
    each = protocol.episodes
    total = None if each is None else sum(blocks[job.block].num_real * each for job in left)
    if enabled and len(left) < num_jobs:
        print(f"{num_jobs - len(left)} of {num_jobs} blocks are done already", file=sys.stderr)
    bar = tqdm(total=total, unit=" episodes", disable=not (enabled and terminal))
    began = last = time.monotonic()
    done = 0

    def on_episode() -> None:
        nonlocal last, done
        done += 1
        bar.update()
        now = time.monotonic()
        if enabled and not terminal and now - last >= _LINE_EVERY_S:
            last = now
            if total is None:
                print(f"{done:,} episodes", file=sys.stderr)
                return
            remaining = (now - began) / done * (total - done)
            print(f"{done:,} of {total:,} episodes, {remaining:.0f} s left", file=sys.stderr)

    with bar:
        yield on_episode
