"""Kernels are compiled before they are called: once for all processes, with a line that says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from envs.core import kernels

ROOT = Path(__file__).parents[3]
PARTS = """
import os, time
from numba import njit

@njit(cache=True)
def double(x):
    return 2 * x

def count(name):
    with open("calls", "a") as file:
        file.write(name + " ")

def first():
    count("first")
    double(1)
    time.sleep(0.3)  # others come while this one compiles

def second():
    count("second")
    double(1.0)

def broken():
    raise ValueError("no kernel")

def builds_what_compiles_ahead():
    from envs.core.kernels import compile_ahead
    compile_ahead({"inner": "parts:first"})
    count("outer")
"""
CALL = "import sys; from envs.core.kernels import compile_ahead; compile_ahead({parts})"
BOTH = {"one": "parts:first", "two": "parts:second"}


@pytest.fixture
def start(tmp_path):
    """Start a process that compiles ahead, with a cache of its own."""
    (tmp_path / "parts.py").write_text(PARTS)
    env = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
    }

    def start(parts, **more):
        return subprocess.Popen(
            [sys.executable, "-c", CALL.format(parts=parts)],
            cwd=tmp_path,
            env={**env, **more},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def said(process):
    text = process.communicate(timeout=300)[1]
    assert process.returncode == 0, text
    return text


def test_processes_that_start_together_compile_once(start, tmp_path):
    texts = sorted(said(process) for process in [start(BOTH) for _ in range(3)])
    assert texts[:2] == ["", ""]
    assert texts[2].startswith("Compiling kernels for this machine, once: one, two ... ")
    assert texts[2].endswith(" s.\n")
    assert texts[2].count("\n") == 1
    assert sorted((tmp_path / "calls").read_text().split()) == ["first", "second"]
    assert list((tmp_path / "cache").rglob("*double*.nbc"))
    # All that is not there yet, and nothing else.
    assert "once: three ..." in said(start({**BOTH, "three": "parts:second"}))
    assert said(start(BOTH)) == ""


def test_what_deletes_the_cache_has_it_filled_again(start, tmp_path):
    assert said(start(BOTH))
    for file in (tmp_path / "cache").rglob("*.nb[ci]"):
        file.unlink()
    assert said(start(BOTH)).startswith("Compiling")


def test_a_part_that_fails_is_named_and_tried_again(start):
    parts = {"two": "parts:second", "three": "parts:broken"}
    for expected in ("two, three ...", "once: three ..."):
        text = said(start(parts))
        assert expected in text
        assert "Not three, which is compiled when it is first called: ValueError: no ker" in text


def test_a_part_may_build_what_compiles_ahead(start, tmp_path):
    said(start({"outer": "parts:builds_what_compiles_ahead"}))
    assert (tmp_path / "calls").read_text() == "outer "


def test_nothing_is_said_where_nothing_can_be_kept(start, tmp_path):
    (tmp_path / "cache").write_text("no directory")
    assert said(start(BOTH)) == ""
    assert said(start(BOTH, NUMBA_DISABLE_JIT="1", NUMBA_CACHE_DIR=str(tmp_path / "other"))) == ""
    assert not (tmp_path / "calls").exists()


def test_stamps_follow_what_kernels_are_made_of(monkeypatch):
    before = kernels.stamp_of("one", "parts:first")
    assert kernels.stamp_of("one", "parts:second") != before
    monkeypatch.setattr(kernels, "_sources_of_kernels", lambda: 1)
    assert kernels.stamp_of("one", "parts:first") != before
