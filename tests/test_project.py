"""What stands beside the code agrees with it: versions, workflows, extras."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import relic

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_there_is_one_version():
    assert PROJECT["dynamic"] == ["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == relic.__version__
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest
    assert newest[1] == relic.__version__


def test_console_commands_are_there():
    import relic.console

    for target in PROJECT["scripts"].values():
        module, _, function = target.partition(":")
        assert module == "relic.console"
        assert callable(getattr(relic.console, function))


def test_extras_are_known_where_they_are_named():
    named = set()
    for path in [ROOT / "Makefile", *ROOT.rglob("docs/*.md"), *ROOT.rglob("relic/**/*.py")]:
        for extras in re.findall(r"(?:-e '?\.|relic-rl)\[([\w,]+)\]", path.read_text()):
            named |= set(extras.split(","))
    for lines in PROJECT["optional-dependencies"].values():
        for line in lines:
            own = re.fullmatch(r"relic-rl\[([\w,]+)\]", line)
            named |= set(own[1].split(",")) if own else set()
    assert {"test", "dev", "logging", "cluster"} <= named
    assert named <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_the_project_has(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    asked = [s["run"] for job in workflow["jobs"].values() for s in job["steps"] if "run" in s]
    for command in "\n".join(asked).splitlines():
        program, *arguments = command.split()
        if program == "make":
            assert arguments[0] in targets
        elif program.startswith("relic-"):
            assert program in PROJECT["scripts"]
    for job in workflow["jobs"].values():
        tried = job.get("strategy", {}).get("matrix", {}).get("python", [])
        oldest = PROJECT["requires-python"].removeprefix(">=")
        assert not tried or tried[0] == oldest


def test_make_leaves_no_environment_of_a_python_that_is_too_old(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "old_python"
    program = "import sys; sys.version_info = (3, 10, 2); exec(sys.argv[2])"
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{program}' \"$@\"\n")
    old.chmod(0o755)
    command = ["make", ".venv/.core", f"PYTHON={old}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"ReLIC needs Python 3.11 or newer, {old} is 3.10." in done.stderr
    assert not (tmp_path / ".venv").exists()


IMPORTS_NOT = {
    "envs": ("relic",),
    "relic/policy": ("relic.ppo", "relic.run", "relic.evaluation", "relic.cluster"),
    "relic/ppo": ("relic.run", "relic.evaluation", "relic.cluster"),
    "relic/evaluation": ("relic.ppo", "relic.run", "relic.cluster"),
    "relic/run": ("relic.cluster",),
}
"""By folder, what nothing in it imports, inside functions neither: imports point one way."""


@pytest.mark.parametrize("folder", IMPORTS_NOT)
def test_imports_point_one_way(folder):
    found = []
    for path in ROOT.glob(f"{folder}/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            refused = IMPORTS_NOT[folder]
            found += [
                (path.name, n) for n in names if f"{n}.".startswith(tuple(f"{r}." for r in refused))
            ]
    assert found == []
