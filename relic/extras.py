"""The commands that install the project and its optional packages, which no index holds by name."""

from __future__ import annotations

import shlex
import sys
from importlib import metadata
from pathlib import Path

from relic.files import PROJECT

DISTRIBUTION = "relic-rl"


def pip(*arguments: str, python: str = sys.executable) -> str:
    """Return the command that installs something for an interpreter."""
    return shlex.join([python, "-m", "pip", "install", *arguments])


def install_command(
    extra: str = "", *, python: str = sys.executable, source: Path = PROJECT
) -> str:
    """Return the command that installs the project with one of its extras.

    Args:
        extra: As pyproject.toml names it; none for the core.
        python: For which interpreter.
        source: Where the project's files are.
    """
    is_checkout = (source / "pyproject.toml").is_file()
    if not is_checkout and (asked := requirements(extra)):
        return pip(*asked, python=python)  # of a wheel
    what = f"{source}[{extra}]" if extra else str(source)
    return pip("-c", str(source / "constraints.txt"), "-e", what, python=python)


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
