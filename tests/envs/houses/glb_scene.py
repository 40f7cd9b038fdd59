"""Reads an exported house back and looks at it along rays, slowly.

Written from the glTF 2.0 specification and habitat-sim's scene formats, not from the exporter. The
frame is Habitat's: y up, a camera looks along -z.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

_TYPES = {5121: np.uint8, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


@dataclass
class Triangles:
    """Corners (T, 3, 3) in the scene, with what each triangle looks like."""

    corner: np.ndarray
    color: np.ndarray
    uv: np.ndarray
    picture: np.ndarray
    """Index into `pictures`, -1 for none."""
    semantic: np.ndarray
    pictures: list[np.ndarray]


def read_glb(path: Path):
    """Return the document and its accessors as arrays, checking what the format demands."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert magic == b"glTF"
    assert version == 2
    assert length == len(data)
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON"
    assert size % 4 == 0
    document = json.loads(data[20 : 20 + size])
    binary_size, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert kind == b"BIN\0"
    binary = data[28 + size :]
    assert len(binary) == binary_size == document["buffers"][0]["byteLength"]
    arrays = []
    for accessor in document["accessors"]:
        view = document["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        kind, columns = _TYPES[accessor["componentType"]], _WIDTHS[accessor["type"]]
        array = np.frombuffer(binary, kind, accessor["count"] * columns, view["byteOffset"])
        assert array.nbytes <= view["byteLength"]
        array = array.reshape(-1, columns)
        if "min" in accessor:
            assert array.min(0).tolist() == accessor["min"]
            assert array.max(0).tolist() == accessor["max"]
        arrays.append(array / 255.0 if accessor.get("normalized") else array)
    return document, arrays, binary


def triangles_of(path: Path, pose: np.ndarray, semantic: int) -> Triangles:
    """Read a file and put it at a pose (4, 4)."""
    document, arrays, binary = read_glb(path)
    assert document["nodes"] == [{"mesh": 0}]
    parts, pictures = [], []
    for primitive in document["meshes"][0]["primitives"]:
        index = arrays[primitive["indices"]].astype(int).reshape(-1, 3)
        attributes = {k: arrays[v] for k, v in primitive["attributes"].items()}
        assert index.max() < len(attributes["POSITION"])
        point = attributes["POSITION"].astype(float) @ pose[:3, :3].T + pose[:3, 3]
        material = document["materials"][primitive["material"]]["pbrMetallicRoughness"]
        picture = np.full(len(index), -1)
        if "baseColorTexture" in material:
            texture = document["textures"][material["baseColorTexture"]["index"]]
            image = document["images"][texture["source"]]
            view = document["bufferViews"][image["bufferView"]]
            start = view["byteOffset"]
            png = Image.open(io.BytesIO(binary[start : start + view["byteLength"]]))
            picture[:] = len(pictures)
            pictures.append(np.asarray(png.convert("RGB")) / 255.0)
        uv = attributes.get("TEXCOORD_0", np.zeros((len(point), 2)))
        color = attributes["COLOR_0"][:, :3]
        parts.append((point[index], color[index], uv.astype(float)[index], picture))
    corner, color, uv, picture = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Triangles(corner, color, uv, picture, np.full(len(corner), semantic), pictures)


def merge(parts: list[Triangles]) -> Triangles:
    pictures, picture = [], []
    for part in parts:
        picture.append(np.where(part.picture >= 0, part.picture + len(pictures), -1))
        pictures += part.pictures
    names = ("corner", "color", "uv", "semantic")
    joined = {n: np.concatenate([getattr(p, n) for p in parts]) for n in names}
    return Triangles(**joined, picture=np.concatenate(picture), pictures=pictures)


def pose_of(translation: list[float], rotation: list[float]) -> np.ndarray:
    """Return the matrix of a translation and a quaternion w, x, y, z."""
    w, x, y, z = rotation
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = translation
    return matrix


def find(root: Path, name: str, kind: str) -> Path:
    """Return the only configuration of a kind whose path holds a name, as Habitat looks it up."""
    found = [p for p in root.rglob(f"*.{kind}.json") if name in str(p.relative_to(root))]
    assert len(found) == 1, (name, found)
    return found[0]


def read_episodes(root: Path) -> list[dict]:
    return json.loads(gzip.decompress((root / "episodes.json.gz").read_bytes()))["episodes"]


def stage_triangles(root: Path, scene: dict) -> Triangles:
    """Read a scene instance's stage, with the semantic ids of its semantic mesh."""
    config_path = find(root, scene["stage_instance"]["template_name"], "stage_config")
    config = json.loads(config_path.read_text())
    seen = triangles_of(config_path.parent / config["render_asset"], np.eye(4), 0)
    labelled = triangles_of(config_path.parent / config["semantic_asset"], np.eye(4), 0)
    dataset = json.loads(next(root.glob("*.scene_dataset_config.json")).read_text())
    descriptors = dataset["semantic_scene_descriptor_instances"]
    lines = (root / descriptors[scene["semantic_scene_instance"]]).read_text().split("\n")
    assert lines[0] == "HM3D Semantic Annotations"
    ids = {}
    for line in filter(None, lines[1:]):
        number, color, _, _ = line.split(",")
        ids[tuple(int(color[i : i + 2], 16) / 255 for i in (0, 2, 4))] = int(number)
    # Both meshes hold the same triangles, in some order.
    semantic = {np.round(c, 5).tobytes(): ids[tuple(k[0])] for c, k in
                zip(labelled.corner, labelled.color, strict=True)}  # fmt: skip
    seen.semantic = np.array([semantic[np.round(c, 5).tobytes()] for c in seen.corner])
    return seen


def scene_triangles(root: Path, episode: dict) -> Triangles:
    """Read the scene of an episode: stage, furniture and objects."""
    scene = json.loads((root / episode["scene_id"]).read_text())
    parts = [stage_triangles(root, scene)]
    placed = [
        (entry["template_name"], pose_of(entry["translation"], entry["rotation"]))
        for entry in scene["object_instances"]
    ]
    placed += [(name, np.array(pose)) for name, pose in episode["rigid_objs"]]
    for name, pose in placed:
        path = find(root, name, "object_config")
        config = json.loads(path.read_text())
        parts.append(
            triangles_of(path.parent / config["render_asset"], pose, config["semantic_id"])
        )
    return merge(parts)


def look(scene: Triangles, eye: np.ndarray, ray: np.ndarray, near: float = 0.05):
    """Return depth, semantic id and colour (0 to 1) along rays (R, 3).

    A ray's component along the camera's axis is 1, so that its parameter is the depth. Triangles
    are seen from the side on which their corners run counter-clockwise.
    """
    a = scene.corner[:, 0]
    edge_1, edge_2 = scene.corner[:, 1] - a, scene.corner[:, 2] - a
    normal = np.cross(edge_1, edge_2)
    facing = ((eye - a) * normal).sum(1) > 0
    depth = np.full(len(ray), np.inf)
    owner = np.full(len(ray), -1)
    weights = np.zeros((len(ray), 2))
    for t in np.flatnonzero(facing & _in_view(scene.corner - eye, ray)):
        cross = np.cross(ray, edge_2[t])
        scale = cross @ edge_1[t]
        offset = eye - a[t]
        with np.errstate(divide="ignore", invalid="ignore"):
            u = cross @ offset / scale
            turned = np.cross(offset, edge_1[t])
            v = ray @ turned / scale
            along = edge_2[t] @ turned / scale
        slack = 1e-9
        hit = (u >= -slack) & (v >= -slack) & (u + v <= 1 + slack) & (along >= near)
        hit &= along < depth
        depth[hit], owner[hit] = along[hit], t
        weights[hit] = np.stack([u, v], 1)[hit]
    return depth, *_paint(scene, owner, weights)


def _in_view(corner: np.ndarray, ray: np.ndarray) -> np.ndarray:
    """Tell which triangles, relative to the eye, are not wholly beside a bundle of rays."""
    axis = ray.mean(0)
    side = np.cross(axis, [0.0, 1.0, 0.0] if abs(axis[1]) < 0.9 else [1.0, 0.0, 0.0])
    inside = np.ones(len(corner), bool)
    for across in (side, -side, np.cross(axis, side), np.cross(side, axis)):
        limit = ((ray @ across) / (ray @ axis)).max() + 1e-9
        inside &= (corner @ across <= limit * (corner @ axis)).any(1)
    return inside


def _paint(scene: Triangles, owner: np.ndarray, weights: np.ndarray):
    seen = owner >= 0
    w = np.concatenate([1 - weights.sum(1, keepdims=True), weights], 1)
    color = np.einsum("rk,rkc->rc", w, scene.color[owner])
    uv = np.einsum("rk,rkc->rc", w, scene.uv[owner])
    for r in np.flatnonzero(seen & (scene.picture[owner] >= 0)):
        picture = scene.pictures[scene.picture[owner[r]]]
        height, width, _ = picture.shape
        column, row = np.floor(uv[r] * (width, height)).astype(int) % (width, height)
        color[r] *= picture[row, column]
    return np.where(seen, scene.semantic[owner], 0), color
