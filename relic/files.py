"""Files that a reader never meets half written, directories with one writer, the project's root."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from relic.schema import ConfigError

PROJECT: Final = Path(__file__).resolve().parents[1]
"""The directory that holds `relic` and `envs`: of a checkout, or where packages are installed."""
LOCK_FILE: Final = ".lock"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; its text names the file and the reason."""


class StateError(ValueError):
    """A saved state that cannot be read back."""


REFUSALS: Final = (ConfigError, StateError, CheckpointError, FileNotFoundError, ImportError)
"""Errors that a user mends: they are told in a few lines, without a traceback."""


def complete_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the objects of a file; a last line that is still being written is left out."""
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


class Seal:
    """A checksum as the last line of a file of lines: all of it is there, and unchanged.

    It covers what the file is, too, so that one file in the place of another is noticed.
    """

    def __init__(self, what: str) -> None:
        """Begin a file; `what` names it."""
        self._hash = hashlib.sha256(what.encode() + b"\n")

    def add(self, line: str) -> str:
        """Take note of a line that is written, and return it."""
        self._hash.update(line.encode())
        return line

    @property
    def line(self) -> str:
        """The last line."""
        return json.dumps({"sha256": self._hash.hexdigest()}) + "\n"


def read_sealed(path: Path, what: str) -> list[str] | None:
    """Return the lines of a file but for its seal; None if it is absent, cut or changed.

    Args:
        path: The file.
        what: Must name the same as when it was written.
    """
    try:
        lines = path.read_bytes().decode().splitlines(keepends=True)
    except (OSError, UnicodeDecodeError):
        return None
    seal = Seal(what)
    for line in lines[:-1]:
        seal.add(line)
    return lines[:-1] if lines and lines[-1] == seal.line else None


def write_text(path: Path, text: str) -> None:
    """Write a text file, or replace it: readers see the old text or the new one, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    publish(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON; see `write_text`."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def publish(temporary: Path, path: Path) -> None:
    """Move a finished file to its place once the disk has it."""
    sync(temporary)  # or a crash of the machine could leave a name without its content
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hold(directory: Path, key: str) -> IO[str]:
    """Lock a directory until the file that is returned is closed, or this process ends.

    Where a file system has no locks, nothing is locked.

    Args:
        directory: Which must exist.
        key: What it is called on the command line.

    Raises:
        ConfigError: If another process holds it.
    """
    file = (directory / LOCK_FILE).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(
            f"{key}: must be written by one process at a time, but another one is at work in "
            f"{directory}. Wait until it ends, or choose another {key}."
        ) from None
    except OSError:
        pass
    return file
