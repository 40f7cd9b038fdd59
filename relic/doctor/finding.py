"""What a check looks at, and what it says."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder."""


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
    source: Path = ROOT
    environment: dict[str, str] = field(default_factory=dict)
    """Variables as the trainer would see them."""

    def pip(self, *arguments: str) -> str:
        """Return the command that installs something for the trainer."""
        return shlex.join([self.python, "-m", "pip", "install", *arguments])

    def pip_project(self, extra: str = "") -> str:
        """Return the command that installs the project with one of its extras."""
        what = f"{self.source}[{extra}]" if extra else str(self.source)
        return self.pip("-c", str(self.source / "constraints.txt"), "-e", what)
