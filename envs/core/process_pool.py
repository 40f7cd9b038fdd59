"""A pool of worker processes, one per simulator, that are restarted when they fail.

A pool knows nothing of trials or episodes. It calls methods of simulators in parallel and says
which workers were lost on the way, by a crash, an error or a timeout. Shared observation arrays
live in a memory-mapped file without a name, so nothing is left behind however the parent ends.
What runs in the workers is `envs/core/process_worker.py`.

Shape suffix: N workers.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from envs.core import process_worker
from envs.core.validation import check_count, check_positive

WORKER_FILE: Final = Path(process_worker.__file__)
_LOG_BYTES: Final = 1 << 20
_TAIL_BYTES: Final = 2000
_PRINTED: Final = "\nIt had printed:\n"


class WorkerError(RuntimeError):
    """A simulator could not be started, or was lost too often."""

    foreseen = True


@dataclass(frozen=True, slots=True)
class Lost:
    """Stands for the answer of a worker that was lost before it gave one."""

    reason: str

    @property
    def brief(self) -> str:
        """The reason in a line: of a traceback, and of what was printed, the last line."""
        happened, _, printed = self.reason.partition(_PRINTED)
        first, *trace = happened.splitlines()
        last = (trace or printed.splitlines() or [""])[-1].strip()
        return f"{first.rstrip(':')}: {last}" if last else first


@dataclass(frozen=True, slots=True)
class Refused:
    """Stands for an observation that does not fit its space."""

    reason: str


@dataclass(frozen=True)
class SimulatorSpec:
    """What to start, and how long to wait for it."""

    file: Path
    python: str = sys.executable
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables added to the workers' environment."""
    timeout: float = 60.0
    """Seconds that one call may take."""
    start_timeout: float = 300.0
    """Seconds that a start may take."""


class Worker:
    """One process and the socket to it."""

    def __init__(self, spec: SimulatorSpec, memory: int) -> None:
        """Start the process; `make` has to follow."""
        self.control, theirs = socket.socketpair()
        # A worker ends itself when the parent's end of this pipe closes, however the parent died.
        lifeline, self._lifeline = os.pipe()
        # Appending, so that the worker writes from the start again after a truncation.
        self.log: IO[bytes] = tempfile.TemporaryFile("a+b")
        environment = dict(os.environ)
        if spec.python != sys.executable:  # these name files of another interpreter
            for name in ("PYTHONHOME", "PYTHONPATH"):
                environment.pop(name, None)
        descriptors = (theirs.fileno(), lifeline, memory)
        try:
            self.process = subprocess.Popen(
                [spec.python, str(WORKER_FILE), *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                env={**environment, **spec.environment},
                start_new_session=True,  # Ctrl-C is the parent's; one kill reaches grandchildren
            )
        except OSError as error:
            self.control.close()
            os.close(self._lifeline)
            raise WorkerError(
                f"ProcessVectorEnv: python must name an interpreter that starts, got "
                f"{spec.python!r}: {error}. Give its full path."
            ) from None
        finally:
            # The worker has copies. With these open, the parent would never see that it hung up.
            theirs.close()
            os.close(lifeline)
        self.waiting_for: int | None = None
        self._calls = 0

    def send(self, command: str, **arguments: Any) -> None:
        """Send a command. Its answer has to be read before the next is sent."""
        self._calls += 1
        self.waiting_for = self._calls
        message = {"id": self._calls, "command": command, "arguments": arguments}
        self.control.sendall(process_worker.encode(message))

    def receive(self) -> dict[str, Any] | None:
        """Read the answer; None if the process is gone."""
        answer = process_worker.receive(self.control)
        self.waiting_for = None
        return answer

    def tail(self) -> str:
        """Return the end of what the process has printed."""
        self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, self.log.tell() - _TAIL_BYTES))
        return self.log.read().decode(errors="replace").strip()

    def trim_log(self) -> None:
        """Empty the log when it has grown long: simulators can be talkative."""
        if os.fstat(self.log.fileno()).st_size > _LOG_BYTES:
            self.log.truncate(0)

    def exit_code(self) -> int | str:
        """Return how a process that hung up has ended."""
        try:
            # It has hung up, but may take a moment to end.
            return self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "unknown"

    def kill(self) -> None:
        """End the process and all that it started, and wait for it."""
        if self.control.fileno() != -1:
            self.control.close()
            os.close(self._lifeline)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.process.kill()
        # Or it would stay as a zombie.
        self.process.wait()
        self.log.close()


class WorkerPool:
    """N workers, called together."""

    def __init__(self, num_workers: int, spec: SimulatorSpec) -> None:
        """Start all workers and make their simulators.

        Raises:
            FileNotFoundError: There is no simulator file.
            ValueError: There is no worker to start, or no time to wait for it.
            WorkerError: A simulator could not be made; the message holds its traceback.
        """
        check_count("ProcessVectorEnv", "num_envs", num_workers, least=1)
        for name in ("timeout", "start_timeout"):
            check_positive("ProcessVectorEnv", name, getattr(spec, name))
        if not spec.file.is_file():
            raise FileNotFoundError(
                f"ProcessVectorEnv: simulator must be an existing Python file, got {spec.file}."
            )
        self.spec = spec
        self.num_workers = num_workers
        shared = Path("/dev/shm")
        self._memory = tempfile.TemporaryFile(dir=shared if os.access(shared, os.W_OK) else None)
        self._layout: process_worker.Layout = {}
        self.workers: dict[int, Worker] = {}
        self.restarts_N = np.zeros(num_workers, dtype=np.int64)
        # Runs also if nobody calls `close`. It holds the dict, as holding the pool would keep it.
        self._finalizer = weakref.finalize(self, _kill_all, self.workers)
        try:
            self.description = self._start(range(num_workers))[0]
        except BaseException:
            self.close()
            raise

    def share(self, shapes: Mapping[str, tuple[tuple[int, ...], Any]]) -> dict[str, NDArray[Any]]:
        """Create the shared arrays, one row a worker, and return them.

        Args:
            shapes: shape of one row and dtype, by name.
        """
        end = 0
        for name, (shape, dtype) in shapes.items():
            whole = [self.num_workers, *shape]
            self._layout[name] = (end, whole, np.dtype(dtype).str)
            size = int(np.prod(whole, dtype=np.int64)) * np.dtype(dtype).itemsize
            # In whole steps of 64 bytes, so that arrays of every dtype begin aligned.
            end += -(-size // 64) * 64
        # An empty file cannot be mapped.
        self._memory.truncate(max(end, 1))
        self._attach(range(self.num_workers))
        return process_worker.map_arrays(self._memory.fileno(), self._layout)

    def call(
        self, rows: Sequence[int], method: str, arguments: Sequence[Sequence[Any]], *, show: bool
    ) -> list[Any]:
        """Call a method of some simulators, all at the same time.

        Args:
            rows: whose.
            method: its name.
            arguments: of each.
            show: it returns (observation, ...), and the observation goes into the shared arrays.

        Returns:
            What each returned (without the observation), `Lost`, or `Refused` where the
            observation does not fit. Lost workers are dead until `restart`.
        """
        command = "show" if show else "call"
        messages = {
            row: {"method": method, "args": list(args)}
            for row, args in zip(rows, arguments, strict=True)
        }
        answers = self._exchange(command, messages, self.spec.timeout)
        return [answers[row] for row in rows]

    def restart(self, rows: Sequence[int]) -> None:
        """Start these workers again and make their simulators.

        Raises:
            WorkerError: A simulator could not be made.
        """
        for row in rows:
            if row in self.workers:
                self.workers.pop(row).kill()
        self.restarts_N[list(rows)] += 1
        self._start(rows)
        self._attach(rows)

    def close(self) -> None:
        """Let idle workers end by themselves, and kill what is left."""
        ending = []
        for worker in self.workers.values():
            if worker.waiting_for is None:
                try:
                    worker.send("close")
                except OSError:
                    continue  # it is gone already
                ending.append(worker.process)
        # All were asked first, so that they end at the same time and share one wait.
        patience = time.monotonic() + 2.0
        for process in ending:
            try:
                process.wait(max(0.0, patience - time.monotonic()))
            except subprocess.TimeoutExpired:
                break  # killed below
        self._finalizer()
        self._memory.close()

    def _start(self, rows: Sequence[int]) -> list[Any]:
        """Start processes and make their simulators; return the descriptions."""
        for row in rows:
            self.workers[row] = Worker(self.spec, self._memory.fileno())
        arguments = {"path": str(self.spec.file), "options": dict(self.spec.options)}
        answers = self._exchange("make", {row: arguments for row in rows}, self.spec.start_timeout)
        for row, answer in answers.items():
            if isinstance(answer, Lost):
                raise WorkerError(
                    f"ProcessVectorEnv: the simulator of {self.spec.file} must start under "
                    f"{self.spec.python}, but worker {row} {answer.reason}"
                )
        return [answers[row] for row in rows]

    def _attach(self, rows: Sequence[int]) -> None:
        """Hand the shared arrays to workers."""
        arguments = {row: {"layout": self._layout, "row": row} for row in rows}
        answers = self._exchange("attach", arguments, self.spec.timeout)
        for row, answer in answers.items():
            if isinstance(answer, Lost):
                raise WorkerError(f"ProcessVectorEnv: worker {row} {answer.reason}")

    def _exchange(
        self, command: str, arguments: Mapping[int, dict[str, Any]], timeout: float
    ) -> dict[int, Any]:
        """Send a command to workers and collect what they answer within the time."""
        answers: dict[int, Any] = {}
        # One for all, as the workers work at the same time.
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for row, kwargs in arguments.items():
                lost = self._send(row, command, kwargs, timeout)
                if lost is None:
                    selector.register(self.workers[row].control, selectors.EVENT_READ, row)
                else:
                    answers[row] = lost
            while len(answers) < len(arguments):
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                for key, _ in ready:
                    selector.unregister(key.fileobj)
                    answers[key.data] = self._receive(key.data, deadline)
                if not ready and time.monotonic() >= deadline:
                    for row in arguments.keys() - answers.keys():
                        answers[row] = self._lose(row, f"gave no answer within {timeout:g} s")
        return answers

    def _send(self, row: int, command: str, kwargs: dict[str, Any], timeout: float) -> Lost | None:
        """Send a command; None if that went well."""
        worker = self.workers.get(row)
        if worker is None:
            return Lost("was lost before")
        if worker.waiting_for is not None:
            # The answer of the call before is still to come, and would be taken for this one's.
            return self._lose(row, "was interrupted in a call")
        worker.trim_log()
        # A worker that does not read must not block a long message for ever.
        worker.control.settimeout(timeout)
        try:
            worker.send(command, **kwargs)
        except OSError:
            return self._lose(row, "died")
        return None

    def _receive(self, row: int, deadline: float) -> Any:
        """Read an answer that is there."""
        worker = self.workers[row]
        # Not 0, with which a socket does not wait at all, not even for the rest of an answer.
        worker.control.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            answer = worker.receive()
        except OSError:
            return self._lose(row, "stopped in the middle of an answer")
        if answer is None:
            return self._lose(row, "died")
        if "error" in answer:
            return self._lose(row, f"raised an error:\n{answer['error']}")
        return Refused(answer["refused"]) if "refused" in answer else answer["value"]

    def _lose(self, row: int, reason: str) -> Lost:
        """Kill a worker that is of no more use, and say why."""
        worker = self.workers.pop(row)
        # Before `kill`, which closes the log.
        printed = worker.tail()
        if reason == "died":
            reason = f"died with exit code {worker.exit_code()}"
        worker.kill()
        return Lost(reason + (_PRINTED + printed if printed else ""))


def _kill_all(workers: dict[int, Worker]) -> None:
    """Kill all workers and wait for them, so that none stays as a zombie."""
    while workers:
        workers.popitem()[1].kill()
