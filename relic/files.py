"""Safe files: atomic writes, directories with one writer, the project's root."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
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


class DamagedError(StateError):
    """A file is missing, or not as it was written; an older copy may still serve."""


REFUSALS: Final = (ConfigError, StateError, CheckpointError, FileNotFoundError, ImportError)
"""Errors that a user mends: they are told in a few lines, without a traceback."""


def make_directory(path: Path, *, key: str) -> None:
    """Make a directory that the user named, and those above it, if it is not there.

    Args:
        path: Of the directory.
        key: The setting that names it.

    Raises:
        ConfigError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if path.is_file() else error.strerror
        raise ConfigError(
            f"{key}: must be a directory that can be written, got {path} ({reason}). "
            f"Choose another {key}."
        ) from None


def complete_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the objects of a file; a last line that is still being written is left out.

    Raises:
        StateError: If a line is damaged.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield _parsed(line, f"{path}: line {number}")


def measured_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a file of metrics, see `complete_lines`.

    Raises:
        StateError: If a line is damaged, or says nothing of the steps after which it was measured.
    """
    for number, line in enumerate(complete_lines(path), 1):
        if not isinstance(line.get("env_steps"), int):
            raise StateError(
                f"{path}: line {number}: must hold env_steps, a whole number, got "
                f"{line.get('env_steps')!r:.60}. Delete the line."
            )
        yield line


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: If it is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        content = parse_json(line)
    except ValueError as error:
        raise StateError(
            f"{where}: must be a JSON object, but it is damaged ({error}). Delete the line."
        ) from None
    if not isinstance(content, dict):
        raise StateError(f"{where}: must be a JSON object, got {line!r:.60}. Delete the line.")
    return content


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, wanted: str | None) -> None:
    """Check that a file is as it was written.

    Args:
        path: The file.
        wanted: Its checksum; None: there was no such file.

    Raises:
        DamagedError: If it is missing, is another, or should not be there.
    """
    found = checksum(path) if path.is_file() else None
    if found == wanted:
        return
    if found is None:
        raise DamagedError(f"{path}: must exist, found nothing. The checkpoint is incomplete.")
    raise DamagedError(
        f"{path}: must be as it was written, but its checksum is another. The file is damaged, or "
        "of another checkpoint."
    )


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


_SEAL = "sha256"


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum of the rest, and of its file's name, as last entry."""
    write_json(path, {**content, _SEAL: _digest(path.name, content)})


def is_intact(path: Path, content: Mapping[str, Any]) -> bool:
    """Say whether what was read from a file is what `write_sealed` wrote; true without a seal."""
    rest = {key: value for key, value in content.items() if key != _SEAL}
    return content.get(_SEAL, _digest(path.name, rest)) == _digest(path.name, rest)


def _digest(name: str, content: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{name}\n{json.dumps(content)}".encode()).hexdigest()


_HEAD = "# sha256={} of what follows; delete this line to change it by hand.\n"


def write_sealed_text(path: Path, text: str) -> None:
    """Write a text below a comment that says its checksum."""
    write_text(path, _HEAD.format(hashlib.sha256(text.encode()).hexdigest()) + text)


def read_sealed_text(path: Path) -> str:
    """Read a text, which may lack the comment.

    Raises:
        DamagedError: If it is not what the comment says.
    """
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition("\n")
    said = re.match(r"# sha256=(\w*)", head)
    if said and said[1] != hashlib.sha256(rest.encode()).hexdigest():
        raise DamagedError("its checksum is another")
    return text


def mark_file(path: Path) -> Path:
    """Return where it is noted what a growing file of lines held."""
    return path.with_suffix(".mark.json")


class Mark:
    """What a growing file of lines holds so far, noted beside it."""

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is read yet."""
        self._path = path
        self._hash = hashlib.sha256()
        self._bytes = self._lines = 0

    def write(self) -> None:
        """Bring the file to the disk, and note what it holds; only what is new to it is read."""
        if not self._path.exists():
            return
        sync(self._path)
        with self._path.open("rb") as file:
            file.seek(self._bytes)
            new = file.read()
        self._hash.update(new)
        self._bytes += len(new)
        self._lines += new.count(b"\n")
        seen = {"bytes": self._bytes, "lines": self._lines, "content": self._hash.hexdigest()}
        write_sealed(mark_file(self._path), seen)


def changed_since_mark(path: Path) -> str | None:
    """Say in a sentence how a growing file of lines differs from what was noted; None: it does not.

    What was appended since is not looked at.
    """
    mark = mark_file(path)
    if not mark.exists():
        return None
    try:
        noted = parse_json(mark.read_bytes())
        if not is_intact(mark, noted):
            raise ValueError("its checksum is another")
        size, lines, wanted = (noted[key] for key in ("bytes", "lines", "content"))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        return f"{mark}: is damaged ({error}), so {path.name} cannot be checked."
    content = path.read_bytes()[:size] if path.exists() else b""
    if _hash(content) == wanted:
        return None
    found = content.count(b"\n")
    if found < lines:
        return f"{path}: holds {found} of the first {lines} lines that were written: a gap."
    return f"{path}: is not as it was written; one of its first {lines} lines has changed."


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
