"""Training runs that benchmarks compare: each one process of its own, on one thread, to its end.

A run that was stopped goes on where it was when the benchmark is called again. Its time is CPU
time, so that other load on the machine does not count, and adds up over all its processes. What a
process used that was killed together with the benchmark is not known; steps that no process
accounts for are taken to cost what the others cost.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from relic.files import PROJECT, complete_lines, write_json
from relic.run.metrics import read_metrics
from relic.run.run_directory import CheckpointStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """One training run."""

    directory: Path
    """Its run directory. What is known about its processes lies beside it."""
    overrides: tuple[str, ...]
    """What `train.py` is told, but for directory and length."""

    @property
    def accounts(self) -> Path:
        """The file with one line for each process that trained this run."""
        return self.directory.with_name(f"{self.directory.name}.cpu.jsonl")

    @property
    def messages(self) -> Path:
        """The file of what its processes said."""
        return self.directory.with_name(f"{self.directory.name}.log")

    @property
    def reached(self) -> int:
        """Environment steps that its metrics have."""
        lines = read_metrics(self.directory / "metrics.jsonl")
        return int(lines[-1]["env_steps"]) if lines else 0

    @property
    def saved(self) -> int:
        """Environment steps of the newest checkpoint, where a next process begins."""
        checkpoints = self.directory / "checkpoints"
        latest = CheckpointStore(checkpoints).latest() if checkpoints.is_dir() else None
        return latest.env_steps if latest else 0


class Children:
    """Processes that are stopped with the benchmark: they save and leave, and no new one starts."""

    def __init__(self) -> None:
        """Take over the signals that end the benchmark."""
        self.stopping = False
        self._running: set[subprocess.Popen[bytes]] = set()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def run(
        self, command: Sequence[str], messages: Path, limit_s: float | None = None
    ) -> tuple[int, float] | None:
        """Run a Python program to its end, or end it when its seconds are used up.

        Args:
            command: The program and its arguments.
            messages: File that what it says is added to.
            limit_s: Most seconds; it is then asked to leave.

        Returns:
            Exit status (negative: the signal that killed it) and CPU seconds. None if the benchmark
            is being stopped, so that nothing ran.
        """
        if self.stopping:
            return None
        with messages.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=log,
                stderr=log,
                cwd=PROJECT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                process_group=0,
            )
        self._running.add(process)
        if self.stopping:  # The signal came between the question above and here.
            process.terminate()
        guard = threading.Timer(limit_s, process.terminate) if limit_s is not None else None
        if guard is not None:
            guard.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self._running.discard(process)
        if guard is not None:
            guard.cancel()
        return process.returncode, usage.ru_utime + usage.ru_stime

    def _stop(self, *_: object) -> None:
        self.stopping = True
        for process in tuple(self._running):
            process.terminate()


def train(case: Case, total_steps: int, limit_s: float | None, children: Children) -> bool:
    """Train a case to its end, or until its seconds, if any, are used up: it saves and leaves.

    Returns:
        Whether nothing went wrong.
    """
    if not claim(case.directory, [*case.overrides, f"total_steps={total_steps}"]):
        return False
    begin = case.saved
    if begin >= total_steps:
        return True
    keys = [f"run_dir={case.directory.absolute()}", f"total_steps={total_steps}", "ranks=1"]
    keys = [*case.overrides, *keys]
    ended = children.run([str(PROJECT / "train.py"), *keys], case.messages, limit_s)
    if ended is None:
        return True
    status, cpu_s = ended
    account = {"from": begin, "to": max(begin, case.reached), "cpu_s": cpu_s, "status": status}
    with case.accounts.open("a") as file:
        file.write(json.dumps(account) + "\n")
    if status and not children.stopping:
        print(f"{case.directory}: training failed with status {status}, see {case.messages}.")
    return status == 0 or children.stopping


def claim(path: Path, asked: Sequence[str]) -> bool:
    """Note beside a directory what it is asked for; say so if that was something else before.

    What a directory holds is taken over by the next call. It must be of the same request.

    Returns:
        Whether the directory may be used.
    """
    note = path.with_name(f"{path.name}.asked.json")
    # Directories may be moved.
    now = [key for key in asked if not key.partition("=")[2].startswith("/")]
    before = json.loads(note.read_text()) if note.exists() else None
    if before is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, now)
    elif before != now:
        changed = sorted({*before} ^ {*now})
        print(f"{path}: must be of the same request, got other {changed}. Use another directory.")
        return False
    return True


def cpu_seconds(case: Case) -> float:
    """Return the CPU seconds that the steps of a case took, validation included.

    Raises:
        FileNotFoundError: If no process of it has ended.
    """
    if not case.accounts.exists():
        raise FileNotFoundError(f"{case.accounts}: missing. Train the case with this benchmark.")
    accounts = list(complete_lines(case.accounts))
    total = sum(account["cpu_s"] for account in accounts)
    steps = sum(account["to"] - account["from"] for account in accounts)
    return total * case.reached / steps if steps else total


def each(cases: Sequence[T], jobs: int, work: Callable[[T], bool]) -> bool:
    """Do the work of each case, some at a time and in order; say whether all went well."""
    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(work, cases)))
