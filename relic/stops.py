"""What stops a command, told in a sentence and an exit status; the one place for all commands.

Foreseen is what a user can mend: input that is refused, a disk that is full, memory that does not
suffice, a simulator that is lost, Ctrl-C. What nobody foresaw keeps its traceback.

A class of errors says of itself that it is `foreseen`, an attribute that is true, where its text is
what a user is to be told. So nothing has to be imported here to know it: commands start quickly.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relic.files import REFUSALS
from relic.schema import ConfigError, in_lines

FAILED: Final = 1
REFUSED: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT
_READER_LEFT: Final = 128 + signal.SIGPIPE
_MOST_LINES: Final = 3

_ROOM = "Make room there"
_RIGHTS = "Make it writable"
_AWAY = "Move away what is in its place"
_DISK = "Look after the disk"
_ADVICE: Final = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f)",
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENAMETOOLONG: "Choose a shorter path",
    errno.ENOENT: "Restore it",
    errno.ENOTDIR: _AWAY,
    errno.EISDIR: _AWAY,
    errno.EEXIST: _AWAY,
    errno.ENOTEMPTY: _AWAY,
    errno.ELOOP: _AWAY,
    errno.EIO: _DISK,
    errno.ESTALE: _DISK,
    errno.ENXIO: _DISK,
    errno.ENODEV: _DISK,
    errno.EMFILE: "Raise the limit on open files (ulimit -n)",
    errno.ENFILE: "Close other programs",
    errno.EAGAIN: "Raise the limit on processes (ulimit -u), or close other programs",
    errno.ENOMEM: "Close other programs, or ask for less",
}
"""What helps, by the number of an error of the operating system. Others are not foreseen."""
_OF_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of writing, which do not say where."""
_GOES_ON: Final = "it goes on from what is on disk."
_OF_RUST: Final = re.compile(r"\(os error (\d+)\)")
"""How errors of safetensors, which are no `OSError`, tell the number."""
_NO_MEMORY: Final = re.compile(r"DefaultCPUAllocator: (can't allocate memory[^.]*)|out of memory")


@dataclass(frozen=True)  # no slots: the doctor imports this file under older Pythons too
class Stop:
    """Why a command ends early."""

    text: str
    status: int


def guarded(command: Callable[[], int | None]) -> int:
    """Run a command to its exit status; what is foreseen is told on stderr.

    Raises:
        BaseException: What is not foreseen.
    """
    try:
        status = int(command() or 0)
        sys.stdout.flush()  # or a reader that has left would be noticed after this
        return status
    except BrokenPipeError:
        if not _reader_left():
            raise
        return _READER_LEFT
    except BaseException as error:
        stop = stop_of(error)
        if stop is None:
            raise
        print(stop.text, file=sys.stderr)
        return stop.status


@contextmanager
def writing_in(directory: Path) -> Iterator[None]:
    """Name a directory in errors of the disk that name no file."""
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number not in _OF_DISK or getattr(error, "filename", None):
            raise
        raise OSError(number, os.strerror(number), str(directory)) from error


def in_main_thread() -> bool:
    """Say whether this is the thread that signals come to, the only one that may handle them."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Keep Ctrl-C from the processes that are started while entered: their parent speaks for them.

    They inherit what this thread does not listen to, from their first instruction on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what parts object to, while they are built, into refusals of the configuration."""
    try:
        yield
    except REFUSALS:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def stop_of(error: BaseException) -> Stop | None:
    """Return how an error is told; None if it is not foreseen."""
    if isinstance(error, KeyboardInterrupt):
        return Stop(f"Interrupted. Start again: {_GOES_ON}", INTERRUPTED)
    if isinstance(error, ModuleNotFoundError):
        return Stop(f"{error}. {_where_to_find()}", REFUSED)
    if isinstance(error, REFUSALS) and getattr(error, "errno", None) is None:
        return Stop(in_lines(error, _MOST_LINES), REFUSED)
    if getattr(error, "foreseen", False):
        return Stop(in_lines(error, None), getattr(error, "status", FAILED))
    text = _of_system(error) or _of_memory(error)
    return None if text is None else Stop(text, FAILED)


def _where_to_find() -> str:
    """Say what helps where a module is missing."""
    from importlib import metadata  # slow to import

    from relic.extras import DISTRIBUTION

    doctor = f"{sys.executable} -m relic.doctor"
    try:
        metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return (
            f"This is {sys.executable}: start with the Python that ReLIC is installed for "
            f"(`make core` makes .venv/bin/python), or see what is missing: {doctor}"
        )
    return f"It must be installed for {sys.executable}. To see what ReLIC itself needs: {doctor}"


def _of_system(error: BaseException) -> str | None:
    """Tell of what the operating system refused."""
    number, path = _number(error), getattr(error, "filename", None)
    if number not in _ADVICE:
        return None
    where = f"{path}: " if path else ""
    return f"{where}{os.strerror(number)}. {_ADVICE[number]}, then start again: {_GOES_ON}"


def _number(error: BaseException) -> int | None:
    """Return the number of an error of the operating system, by whatever library it came."""
    if isinstance(error, OSError):
        return error.errno
    said = _OF_RUST.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(said[1]) if said else None


def _of_memory(error: BaseException) -> str | None:
    """Tell of memory that did not suffice, of this machine or of a GPU."""
    if isinstance(error, MemoryError):
        said = str(error) or "there is no more"
    elif isinstance(error, RuntimeError) and (found := _NO_MEMORY.search(str(error))):
        said = found[1] or str(error).splitlines()[0]
    else:
        return None
    return (
        f"memory: must suffice, got: {said.rstrip('.')}. Use fewer rows (rollout.num_envs, or block"
        " in an evaluation), shorter rollouts or a smaller policy, or close other programs."
    )


def _reader_left() -> bool:
    """Say whether nobody reads what this process says any more; then say no more of it."""
    left = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream.fileno())]
    for stream in left:
        # Or Python would try again as it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(left)


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
