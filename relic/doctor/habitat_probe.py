"""Run by the doctor in a process of its own: what of Habitat is here, as one JSON object.

`simulator PYTHON` starts habitat-sim once under its interpreter; `data FOLDER` looks for the
paper's scenes, objects and episodes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from envs.core.process_pool import WorkerError
from envs.habitat.data import KNOWN, status
from envs.habitat.start import check_simulator


def simulator(python: str) -> dict[str, Any]:
    """Say what is wrong with the simulator, or null."""
    try:
        check_simulator(python)
    except (ValueError, WorkerError) as error:
        return {"error": str(error)}
    return {"error": None}


def data(folder: str) -> dict[str, Any]:
    """Name each data set, what is wrong with it (null: nothing), and how to get it."""
    items = [{"name": k.name, "problem": status(k, Path(folder)), "how": k.how} for k in KNOWN]
    return {"items": items}


if __name__ == "__main__":
    question, argument = sys.argv[1:]
    print(json.dumps({"simulator": simulator, "data": data}[question](argument)))
