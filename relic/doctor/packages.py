"""Python and the packages that the core needs."""

from __future__ import annotations

import re
import sys
from importlib import metadata

from relic.doctor.finding import Finding, State, World

PROJECT = "relic-rl"
OLDEST = (3, 11)
"""As `requires-python` in pyproject.toml, which cannot be read where nothing is installed."""


def check_python(world: World) -> list[Finding]:
    """Look at the interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    found = f"{version}, {world.python}"
    if sys.version_info >= OLDEST:
        return [Finding("python", State.OK, found)]
    oldest = ".".join(map(str, OLDEST))
    repair = f"make setup PYTHON=python{oldest}"
    return [Finding("python", State.BROKEN, f"{found}; needs {oldest} or newer", repair)]


def check_packages(world: World) -> list[Finding]:
    """Compare what is installed with what the project asks for."""
    try:
        asked = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        found = f"the project is not installed for {world.python}"
        return [Finding("packages", State.BROKEN, found, world.pip_project())]
    core = [line for line in asked if "extra ==" not in line]
    wrong = [complaint for line in core if (complaint := check_requirement(line))]
    if wrong:
        return [Finding("packages", State.BROKEN, "; ".join(wrong), world.pip_project())]
    return [Finding("packages", State.OK, f"all {len(core)} of the core")]


def check_requirement(line: str) -> str | None:
    """Say what is wrong with a requirement such as `numpy>=2`; None: it is met."""
    match = re.match(r"[\w.-]+", line)
    assert match, line
    name = match[0]
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return None  # a package of the core brings it, and that one is missing then
    asked = Requirement(line).specifier
    return None if asked.contains(version, prereleases=True) else f"{name} {version}, not {asked}"


def check_extra(extra: str, name: str) -> str | None:
    """Say what is wrong with a package that an extra asks for; None: nothing, as far as is known.

    Where the project is not installed, nothing is: `check_packages` says so.
    """
    try:
        asked = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        return None
    lines = [line for line in asked if re.match(rf"{name}\b", line) and f'"{extra}"' in line]
    return check_requirement(lines[0]) if lines else None
