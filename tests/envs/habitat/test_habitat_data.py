"""What is read from disk for Habitat, and how what is missing or broken is named."""

import gzip
import json
import os
import stat
import sys

import numpy as np
import pytest

from envs.habitat.command import main
from envs.habitat.data import KNOWN, HabitatData, NavmeshMode
from envs.habitat.places import Place, ViewpointStore
from envs.habitat.scene_files import (
    DataError,
    damage,
    read_episodes,
    read_json,
    scene_name,
    write_episodes,
)
from tests.envs.habitat.habitat_tools import glb, make, write_dataset, write_json


@pytest.fixture
def root(tmp_path):
    write_dataset(tmp_path)
    return tmp_path


def data(root, **options):
    config, episodes = root / "tiny.scene_dataset_config.json", root / "episodes.json.gz"
    return HabitatData(config, episodes, cache=root / "cache", **options)


def test_arrangements_are_read_as_published(root):
    published = {
        "episodes": [
            {
                "episode_id": "7",
                "scene_id": "data/hssd-hab/scenes-uncluttered/102344193.scene_instance.json",
                "scene_dataset_config": "data/hssd-hab/hssd-hab.scene_dataset_config.json",
                "additional_obj_config_paths": ["data/objects/ycb/configs/"],
                "start_position": [0, 0, 0],
                "start_rotation": [0, 0, 0, 1],
                "info": {"object_labels": {}},
                "ao_states": {"fridge_:0000": {"1": 0.5}},
                "rigid_objs": [
                    ["024_bowl.object_config.json", np.eye(4).tolist()],
                    ["030_fork.object_config.json", np.eye(4).tolist()],
                ],
                "targets": {"024_bowl_:0000": np.eye(4).tolist()},
                "markers": [],
                "name_to_receptacle": {"024_bowl_:0000": "table_:0000|receptacle_mesh"},
            }
        ]
    }
    path = root / "published.json.gz"
    path.write_bytes(gzip.compress(json.dumps(published).encode()))
    (arrangement,) = read_episodes(path)
    assert arrangement.scene == "102344193"
    assert [o.category for o in arrangement.objects] == [17, -1]
    assert arrangement.config_paths == ("data/objects/ycb/configs/",)
    assert arrangement.joints == (("fridge_:0000", (("1", 0.5),)),)
    write_episodes(root / "again.json.gz", [arrangement], {})
    assert read_episodes(root / "again.json.gz") == [arrangement]
    assert scene_name("v3_sc1_staging_00") == "v3_sc1_staging_00"


def test_names_change_with_what_stands_where(root):
    name = data(root).name
    assert name == data(root).name
    arrangements = read_episodes(root / "episodes.json.gz")
    write_episodes(root / "episodes.json.gz", arrangements[:2], {})
    assert data(root).name != name


def test_splits_share_trials_by_scene(root):
    arrangements = read_episodes(root / "episodes.json.gz")
    write_episodes(root / "one.json.gz", arrangements[:1], {})
    one, all_three = make(root, episodes=root / "one.json.gz"), make(root)
    assert all_three.shared_trials(one, range(3)) == [0, 1]  # both are in the east
    assert one.shared_trials(all_three, range(2)) == [0, 1]
    one.close()
    all_three.close()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-4])


def pointer(path):
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("objects/024_bowl.glb", os.remove, r"024_bowl\.glb is missing"),
        ("objects/024_bowl.glb", truncate, r"024_bowl\.glb is incomplete: 28 of 32 bytes"),
        ("stages/east.glb", pointer, r"east\.glb is a Git LFS pointer"),
        ("stages/east.glb", lambda p: p.write_bytes(b""), r"east\.glb is empty"),
        ("stages/east.glb", lambda p: p.write_bytes(b"no"), r"east\.glb is no binary glTF"),
        ("stages/east.stage_config.json", os.remove, "east is missing: no configuration"),
        ("objects/013_apple.object_config.json", truncate, r"013_apple.* is no JSON file"),
        ("scenes/west.scene_instance.json", os.remove, "no scene 'west'.*east"),
        ("navmeshes/west.navmesh", os.remove, "scene west has no navmesh.*navmesh='compute'"),
        ("episodes.json.gz", truncate, r"episodes\.json\.gz is no complete gzip file"),
        (
            "episodes.json.gz",
            os.remove,
            r"but .*episodes\.json\.gz is missing.*envs\.habitat check",
        ),
        ("episodes.json.gz", pointer, r"episodes\.json\.gz is a Git LFS pointer"),
        ("tiny.scene_dataset_config.json", os.remove, "tiny.* is missing"),
    ],
)
def test_what_is_missing_or_broken_is_named(root, file, change, message):
    change(root / file)
    with pytest.raises(DataError, match=message):
        data(root)


def test_formats_that_do_not_fit_are_named(root):
    path = root / "episodes.json.gz"
    for content, message in [
        ({}, "must hold a list of episodes"),
        ({"episodes": []}, "must hold a list of episodes"),
        (
            {"episodes": [{"scene_id": "east"}]},
            "episode 0 is not of the rearrangement format.*rigid",
        ),
        ({"episodes": [{"scene_id": "east", "rigid_objs": [["a", [[1.0]]]]}]}, "4 x 4 matrix"),
    ]:
        path.write_bytes(gzip.compress(json.dumps(content).encode()))
        with pytest.raises(DataError, match=message):
            data(root)


def test_many_problems_are_counted_and_the_list_is_offered(root, capsys):
    for file in (root / "objects").glob("*.glb"):
        file.unlink()
    for file in (root / "navmeshes").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"and 1 more.*python -m envs\.habitat check"):
        data(root)
    command = [
        "check",
        str(root / "tiny.scene_dataset_config.json"),
        str(root / "episodes.json.gz"),
    ]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "3 arrangements of 2 scenes, 6 problems" in said
    assert said.count(".glb is missing") == 4
    assert main([*command, "--navmesh", "compute", "--cache", str(root / "cache")]) == 1
    assert "4 problems" in capsys.readouterr().out
    for name in ("024_bowl", "013_apple", "025_mug", "900_clutter"):
        glb(root / "objects" / f"{name}.glb")
    assert main([*command, "--navmesh", "compute"]) == 0


def test_the_papers_data_sets_are_listed_with_how_to_get_them(tmp_path, capsys):
    assert main(["check", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    for item in KNOWN:
        assert f"{item.name}: {tmp_path / item.path} is missing" in said
        assert item.how in said
    for item in KNOWN:
        path = tmp_path / item.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if not path.suffix else path.write_text("{}")
    (tmp_path / "data/objects/ycb/configs/024_bowl.object_config.json").write_text("{}")
    assert main(["check", "--folder", str(tmp_path)]) == 0
    assert main(["check", "nowhere.json"]) == 2
    assert "file of episodes" in capsys.readouterr().err


def test_objects_are_found_where_published_files_say(root, tmp_path_factory, monkeypatch):
    """Published files name directories from the folder that holds `data`."""
    (arrangement, *_) = read_episodes(root / "episodes.json.gz")
    ycb = root / "data" / "objects" / "ycb" / "configs"
    ycb.mkdir(parents=True)
    for name in ("024_bowl", "013_apple", "900_clutter"):
        for ending in (".glb", ".object_config.json"):
            os.rename(root / "objects" / f"{name}{ending}", ycb / f"{name}{ending}")
    path = root / "moved.json.gz"
    named = {"config_paths": ("data/objects/ycb/configs/",)}
    moved = [type(arrangement)(arrangement.scene, arrangement.objects, **named)]
    write_episodes(path, moved, {})
    opened = HabitatData(root / "tiny.scene_dataset_config.json", path, cache=root / "cache")
    assert opened.open(0).config_paths == (ycb,)
    write_episodes(path, [arrangement], {})
    with pytest.raises(DataError, match="024_bowl is missing: no configuration"):
        HabitatData(root / "tiny.scene_dataset_config.json", path, cache=root / "cache")
    elsewhere = HabitatData(
        root / "tiny.scene_dataset_config.json", path, objects=[ycb], cache=root / "cache"
    )
    assert elsewhere.open(0).config_paths == (ycb,)


def test_navmeshes_come_with_scenes_or_are_named_after_what_they_depend_on(root):
    assert data(root).open(0).navmesh == root / "navmeshes" / "east.navmesh"
    computed = data(root, navmesh=NavmeshMode.COMPUTE).open(0).navmesh
    assert computed.parent == root / "cache"
    assert computed == data(root, navmesh=NavmeshMode.COMPUTE).open(1).navmesh
    wider = data(root, navmesh=NavmeshMode.COMPUTE, agent_radius=0.3)
    assert wider.open(0).navmesh != computed
    write_json(root / "navmesh_settings.json", {"cellSize": 0.05})
    assert data(root, navmesh=NavmeshMode.COMPUTE).open(0).navmesh != computed


def test_damage_of_whole_files(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"a": 1}')
    assert damage(file) is None
    assert read_json(file) == {"a": 1}
    if os.geteuid():  # root may read everything
        file.chmod(stat.S_IWUSR)
        assert damage(file) == "cannot be read (Permission denied)"
    assert damage(tmp_path) is not None


def test_viewpoints_on_disk(tmp_path):
    store = ViewpointStore(tmp_path / "new")
    assert store.load("a", 2) is None
    points = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 3), np.float32)]
    store.save("a", points)
    back = store.load("a", 2)
    assert back is not None
    assert all(np.array_equal(x, y) for x, y in zip(points, back, strict=True))
    assert store.load("a", 3) is None
    assert [p.name for p in store.directory.iterdir()] == ["a.npz"]


def test_starts_are_uniform_over_free_space():
    """Two triangles of areas 0.5 and 1.5, the larger one higher."""
    triangles = np.array(
        [[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[2, 0, 1], [5, 0, 1], [2, 1, 1]]], np.float32
    )
    place = Place(triangles, np.zeros((0, 3)), [], {})
    rng = np.random.default_rng(0)
    drawn = np.array([place.random_position(rng) for _ in range(4000)])
    high = drawn[:, 2] > 0.5
    assert place.area == pytest.approx(2.0)
    assert high.mean() == pytest.approx(0.75, abs=0.03)  # 4 standard errors
    assert drawn[~high].mean(axis=0)[:2] == pytest.approx([1 / 3, 1 / 3], abs=0.03)
    assert drawn[high].mean(axis=0)[:2] == pytest.approx([3.0, 1 / 3], abs=0.06)


def test_arranging_is_refused_without_goal_objects(root, capsys):
    out = root / "own.json.gz"
    command = ["arrange", str(root / "tiny.scene_dataset_config.json"), str(out)]
    assert main([*command, "--python", sys.executable]) == 2
    assert "002_master_chef_can" in capsys.readouterr().err
    assert main([*command, "--scenes", "north"]) == 2
    assert not out.exists()
