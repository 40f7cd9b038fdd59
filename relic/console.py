"""The console commands `relic-train`, `relic-eval` and `relic-doctor`."""

from __future__ import annotations

import os
import sys


def train() -> int:
    """Train, as `train.py` does."""
    from relic.train import train

    return train(_arguments())


def evaluate() -> int:
    """Evaluate, as `eval.py` does."""
    from relic.evaluate import evaluate

    return evaluate(_arguments())


def doctor() -> int:
    """Say what works on this machine, as `python -m relic.doctor` does."""
    from relic.doctor.cli import main

    return main(_arguments())


def _arguments() -> list[str]:
    # Modules of the user's own are found from the working directory, as by `python -m`. Behind all
    # others, as many have a folder `envs` or `configs` there.
    sys.path.append(os.getcwd())
    return sys.argv[1:]
