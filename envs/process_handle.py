"""One worker process: what to start, the socket to it, what it has printed, and its end.

Whom to call and when to give up is `envs.process_pool`'s to say.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from envs import process_worker

WORKER_FILE: Final = Path(process_worker.__file__)
_LOG_BYTES: Final = 1 << 20
_TAIL_BYTES: Final = 2000


class WorkerError(RuntimeError):
    """A simulator could not be started, or was lost too often."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Stands for the answer of a worker that was lost before it gave one."""

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
        lifeline, self._lifeline = os.pipe()
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
        self.process.wait()
        self.log.close()
