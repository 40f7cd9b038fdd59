"""What ships beside the code: configurations, and policies and encoders that are trained.

In a checkout it lies in `configs`, `docker` and `pretrained` beside `relic`; in an installed
package inside of it, so that nothing of what it brings lands elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final


def _folder(name: str) -> Path:
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


CONFIGS: Final = _folder("configs")
"""The groups of `relic.run.compose`; protocols of evaluations are one of them."""
HABITAT: Final = _folder("docker") / "habitat.yaml"
"""The environment of packages in which the simulator runs."""
PRETRAINED: Final = _folder("pretrained")
"""One folder for each policy or encoder that ships."""


def located(path: str | Path, holds: str = ".") -> Path:
    """Return where a path leads: from here, or else among what ships as `pretrained/NAME`.

    Args:
        path: As a user gave it.
        holds: The file in it that is looked for, as others may lie there, too.
    """
    path = Path(path)
    if path.parts[:1] == ("pretrained",) and not (path / holds).exists():
        shipped = PRETRAINED.joinpath(*path.parts[1:])
        return shipped if (shipped / holds).exists() else path
    return path


def outside(path: Path) -> Path:
    """Return where to write what belongs to a path: what ships is not written into.

    Its place is then `pretrained/NAME` from here, where the user would look for it.
    """
    ships = path.absolute().is_relative_to(PRETRAINED)
    return Path("pretrained", path.absolute().relative_to(PRETRAINED)) if ships else path
