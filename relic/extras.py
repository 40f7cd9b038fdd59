"""Commands that a user is told to run: those that install what is missing, and modules."""

from __future__ import annotations

import shlex
import sys
from importlib import metadata
from pathlib import Path

from relic.files import PROJECT

DISTRIBUTION = "relic-rl"


def module(name: str, *arguments: str, python: str = sys.executable) -> str:
    """Return the command that runs a module under an interpreter."""
    return shlex.join([python, "-m", name, *arguments])


def pip(*arguments: str, python: str = sys.executable) -> str:
    """Return the command that installs something for an interpreter."""
    return module("pip", "install", *arguments, python=python)


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
