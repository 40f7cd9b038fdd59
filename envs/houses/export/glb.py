"""Writes glTF 2.0 binary files (GLB): coloured and textured triangles, no hierarchy, no light.

The light is in the colours already, so that materials are marked as unlit. A file holds all that
it needs. No reader: whoever reads these files is somebody else's program.

Shapes: V vertices, T triangles.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MAGIC: Final = 0x46546C67
_VERSION: Final = 2
_JSON_CHUNK: Final = 0x4E4F534A
_BINARY_CHUNK: Final = 0x004E4942
_VERTICES: Final = 34962
_INDICES: Final = 34963
_UNSIGNED_BYTE: Final = 5121
_UNSIGNED_INT: Final = 5125
_FLOAT: Final = 5126
_NEAREST: Final = 9728
_LINEAR_MIPMAP_LINEAR: Final = 9987
_REPEAT: Final = 10497
_UNLIT: Final = "KHR_materials_unlit"


class Part(NamedTuple):
    """Triangles that share a texture."""

    position_V3: NDArray[np.floating]
    triangle_T3: NDArray[np.integer]
    rgb_V3: NDArray[np.floating]
    """In [0, 1]; the texture is multiplied with it."""
    texture_V2: NDArray[np.floating] | None = None
    """Coordinates on the picture, v downwards from its first row; beyond [0, 1] it repeats."""
    picture: bytes | None = None
    """A PNG file."""


class _Buffer:
    """The binary chunk under construction, with the views and accessors into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, content: bytes, target: int | None = None) -> int:
        """Append bytes at a multiple of four and return the number of their view."""
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content)}
        if target is not None:
            view["target"] = target
        self.data += content + bytes(-len(content) % 4)
        self.views.append(view)
        return len(self.views) - 1

    def accessor(self, array: NDArray[Any], kind: str, component: int, target: int) -> int:
        """Append an array and return the number of its accessor."""
        entry: dict[str, Any] = {
            "bufferView": self.view(np.ascontiguousarray(array).tobytes(), target),
            "componentType": component,
            "count": len(array),
            "type": kind,
        }
        if kind == "VEC3":
            entry |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        if component == _UNSIGNED_BYTE:
            entry["normalized"] = True
        self.accessors.append(entry)
        return len(self.accessors) - 1


def glb(parts: Sequence[Part]) -> bytes:
    """Return a GLB file with one node and one mesh, y up.

    Args:
        parts: become the mesh's primitives, in order; at least one, none of them empty.
    """
    buffer = _Buffer()
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "relic-houses"},
        "extensionsUsed": [_UNLIT],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": []}],
        "materials": [],
    }
    for part in parts:
        material: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        if part.picture is not None:
            material["baseColorTexture"] = {"index": _texture(document, buffer, part.picture)}
        document["meshes"][0]["primitives"].append(
            _primitive(part, buffer) | {"material": len(document["materials"])}
        )
        document["materials"].append({"pbrMetallicRoughness": material, "extensions": {_UNLIT: {}}})
    document["bufferViews"] = buffer.views
    document["accessors"] = buffer.accessors
    document["buffers"] = [{"byteLength": len(buffer.data)}]
    return _pack(document, bytes(buffer.data))


def _primitive(part: Part, buffer: _Buffer) -> dict[str, Any]:
    rgba_V4 = np.full((len(part.rgb_V3), 4), 255, np.uint8)
    rgba_V4[:, :3] = np.round(np.asarray(part.rgb_V3) * 255.0)
    position_V3 = np.asarray(part.position_V3, np.float32)
    attributes = {
        "POSITION": buffer.accessor(position_V3, "VEC3", _FLOAT, _VERTICES),
        "COLOR_0": buffer.accessor(rgba_V4, "VEC4", _UNSIGNED_BYTE, _VERTICES),
    }
    if part.texture_V2 is not None:
        texture_V2 = np.asarray(part.texture_V2, np.float32)
        attributes["TEXCOORD_0"] = buffer.accessor(texture_V2, "VEC2", _FLOAT, _VERTICES)
    index = np.asarray(part.triangle_T3, np.uint32).ravel()
    indices = buffer.accessor(index, "SCALAR", _UNSIGNED_INT, _INDICES)
    return {"attributes": attributes, "indices": indices}


def _texture(document: dict[str, Any], buffer: _Buffer, picture: bytes) -> int:
    """Add a picture and return the number of its texture."""
    images = document.setdefault("images", [])
    textures = document.setdefault("textures", [])
    document["samplers"] = [
        {
            "magFilter": _NEAREST,
            "minFilter": _LINEAR_MIPMAP_LINEAR,
            "wrapS": _REPEAT,
            "wrapT": _REPEAT,
        }
    ]
    images.append({"bufferView": buffer.view(picture), "mimeType": "image/png"})
    textures.append({"sampler": 0, "source": len(images) - 1})
    return len(textures) - 1


def _pack(document: dict[str, Any], binary: bytes) -> bytes:
    """Put the two chunks behind the header."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(binary)
    return (
        struct.pack("<III", _MAGIC, _VERSION, length)
        + struct.pack("<II", len(text), _JSON_CHUNK)
        + text
        + struct.pack("<II", len(binary), _BINARY_CHUNK)
        + binary
    )
