"""Run by the doctor in a process of its own: starts habitat-sim once under its interpreter."""

from __future__ import annotations

import json
import sys

from envs.core.process_pool import WorkerError
from envs.habitat.start import check_simulator


def main(python: str) -> None:
    """Print what is wrong, or null, as JSON."""
    try:
        check_simulator(python)
    except (ValueError, WorkerError) as error:
        print(json.dumps({"error": str(error)}))
        return
    print(json.dumps({"error": None}))


if __name__ == "__main__":
    main(sys.argv[1])
