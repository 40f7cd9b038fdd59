"""The console commands `relic-train`, `relic-eval` and `relic-doctor`."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

OLDEST = (3, 11)
"""As `requires-python` in pyproject.toml, which cannot be read where nothing is installed."""


def train() -> int:
    """Train, as `train.py` does."""
    if refused := _refused():
        return refused
    status = _run("relic.train", "train")
    from relic.run.ranks.ranks import started_by_launcher  # not under Pythons that are refused

    if started_by_launcher():
        _leave(status)
    return status


def evaluate() -> int:
    """Evaluate, as `eval.py` does."""
    return _refused() or _run("relic.evaluate", "evaluate")


def doctor() -> int:
    """Say what works on this machine, as `python -m relic.doctor` does."""
    return _run("relic.doctor.cli", "main")


def started_as(script: str) -> str:
    """Return what the user typed to start this command.

    Args:
        script: How it is started without a console command, such as `train.py`.
    """
    name = Path(sys.argv[0]).stem  # on Windows it ends in .exe
    return name if name.startswith("relic-") else script


def _refused() -> int:
    """Say so and return 2 if this Python is too old; the doctor runs under older ones, too."""
    if sys.version_info >= OLDEST:
        return 0
    now, oldest = platform.python_version(), ".".join(map(str, OLDEST))
    print(
        f"Python: must be {oldest} or newer, got {now} ({sys.executable}). "
        "Use .venv/bin/python, or select another one: make core PYTHON=python3.12",
        file=sys.stderr,
    )
    return 2


def _leave(status: int) -> NoReturn:
    """End a process that torchrun has started, at once.

    Now and then such a process aborted while its interpreter was torn down around the threads of
    its group, and torchrun reported a run that had done all as failed.
    """
    with suppress(OSError):  # nobody reads it any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _run(module: str, function: str) -> int:
    # Modules of the user's own are found from the working directory, as by `python -m`. Behind all
    # others, as many have a folder `envs` or `configs` there.
    sys.path.append(os.getcwd())
    try:
        from relic.stops import guarded  # here, as Pythons that are refused above cannot read it

        # For what stops a command while it is imported; later it does so itself.
        return guarded(lambda: getattr(import_module(module), function)(sys.argv[1:]))
    except KeyboardInterrupt:  # while that which tells it is imported
        print("Interrupted.", file=sys.stderr)
        return 130
