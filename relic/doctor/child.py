"""Questions to other processes, so that nothing that is broken there can break the doctor."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relic.doctor.finding import World


class NoAnswer(Exception):
    """A process did not answer; the text says why, in a line."""


def ask_probe(world: World, name: str, *arguments: str, timeout: float) -> dict[str, Any]:
    """Run one of the doctor's own scripts, as the trainer would be run, and return its answer.

    Raises:
        NoAnswer: As `ask`.
    """
    return ask(
        world.python,
        ["-m", f"relic.doctor.{name}", *arguments],
        timeout=timeout,
        environment=world.environment,
        cwd=world.source,
    )


def ask(
    python: str,
    arguments: list[str],
    *,
    timeout: float,
    environment: Mapping[str, str],
    cwd: Path | None = None,
) -> dict[str, Any]:
    """Run Python and return the JSON object in the last line that it prints.

    Raises:
        NoAnswer: If it does not start, fails, hangs, or prints something else.
    """
    try:
        said = subprocess.run(
            [python, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=dict(environment),
            cwd=cwd,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"no answer within {timeout:g} s") from None
    except OSError as error:
        raise NoAnswer(f"{error.strerror}: {python}") from None
    lines = said.stdout.strip().splitlines()
    if said.returncode == 0 and lines:
        try:
            return json.loads(lines[-1])
        except ValueError:
            raise NoAnswer(f"not an answer: {lines[-1][:80]}") from None
    raise NoAnswer(_reason(said.returncode, said.stderr))


def _reason(status: int, stderr: str) -> str:
    """Return the last line of a traceback, or how the process ended."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    ended = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return lines[-1] if lines and status >= 0 else " ".join([ended, *lines[-1:]])
