"""Worlds for the doctor to look at."""

import os
import subprocess
import sys

import pytest

from relic.doctor.check import World


@pytest.fixture
def world(tmp_path):
    return World(run_dir=tmp_path / "runs", environment=dict(os.environ))


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """An interpreter of the right version with no package at all."""
    home = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    return str(home / "bin" / "python")


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 256 KiB, which a mebibyte does not fit."""
    place = tmp_path / "full"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", place], check=True)
