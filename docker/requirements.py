"""Prints what the project and the extras named as arguments need, one requirement a line.

An image installs packages before it copies the source, so that a change of the source leaves their
layer alone; hence pip cannot be given the project itself.
"""

import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]


def requirements(extras: list[str]) -> list[str]:
    """Return the requirements of the core and of some extras.

    Raises:
        SystemExit: If there is no such extra.
    """
    optional = PROJECT["optional-dependencies"]
    for extra in extras:
        if extra not in optional:
            raise SystemExit(f"extra: unknown {extra!r}. Choose of: {', '.join(optional)}.")
    return [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
