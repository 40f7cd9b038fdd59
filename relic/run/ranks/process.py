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
from pathlib import Path
from typing import Any, NoReturn


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
        status, text = _train(job)
    except BaseException:
        failed = f"rank {job['rank']} of {job['world_size']} failed:"
        status, text = 1, f"{failed}\n{traceback.format_exc()}"
    if status:
        report = {"time": time.time(), "status": status, "text": text}
        temporary = Path(f"{job['report']}.tmp")
        temporary.write_text(json.dumps(report))
        temporary.rename(job["report"])
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: a failed rank must not wait for a group that waits for it, and torch has crashed
    # interpreters that were torn down around its threads.
    os._exit(status)


def _train(job: dict[str, Any]) -> tuple[int, str]:
    """Train, and return the exit status with what a user is to be told of a refusal."""
    # Only now: their import takes seconds, in which the parent may end.
    from relic.files import REFUSALS
    from relic.run.config import RunConfig
    from relic.run.distributed import Meeting, join_ranks
    from relic.run.ranks.rank import train_as
    from relic.schema import build, in_lines

    try:
        config = build(RunConfig, job["config"])
        meeting = Meeting(job["store"], job["rank"], job["world_size"])
        ranks = join_ranks(config.device, meeting)
        train_as(config, ranks)
        ranks.close()
    except REFUSALS as error:
        return 2, in_lines(error, 3)
    return 0, ""


def _leave_with_parent() -> None:
    """End this process when its parent has ended, however that came about."""
    while os.read(0, 1024):
        pass
    os._exit(1)
