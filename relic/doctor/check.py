"""The result of a check, and how checks run code in other processes.

What may be broken is asked in a process of its own, so that it cannot break the doctor.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

from relic.files import PROJECT

DISTRIBUTION = "relic-rl"


class State(Enum):
    """How a part is."""

    OK = "ok"
    LIMITED = "limited"
    """It works, but not for everything."""
    ABSENT = "absent"
    """It is not there."""
    BROKEN = "broken"
    """It is there, or should be, and does not work."""


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

    def pip(self, *arguments: str) -> str:
        """Return the command that installs something for the trainer."""
        return shlex.join([self.python, "-m", "pip", "install", *arguments])

    def pip_project(self, extra: str = "") -> str:
        """Return the command that installs the project with one of its extras."""
        is_checkout = (self.source / "pyproject.toml").is_file()
        if not is_checkout and (asked := requirements(extra)):
            return self.pip(*asked)  # of a wheel, which no index has
        what = f"{self.source}[{extra}]" if extra else str(self.source)
        return self.pip("-c", str(self.source / "constraints.txt"), "-e", what)


def requirements(extra: str = "") -> list[str]:
    """Return what the installed project requires for its core, or for one of its extras.

    Nothing where it is not installed.
    """
    try:
        lines = [line.partition(";") for line in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        return []
    wanted = f'extra == "{extra}"' if extra else ""
    return [
        asked.strip() for asked, _, marker in lines if marker.strip().replace("'", '"') == wanted
    ]


class NoAnswer(Exception):
    """A process did not answer; the text says why, in a line."""


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
        raise NoAnswer(f"no answer within {timeout:g} s") from None
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
