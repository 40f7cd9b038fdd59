"""Memory, disk and caches that are full, small, absent or old."""

import os
import subprocess
from dataclasses import replace

from relic.doctor.check import State
from relic.doctor.machine import check_disk, check_kernels, check_shared_memory

from .tools import in_environment, only


def test_shared_memory_that_is_absent_or_full(world, tmp_path, full_disk):
    absent = only(check_shared_memory(replace(world, shared=tmp_path / "none")))
    assert absent.state is State.ABSENT
    full = only(check_shared_memory(replace(world, shared=full_disk)))
    assert full.state is State.BROKEN
    assert "No space left on device" in full.found
    assert "0 MiB" in full.found
    assert full.repair
    assert "2g" in full.repair.lower()


def test_shared_memory_of_the_size_that_docker_gives(world, full_disk):
    subprocess.run(["mount", "-o", "remount,size=64m", full_disk], check=True)
    finding = only(check_shared_memory(replace(world, shared=full_disk)))
    assert finding.state is State.LIMITED
    assert "64 MiB of 64 MiB free" in finding.found


def test_a_disk_that_is_full(world, full_disk):
    finding = only(check_disk(replace(world, run_dir=full_disk / "runs")))
    assert finding.state is State.BROKEN
    assert "No space left on device" in finding.found
    assert finding.repair
    assert "run_dir=" in finding.repair


def test_a_disk_with_little_room(world, full_disk):
    subprocess.run(["mount", "-o", "remount,size=64m", full_disk], check=True)
    finding = only(check_disk(replace(world, run_dir=full_disk)))
    assert finding.state is State.LIMITED
    assert "need 5.0 GiB" in finding.found


def test_a_file_where_runs_should_be(world, tmp_path):
    (tmp_path / "runs").write_text("")
    finding = only(check_disk(world))
    assert finding.state is State.BROKEN
    assert "runs is a file" in finding.found


def test_a_cache_of_kernels_that_cannot_be_kept(world, tmp_path):
    (tmp_path / "file").write_text("")
    finding = only(
        check_kernels(in_environment(world, NUMBA_CACHE_DIR=tmp_path / "file" / "cache"))
    )
    assert finding.state is State.LIMITED
    assert "is a file" in finding.found
    assert finding.repair
    assert "NUMBA_CACHE_DIR=" in finding.repair


def test_kernels_that_are_older_than_their_source(world, tmp_path):
    source = tmp_path / "envs" / "kernel.py"
    cache = tmp_path / "envs" / "__pycache__"
    cache.mkdir(parents=True)
    source.write_text("from numba import njit\n")
    compiled = cache / "kernel.f-1.py311.nbi"
    here = replace(world, source=tmp_path)
    assert only(check_kernels(here)).found.startswith("none compiled yet")
    compiled.write_bytes(b"")
    os.utime(source, (1000, 1000))
    assert only(check_kernels(here)).state is State.OK
    os.utime(compiled, (500, 500))
    finding = only(check_kernels(here))
    assert finding.state is State.LIMITED
    assert "envs/kernel.py" in finding.found
    assert finding.repair
    subprocess.run(finding.repair, shell=True, check=True)  # what it says does repair it
    assert only(check_kernels(here)).state is State.OK
    assert not compiled.exists()


def test_what_an_installed_package_lacks_is_installed_by_its_own_name(world, tmp_path):
    extra = replace(world, source=tmp_path).pip_project("logging")
    assert "tensorboard" in extra
    assert "wandb" in extra
    assert not {"-e", "-c"} & set(extra.split())  # there is no checkout to install or read
    core = replace(world, source=tmp_path).pip_project()
    assert "torch" in core
    assert "wandb" not in core
    checkout = world.pip_project("logging")
    assert checkout.endswith(f"-e '{world.source}[logging]'")
