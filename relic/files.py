"""Where the project lies, files of one JSON object a line, and directories with one writer."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from relic.schema import ConfigError


def complete_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the objects of a file; a last line that is still being written is left out."""
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


PROJECT = Path(__file__).resolve().parents[1]
"""The directory that holds `relic`, `envs`, `configs` and `pretrained`."""
LOCK_FILE = ".lock"


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
