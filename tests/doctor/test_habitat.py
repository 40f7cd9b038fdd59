"""A simulator, drivers and scenes that are absent or damaged."""

import gzip
import json
from dataclasses import replace

from envs.habitat.data import KNOWN
from relic.doctor.check import State
from relic.doctor.habitat import check_data, check_egl, check_simulator

from .tools import in_environment, only


def test_a_simulator_interpreter_that_is_not_there(world):
    finding = only(check_simulator(replace(world, habitat_python="/no/such/python")))
    assert finding.state is State.BROKEN
    assert "/no/such/python" in finding.found
    assert finding.repair
    assert "docker/habitat.yaml" in finding.repair


def test_a_simulator_interpreter_without_the_simulator(world, bare_python):
    finding = only(check_simulator(replace(world, habitat_python=bare_python)))
    assert finding.state is State.BROKEN
    assert bare_python in finding.found
    assert "No module named 'numpy'" in finding.found


def test_no_simulator_is_no_fault_until_it_is_asked_for(world):
    finding = only(check_simulator(world))
    assert finding.state is State.ABSENT
    assert finding.repair
    assert "--habitat-python" in finding.repair


def test_an_egl_library_that_is_damaged(world, tmp_path):
    (tmp_path / "libEGL.so.1").write_text("not a library")
    finding = only(check_egl(in_environment(world, LD_LIBRARY_PATH=tmp_path)))
    assert finding.state is State.ABSENT
    assert "libEGL.so.1" in finding.found
    assert finding.repair
    assert "libegl1" in finding.repair


def test_no_driver_of_egl(world, tmp_path):
    variables = {"__EGL_VENDOR_LIBRARY_DIRS": tmp_path, "__EGL_EXTERNAL_PLATFORM_CONFIG_DIRS": ""}
    finding = only(check_egl(in_environment(world, **variables)))
    assert finding.state is State.ABSENT
    assert "no device" in finding.found


def test_scenes_that_are_absent_damaged_or_whole(world, tmp_path):
    here = replace(world, data=tmp_path)
    absent = only(check_data(here))
    assert absent.state is State.ABSENT
    assert absent.repair
    assert f"envs.habitat check --folder {tmp_path}" in absent.repair
    for item in KNOWN:
        path = tmp_path / item.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            path.write_text(json.dumps({"stages": {}}))
        elif path.suffix == ".gz":
            path.write_bytes(gzip.compress(b'{"episodes": []}'))
        else:
            path.mkdir()
            (path / "mug.object_config.json").write_text("{}")
    assert only(check_data(here)).state is State.OK
    pointer = tmp_path / KNOWN[0].path
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    damaged = only(check_data(here))
    assert damaged.state is State.LIMITED
    assert f"{KNOWN[0].name} is a Git LFS pointer" in damaged.found
    assert KNOWN[1].name not in damaged.found
    assert damaged.repair == KNOWN[0].how
