"""Starts the ranks of a run as processes, and ends them together.

The parent computes nothing. It hands on signals that ask to stop, and when one rank fails it ends
the others and shows what the one said. Each rank holds the reading end of a pipe from the parent:
when the parent is gone, however it ended, the pipe ends and the rank leaves.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from relic.cores import cores
from relic.run.config import RunConfig
from relic.schema import to_plain
from relic.stops import in_main_thread, without_interrupts

_log = logging.getLogger(__name__)
ASKING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that ask to save and leave."""
_START: Final = (
    "import json, sys; job = json.loads(sys.stdin.readline()); sys.path[:] = job['path']; "
    "from relic.run.ranks.process import main; main(job)"
)
"""What a rank's interpreter runs: the modules are to be found where the parent finds them."""
_LOOK_EVERY_S: Final = 0.05
_GRACE_S: Final = 3.0
"""How long ranks may take to say why they failed, once one has ended."""


class RunFailedError(RuntimeError):
    """A run that has not ended well; the text is all that there is to be told."""

    foreseen = True

    def __init__(self, text: str, status: int = 1) -> None:
        """Keep the exit status with the text."""
        super().__init__(text.rstrip())
        self.status = status


@dataclass(slots=True)
class Rank:
    """One process of the run."""

    number: int
    process: subprocess.Popen[bytes]
    report: Path
    """Where it says why it failed."""


class Supervisor:
    """The parent of the ranks of one run."""

    def __init__(self, config: RunConfig, count: int) -> None:
        """Say what is to be run; nothing is started yet.

        Args:
            config: The run.
            count: Its ranks.
        """
        self._config, self._count = config, count
        self._ranks: list[Rank] = []
        self._asked: signal.Signals | None = None

    def run(self) -> int:
        """Start the ranks, wait for them, and return the exit status of the run.

        Raises:
            RunFailedError: If one has failed.
            KeyboardInterrupt: After a second Ctrl-C.
        """
        with tempfile.TemporaryDirectory(prefix="relic-ranks-") as name, self._signals():
            try:
                for number in range(self._count):
                    self._ranks.append(self._start(number, Path(name)))
                return self._wait()
            finally:
                self._kill()

    def _start(self, number: int, directory: Path) -> Rank:
        threads = self._config.threads or max(cores() // self._count, 1)
        report = directory / f"rank{number}.json"
        job = {
            "path": sys.path,
            "config": to_plain(self._config),
            "rank": number,
            "world_size": self._count,
            "store": str(directory / "store"),
            "report": str(report),
        }
        # Or each rank would take all cores; torch reads it as it is loaded.
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        with without_interrupts():
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START], stdin=subprocess.PIPE, env=environment
            )
        assert process.stdin is not None
        # The pipe stays open: its end tells the rank that nobody waits for it any more.
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        return Rank(number, process, report)

    def _wait(self) -> int:
        """Wait until all have ended well or one has failed."""
        while True:
            states = [rank.process.poll() for rank in self._ranks]
            if any(states):
                return self._fail()
            if all(state == 0 for state in states):
                return 0
            time.sleep(_LOOK_EVERY_S)

    def _fail(self) -> int:
        """End all ranks and raise what went wrong; return the status where that was asked for."""
        end = time.monotonic() + _GRACE_S
        # The others fail soon, too, as they miss the first; whoever failed by itself said so first.
        while time.monotonic() < end and any(r.process.poll() is None for r in self._ranks):
            time.sleep(_LOOK_EVERY_S)
        ended = [rank for rank in self._ranks if rank.process.poll() is not None]
        self._kill()
        by_signal = [rank for rank in ended if rank.process.returncode < 0]
        if self._asked and any(r.process.returncode == -signal.SIGTERM for r in by_signal):
            return 128 + self._asked  # it came before there was anything to save
        if by_signal:
            name = signal.Signals(-by_signal[0].process.returncode).name
            raise RunFailedError(
                f"rank {by_signal[0].number} of {self._count} was ended by {name}, so the run has "
                "stopped. Start it again to go on from its last checkpoint; with less in memory if "
                "the system ended it for that."
            )
        reports = [json.loads(rank.report.read_text()) for rank in ended if rank.report.exists()]
        if not reports:
            raise RunFailedError("a rank ended without a word. Start the run again to go on.")
        first = min(reports, key=lambda report: report["time"])
        raise RunFailedError(first["text"], int(first["status"]))

    def _kill(self) -> None:
        for rank in self._ranks:
            if rank.process.poll() is None:
                rank.process.kill()
        for rank in self._ranks:
            rank.process.wait()
            if rank.process.stdin is not None:
                rank.process.stdin.close()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Hand on, while entered, what asks to stop."""
        numbers = ASKING if in_main_thread() else ()
        before = {number: signal.signal(number, self._hand_on) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = signal.Signals(number)
        for rank in self._ranks:
            if rank.process.poll() is None:
                # A terminal sends Ctrl-C to them as well, so they do not listen to that one.
                rank.process.send_signal(signal.SIGTERM)
        _log.warning(asked_to_stop(self._asked))


def asked_to_stop(asked: signal.Signals) -> str:
    """Say that a signal was heard."""
    return (
        f"{asked.name}: saving at the next update, then leaving. "
        "Press Ctrl-C again to stop at once."
    )
