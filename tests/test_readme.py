"""README.md as a reader tries it: its Python runs in order, its commands name what there is."""

import re
import shlex
import subprocess
import sys

import pytest

from relic.files import PROJECT

PAGE = (PROJECT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands(script):
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    parts = (shlex.split(line, comments=True) for line in lines if script in line)
    return [words[words.index(script) + 1 :] for words in parts if script in words]


@pytest.mark.slow
def test_python_blocks_run_in_order(monkeypatch):
    monkeypatch.chdir(PROJECT)
    found = blocks("python")
    assert len(found) == 2
    space = {}
    for code in found:
        exec(compile(code, "README.md", "exec"), space)
    assert space["starts"].shape == (4,)
    assert space["result"].counts == (0, 1, 2, 5)


@pytest.mark.parametrize("keys", commands("train.py"), ids=" ".join)
def test_training_commands_are_accepted(keys):
    told = keys if "--help" in keys else [*keys, "--cfg", "job"]
    told = [key for key in told if key != "-m" and not key.startswith("seed=")]
    done = subprocess.run(
        [sys.executable, "train.py", *told], cwd=PROJECT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout
