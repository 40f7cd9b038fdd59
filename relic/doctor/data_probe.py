"""Run by the doctor in a process of its own: prints which of the paper's data is here, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from envs.habitat.data import KNOWN, status


def main(folder: Path) -> None:
    """Print the name of each data set, what is wrong with it (null: nothing), and how to get it."""
    items = [{"name": k.name, "problem": status(k, folder), "how": k.how} for k in KNOWN]
    print(json.dumps({"items": items}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
