"""What a run directory holds before each file operation of a run: what a kill there would leave.

The state on disk is copied as an audit hook hears of each operation; what the process has not
written yet is not in the copy, as it would not survive a kill. Python tells of an operation just
before it is done, so the copies lie between all pairs of them. Files that are written by Rust are
seen whole, and cut to their half: a kill, or a loss of power, may leave any part of a file that was
not synced.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "open")
_watcher: "Watcher | Refuser | None" = None
_hooked = False


class Watcher:
    """Copies a directory before each change of a file in it."""

    def __init__(self, watched: Path, copies: Path):
        self.watched, self.copies = watched, copies
        self.operations: list[str] = []
        """What was about to happen, by the number of its copy."""
        self._busy = False
        self._seen: set[str] = set()
        self._synced: set[Path] = set()

    def hear(self, event: str, arguments: tuple) -> None:
        if self._busy or event not in CHANGES or not isinstance(arguments[0], str | bytes | Path):
            return
        path = _resolved(arguments)
        if self.watched not in (path, *path.parents):
            return
        self._busy = True
        try:
            self._copy(f"{event} {path.relative_to(self.watched)}")
            if event == "open" and path.is_file() and self._may_be_cut(path):
                self._copy(f"half of {path.relative_to(self.watched)}", halved=path)
        finally:
            self._busy = False

    def _may_be_cut(self, path: Path) -> bool:
        """Say whether a file is opened to be synced: nothing counts on it yet."""
        unpublished = path.suffix == ".tmp" or path.parent.name.endswith((".unfinished", "rollout"))
        first = path not in self._synced
        self._synced.add(path)
        return unpublished and first

    def _copy(self, operation: str, halved: Path | None = None) -> None:
        content = {
            str(path.relative_to(self.watched)): path.read_bytes() if path.is_file() else b""
            for path in sorted(self.watched.rglob("*"))
        }
        cut = None if halved is None else str(halved.relative_to(self.watched))
        if cut is not None:
            content[cut] = content[cut][: len(content[cut]) // 2]
        digest = hashlib.sha256(repr(content).encode()).hexdigest()
        if digest in self._seen:
            return
        self._seen.add(digest)
        copy = self.copies / f"{len(self.operations):04d}"
        if self.watched.exists():
            shutil.copytree(self.watched, copy)
        if cut is not None:
            (copy / cut).write_bytes(content[cut])
        self.operations.append(operation)


class Refuser:
    """Lets one change of a file in a directory fail, as a disk that is full does."""

    def __init__(self, watched: Path, number: int, at: int | None):
        self.watched, self._number, self._at = watched, number, at
        self.operations: list[str] = []
        """Those that were asked for, in order."""

    def hear(self, event: str, arguments: tuple) -> None:
        if event not in CHANGES or not isinstance(arguments[0], str | bytes | Path):
            return
        path = _resolved(arguments)
        reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if reads or self.watched not in (path, *path.parents):
            return
        self.operations.append(f"{event} {path.relative_to(self.watched)}")
        if len(self.operations) - 1 == self._at:
            raise OSError(self._number, os.strerror(self._number), str(path))


def _resolved(arguments: tuple) -> Path:
    """Return the path of an operation, which may be relative to an open directory."""
    path = Path(arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0])
    directory = arguments[-1]
    if not path.is_absolute() and isinstance(directory, int) and directory >= 0:
        return Path(f"/proc/self/fd/{directory}").resolve() / path
    return path.absolute()


def _hook(event: str, arguments: tuple) -> None:
    if _watcher is not None:
        _watcher.hear(event, arguments)


@contextmanager
def watching(watched: Path, copies: Path) -> Iterator[Watcher]:
    """Watch a directory while entered."""
    copies.mkdir()
    watcher = Watcher(watched, copies)
    with _hearing(watcher):
        yield watcher


@contextmanager
def refusing(watched: Path, number: int, at: int | None = None) -> Iterator[Refuser]:
    """Let the change of a file in a directory that has the number `at` fail while entered.

    Args:
        watched: The directory.
        number: Of the error of the operating system.
        at: None: all succeed, and are counted.
    """
    refuser = Refuser(watched, number, at)
    with _hearing(refuser):
        yield refuser


@contextmanager
def _hearing(watcher: Watcher | Refuser) -> Iterator[None]:
    global _watcher, _hooked
    if not _hooked:
        sys.addaudithook(_hook)  # for good: Python has no way to remove one
        _hooked = True
    _watcher = watcher
    try:
        yield
    finally:
        _watcher = None
