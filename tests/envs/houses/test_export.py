import json
import math

import numpy as np
import pytest

from envs.houses.export.command import main
from envs.houses.export.meshes import to_habitat_frame
from envs.houses.export.scene_dataset import export_houses
from envs.houses.furniture.catalogue import FURNITURE_CATEGORIES
from envs.houses.generation.arrangement import arrange
from envs.houses.generation.generator import generate_house
from envs.houses.navigation.grid import build_grid
from envs.houses.scene import Semantic
from envs.houses.textures.atlas import atlas
from envs.objectnav.goals import GOAL_SEMANTIC, YCB_NAMES, goal_of_asset
from tests.envs.houses.glb_scene import (
    find,
    look,
    pose_of,
    read_episodes,
    read_glb,
    scene_triangles,
)
from tests.envs.houses.reference_renderer import rays, render

SEED = 31


@pytest.fixture(scope="module")
def house():
    return generate_house(SEED, "small")


@pytest.fixture(scope="module")
def scene(house):
    return arrange(house, 1)


@pytest.fixture(scope="module")
def root(house, tmp_path_factory):
    return export_houses([house], tmp_path_factory.mktemp("dataset"), arrangements=(0, 1)).parent


@pytest.fixture(scope="module")
def triangles(root):
    return scene_triangles(root, read_episodes(root)[1])


def _seen(triangles, pose, size, hfov):
    """Look from an agent's pose, by what the docs say about frames."""
    eye, ray = rays(pose, size, size, hfov)
    axes = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    return look(triangles, axes @ eye, ray @ axes.T)


def test_depth_and_semantics_agree_with_the_reference_renderer(scene, triangles):
    rng = np.random.default_rng(0)
    nodes = build_grid(scene).free_nodes()
    wrong = seen = 0
    for pitch in (0.0, -0.6, 0.5):
        x, y = nodes[rng.integers(len(nodes))]
        pose = (x, y, rng.uniform(-math.pi, math.pi), pitch)
        depth, semantic, _ = _seen(triangles, pose, 32, math.radians(90))
        picture = render(scene, pose, width=32, height=32, hfov=math.radians(90), atlas=atlas())
        same = semantic == picture.semantic.ravel()
        gap = np.abs(depth - picture.depth.ravel())
        flat = same & np.isin(semantic, [Semantic.WALL, Semantic.FLOOR, Semantic.CEILING])
        assert flat.sum() > 300
        assert np.quantile(gap[flat], 0.99) < 1e-4
        wrong += (~same | (gap > 0.01)).sum()
        seen += same.size
    # Outlines of round things differ, as theirs are polygons here.
    assert wrong / seen < 0.005


def _views(scene):
    """Yield poses that look closely at objects, at the fronts of furniture, and at walls."""
    nodes = build_grid(scene).free_nodes()
    for target in (0, 5, 9, 14):
        item = scene.objects[target]
        away = np.hypot(nodes[:, 0] - item.x, nodes[:, 1] - item.y)
        x, y = nodes[np.abs(away - 1.2).argmin()]
        pitch = math.atan2(item.z - 1.2, math.hypot(item.x - x, item.y - y))
        yield x, y, math.atan2(item.y - y, item.x - x) + 0.03, pitch
    solids = scene.primitives
    for piece in scene.house.furniture:
        if FURNITURE_CATEGORIES[piece.category] in ("window", "picture", "clock", "wardrobe"):
            ahead = np.array([-math.sin(piece.yaw), math.cos(piece.yaw)])
            x, y = np.array([piece.x, piece.y]) + 1.4 * ahead
            pitch = math.atan(float(solids.center_P3[piece.start, 2]) - 1.2)
            yield x, y, math.atan2(-ahead[1], -ahead[0]) + 0.08, pitch
    for room in scene.house.rooms:
        for quarter in range(4):
            yield (room.x0 + room.x1) / 2, (room.y0 + room.y1) / 2, quarter * math.pi / 2, 0.25


def test_colours_and_patterns_agree_with_the_reference_renderer(scene, triangles):
    """In narrow views, where the embedded renderer does not fade patterns yet."""
    size, hfov, checked = 20, 0.06, 0
    for pose in _views(scene):
        _, semantic, color = _seen(triangles, pose, size, hfov)
        picture = render(scene, pose, width=size, height=size, hfov=hfov, atlas=atlas())
        sure = (picture.margin.ravel() > 0.15) & (semantic == picture.semantic.ravel())
        gap = np.abs(255 * color - picture.rgb.reshape(-1, 3)).max(1)
        assert (gap[sure] > 6).mean() < 0.05, pose
        checked += sure.sum()
    assert checked > 5000


def test_the_frame_is_a_rotation_that_keeps_headings():
    axes = to_habitat_frame(np.eye(3))
    assert np.linalg.det(axes) == pytest.approx(1.0)
    np.testing.assert_array_equal(axes @ axes.T, np.eye(3))
    for heading in (0.0, 0.7, -2.0):
        yaw = heading - math.pi / 2
        turn = pose_of([0, 0, 0], [math.cos(yaw / 2), 0, math.sin(yaw / 2), 0])[:3, :3]
        ours = np.array([math.cos(heading), math.sin(heading), 0.0])
        np.testing.assert_allclose(turn @ [0, 0, -1], to_habitat_frame(ours), atol=1e-12)


def test_objects_stand_on_the_receptacles_that_the_episode_names(root, scene):
    episode = read_episodes(root)[1]
    instances = json.loads((root / episode["scene_id"]).read_text())["object_instances"]
    assert len(episode["rigid_objs"]) == len(scene.objects) == len(episode["name_to_receptacle"])
    for (asset, pose), item in zip(episode["rigid_objs"], scene.objects, strict=True):
        assert goal_of_asset(asset) == item.category
        where = episode["name_to_receptacle"][f"{asset.split('.')[0]}_:0000"]
        parent, receptacle = where.split("|")
        template = parent.removesuffix("_:0000")
        [entry] = [e for e in instances if e["template_name"].endswith(f"/{template}")]
        config = json.loads(find(root, template, "object_config").read_text())
        surface = config["user_defined"][receptacle]
        matrix = np.linalg.inv(pose_of(entry["translation"], entry["rotation"]))
        local = (matrix @ np.array(pose))[:3, 3] - np.array(surface["position"])
        assert local[1] == pytest.approx(item.half_height, abs=2e-3)
        slack = np.array(surface["scale"])[[0, 2]] - np.abs(local[[0, 2]])
        assert (slack > -0.03).all(), (asset, slack)  # objects may stick out by 3 cm
        own = json.loads(find(root, asset.split(".")[0], "object_config").read_text())
        assert own["semantic_id"] == GOAL_SEMANTIC + item.category


def test_the_same_house_gives_the_same_files(root, house, tmp_path):
    again = export_houses([house], tmp_path, arrangements=(0, 1)).parent
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((root / f).read_bytes() == (again / f).read_bytes() for f in files)


def test_names_are_not_parts_of_one_another(root):
    names = [p.name.split(".")[0] for p in root.rglob("*.object_config.json")]
    for name in names:
        assert [other for other in names if name in other] == [name]


def test_ycb_names():
    assert [goal_of_asset(f"a/b/{n}_:0003") for n in YCB_NAMES] == list(range(20))
    assert goal_of_asset("024_bowls.object_config.json") is None
    assert goal_of_asset("small_3_house_012_sofa") is None


def test_the_command(tmp_path, capsys):
    out = tmp_path / "dataset"
    wanted = ["--size", "small", "--seed", "4", "7", "--arrangements", "0", str(out)]
    assert main(wanted) == 0
    assert "2 houses" in capsys.readouterr().out
    assert read_episodes(out) == []
    document, _, _ = read_glb(out / "stages" / "small_7_house.glb")
    assert document["asset"]["version"] == "2.0"
    assert main(wanted) == 2
    assert "must not hold a dataset yet" in capsys.readouterr().err
    assert main(["--count", "0", str(tmp_path / "none")]) == 2
    assert "--count must be at least 1" in capsys.readouterr().err
    assert main(["--first", "999", "--count", "2", str(tmp_path / "none")]) == 2
    assert "index must lie in [0, 1000)" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
