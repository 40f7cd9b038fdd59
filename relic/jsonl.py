"""Files of one JSON object a line, as they are while they still grow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def complete_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the objects of a file; a last line that is still being written is left out."""
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
