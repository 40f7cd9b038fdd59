"""The result of a check, and how checks run code in other processes.

What may be broken is asked in a process of its own, so that it cannot break the doctor.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from relic.extras import install_command, module, pip
from relic.files import PROJECT


class State(Enum):
    """How a part is."""

    OK = "ok"
    LIMITED = "limited"
    """It works, but not for everything."""
    ABSENT = "absent"
    """It is not there."""
    BROKEN = "broken"
    """It is there, or should be, and does not work."""
    UNKNOWN = "unknown"
    """It did not answer in time, which tells neither."""


@dataclass(frozen=True)
class Finding:
    """What was found of one part."""

    part: str
    state: State
    found: str
    repair: str | None = None
    """The command that repairs it, or turns it on."""

    @property
    def works(self) -> bool:
        """Whether the part can be used at all."""
        return self.state in (State.OK, State.LIMITED)


@dataclass(frozen=True)
class World:
    """Where the checks look."""

    python: str = sys.executable
    """Interpreter of the trainer."""
    habitat_python: str | None = None
    """Interpreter of the simulator."""
    run_dir: Path = Path("runs")
    data: Path = Path()
    """Folder that holds `data`, with the scenes."""
    shared: Path = Path("/dev/shm")
    source: Path = PROJECT
    environment: dict[str, str] = field(default_factory=dict)
    """Variables as the trainer would see them."""

    def module(self, name: str, *arguments: str) -> str:
        """Return the command that runs a module as the trainer would."""
        return module(name, *arguments, python=self.python)

    def pip(self, *arguments: str) -> str:
        """Return the command that installs something for the trainer."""
        return pip(*arguments, python=self.python)

    def pip_project(self, extra: str = "") -> str:
        """Return the command that installs the project with one of its extras."""
        return install_command(extra, python=self.python, source=self.source)


class NoAnswer(Exception):
    """A process did not answer; the text says why, in a line."""

    def finding(self, part: str, repair: str, *, found: str = "{}") -> Finding:
        """Return what is to be said of the part that was asked.

        Args:
            part: Its name.
            repair: What mends it, if it is broken.
            found: A text around the reason, which stands for the braces.
        """
        return Finding(part, State.BROKEN, found.format(self), repair)


class TooSlow(NoAnswer):
    """A process gave no answer in time; the machine may be busy, so this tells of no fault."""

    def finding(self, part: str, repair: str, *, found: str = "{}") -> Finding:
        """Return that nothing is known, and that asking again is what helps."""
        again = f"{module('relic.doctor')}  # again, when less runs on this machine"
        return Finding(part, State.UNKNOWN, str(self), again)


def ask_probe(world: World, name: str, *arguments: str, timeout: float) -> dict[str, Any]:
    """Run one of the doctor's own scripts, as the trainer would be run, and return its answer.

    Raises:
        NoAnswer: As `ask`.
    """
    return ask(
        world.python,
        ["-m", f"relic.doctor.{name}", *arguments],
        timeout=timeout,
        environment=world.environment,
        cwd=world.source,
    )


def ask(
    python: str,
    arguments: list[str],
    *,
    timeout: float,
    environment: Mapping[str, str],
    cwd: Path | None = None,
) -> dict[str, Any]:
    """Run Python and return the JSON object in the last line that it prints.

    Raises:
        NoAnswer: If it does not start, fails, hangs, or prints something else.
    """
    try:
        said = subprocess.run(
            [python, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=dict(environment),
            cwd=cwd,
        )
    except subprocess.TimeoutExpired:
        raise TooSlow(f"no answer within {timeout:g} s") from None
    except OSError as error:
        raise NoAnswer(f"{error.strerror}: {python}") from None
    lines = said.stdout.strip().splitlines()
    if said.returncode == 0 and lines:
        try:
            return json.loads(lines[-1])
        except ValueError:
            raise NoAnswer(f"not an answer: {lines[-1][:80]}") from None
    raise NoAnswer(_reason(said.returncode, said.stderr))


def _reason(status: int, stderr: str) -> str:
    """Return the last line of a traceback, or how the process ended."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    ended = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return lines[-1] if lines and status >= 0 else " ".join([ended, *lines[-1:]])
