"""The process of a rank that `relic.run.ranks.supervisor` has started, from beginning to end."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from relic.stops import FAILED, stop_of


def main(job: dict[str, Any]) -> NoReturn:
    """Train as one rank, and end the process.

    Args:
        job: What the supervisor wrote: the configuration, and this rank's place among all.
    """
    # From a terminal it comes to all processes; the parent says what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    is_first = job["rank"] == 0
    logging.basicConfig(level=logging.INFO if is_first else logging.WARNING, format="%(message)s")
    if not is_first:
        warnings.simplefilter("ignore")  # the first says them for all
    try:
        _train(job)
        status, text = 0, ""
    except BaseException as error:
        status, text = _told(error, job)
    if status:
        report = {"time": time.time(), "status": status, "text": text}
        temporary = Path(f"{job['report']}.tmp")
        try:
            temporary.write_text(json.dumps(report))
            temporary.rename(job["report"])
        except OSError:  # a full disk may be what there is to be told
            print(text, file=sys.stderr)
    with suppress(OSError):  # nobody reads it any more
        sys.stdout.flush()
        sys.stderr.flush()
    # At once: a failed rank must not wait for a group that waits for it, and torch has crashed
    # interpreters that were torn down around its threads.
    os._exit(status)


def _train(job: dict[str, Any]) -> None:
    # Only now: their import takes seconds, in which the parent may end.
    from relic.run.config import RunConfig
    from relic.run.distributed import Meeting, join_ranks
    from relic.run.ranks.rank import train_as
    from relic.schema import build

    config = build(RunConfig, job["config"])
    meeting = Meeting(job["store"], job["rank"], job["world_size"])
    ranks = join_ranks(config.device, meeting)
    train_as(config, ranks)
    ranks.close()


def _told(error: BaseException, job: dict[str, Any]) -> tuple[int, str]:
    """Return the exit status, and what a user is to be told."""
    stop = stop_of(error)
    if stop is not None:
        return stop.status, stop.text
    failed = f"rank {job['rank']} of {job['world_size']} failed:"
    return FAILED, f"{failed}\n{traceback.format_exc()}"


def _leave_with_parent() -> None:
    """End this process when its parent has ended, however that came about."""
    while os.read(0, 1024):
        pass
    os._exit(1)
