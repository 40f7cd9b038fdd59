"""The console commands `relic-train`, `relic-eval` and `relic-doctor`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path


def train() -> int:
    """Train, as `train.py` does."""
    return _run("relic.train", "train")


def evaluate() -> int:
    """Evaluate, as `eval.py` does."""
    return _run("relic.evaluate", "evaluate")


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


def _run(module: str, function: str) -> int:
    # Modules of the user's own are found from the working directory, as by `python -m`. Behind all
    # others, as many have a folder `envs` or `configs` there.
    sys.path.append(os.getcwd())
    try:
        return getattr(import_module(module), function)(sys.argv[1:])
    except KeyboardInterrupt:  # while it is imported; later it is told by `relic.stops`
        print("Interrupted.", file=sys.stderr)
        return 130
