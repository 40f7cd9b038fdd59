"""Says of a file on disk whether it is there and whole, as far as its first bytes can tell."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import Any, Final

_LFS: Final = b"version https://git-lfs"
_GLB_MAGIC: Final = b"glTF"


def damage(path: Path) -> str | None:
    """Return what is wrong with a file, or None.

    A binary glTF says how long it is; any file may be one of Git LFS's pointers, which stand in
    for what was not downloaded.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not size:
        return "is empty"
    if head.startswith(_LFS):
        return "is a Git LFS pointer: its content was not downloaded"
    if path.suffix == ".glb":
        if len(head) < 12 or not head.startswith(_GLB_MAGIC):
            return "is no binary glTF file"
        length = struct.unpack("<I", head[8:12])[0]
        if length != size:
            return f"is incomplete: {size} of {length} bytes"
    return None


class DataError(ValueError):
    """A file that cannot be used; the message says which and why."""


def read_json(path: Path) -> Any:
    """Read a JSON file, compressed where its name ends in `.gz`.

    Raises:
        DataError: It is missing, incomplete or no such file.
    """
    broken = damage(path)
    if broken is not None:
        raise DataError(f"{path} {broken}")
    try:
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no complete gzip file ({error})") from None
    except ValueError as error:
        raise DataError(f"{path} is no JSON file ({error})") from None
