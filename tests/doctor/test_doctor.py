"""The doctor in worlds that are broken for real: interpreters, packages and what is asked of it."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from relic.doctor import torch_checks
from relic.doctor.check import NoAnswer, State, ask
from relic.doctor.cli import PARTS, main
from relic.doctor.machine import check_packages, check_requirement
from relic.doctor.torch_checks import check_torch
from relic.files import PROJECT

from .tools import by_part, in_environment, only

DOCTOR = PROJECT / "relic" / "doctor"


def doctor(python: str, *arguments: str, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "relic.doctor", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_here_everything_that_a_run_needs_works(tmp_path):
    said = doctor(sys.executable, "--json", "--run-dir", str(tmp_path / "runs"))
    answer = json.loads(said.stdout)
    assert said.returncode == 0, said.stdout
    assert answer["sound"]
    assert answer["failed"] == []
    found = {part["part"]: part for part in answer["parts"]}
    assert list(found) == list(PARTS)
    assert all(part["found"] for part in answer["parts"])
    for name in ("python", "packages", "torch", "attention", "disk"):
        assert found[name]["state"] == "ok", found[name]
    for backend in ("reference", "sdpa", "auto"):
        assert backend in found["attention"]["found"]
    # What does not work says what to do, but for hardware that is not there.
    silent = {p["part"] for p in answer["parts"] if p["state"] != "ok" and not p["repair"]}
    assert silent <= {"cuda", "flash-attn"}


def copy_doctor(folder: Path) -> None:
    (folder / "relic").mkdir()
    (folder / "relic" / "__init__.py").write_text("")
    shutil.copytree(DOCTOR, folder / "relic" / "doctor")
    # Of the standard library alone, as all that the doctor imports.
    for name in ("console.py", "extras.py", "files.py", "schema.py", "shipped.py", "stops.py"):
        shutil.copy(DOCTOR.parent / name, folder / "relic")


def test_an_interpreter_without_packages_is_diagnosed_and_not_a_traceback(bare_python, tmp_path):
    copy_doctor(tmp_path)
    said = doctor(bare_python, cwd=tmp_path)
    assert said.returncode == 1
    assert "Traceback" not in said.stderr
    assert f"BROKEN   packages       the project is not installed for {bare_python}" in said.stdout
    assert (
        f"{bare_python} -m pip install -c {tmp_path}/constraints.txt -e {tmp_path}" in said.stdout
    )
    assert "No module named 'torch'" in said.stdout
    assert "required: packages, torch, attention." in said.stdout


def test_packages_that_are_missing_are_named_one_by_one(bare_python, tmp_path):
    copy_doctor(tmp_path)
    (tmp_path / "relic_rl-1.dist-info").mkdir()
    asked = ["numpy>=2.0", "torch>=2", 'ray; extra == "cluster"']
    lines = ["Metadata-Version: 2.1", "Name: relic-rl", "Version: 1"]
    text = "\n".join(lines + [f"Requires-Dist: {line}" for line in asked])
    (tmp_path / "relic_rl-1.dist-info" / "METADATA").write_text(text)
    said = doctor(bare_python, cwd=tmp_path)
    assert "BROKEN   packages       numpy is missing; torch is missing\n" in said.stdout


def test_the_doctor_itself_can_be_read_by_an_old_python():
    for path in DOCTOR.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("version", ["3.9", "3.10"])
def test_an_old_python_is_named_with_its_remedy(version, tmp_path):
    found = [shutil.which(f"python{version}")]
    found += map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    python = next((p for p in reversed(found) if p and "shims" not in p), None)
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    said = doctor(python, "--run-dir", str(tmp_path))
    assert said.returncode == 1
    assert f"BROKEN   python         {version}." in said.stdout
    assert "needs 3.11 or newer" in said.stdout
    assert "make setup PYTHON=python3.11" in said.stdout


def test_a_package_that_is_missing_or_too_old_is_named(world):
    assert check_packages(world)[0].state is State.OK
    assert check_requirement("no-such-package-here>=1") == "no-such-package-here is missing"
    complaint = check_requirement("numpy>=1000")
    assert complaint
    assert complaint.startswith("numpy ")
    assert complaint.endswith("not >=1000")


def test_torch_that_cannot_be_imported_is_broken(world, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: no such file')")
    finding = only(check_torch(in_environment(world, PYTHONPATH=tmp_path)))
    assert finding.state is State.BROKEN
    assert "libtorch_cpu.so: no such file" in finding.found
    assert finding.repair
    assert finding.repair.endswith("install --force-reinstall torch")


def test_a_machine_that_is_too_busy_to_answer_is_no_fault_of_torch(world, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(torch_checks, "_TIMEOUT_S", 0.5)
    finding = only(check_torch(in_environment(world, PYTHONPATH=tmp_path)))
    assert (finding.state, finding.works) == (State.UNKNOWN, False)
    assert finding.found == "no answer within 0.5 s"
    assert "install" not in str(finding.repair)


def test_a_backend_that_cannot_run_is_named_and_the_others_go_on(world, tmp_path):
    # Numba's own compiler is what the project's kernels need.
    (tmp_path / "llvmlite").mkdir()
    (tmp_path / "llvmlite" / "__init__.py").write_text("raise ImportError('llvmlite is damaged')")
    found = by_part(check_torch(in_environment(world, PYTHONPATH=tmp_path)))
    attention = found["attention"]
    assert found["torch"].state is State.OK
    assert "llvmlite is damaged" in attention.found
    assert "sdpa" in attention.found
    if "on cpu" in attention.found:  # there, auto is the project's own kernels
        assert attention.state is State.BROKEN


def test_a_process_that_crashes_hangs_or_babbles(tmp_path):
    def say(code: str, timeout: float = 10.0) -> None:
        ask(sys.executable, ["-c", code], timeout=timeout, environment=os.environ, cwd=tmp_path)

    with pytest.raises(NoAnswer, match="killed by signal 6"):
        say("import os; os.abort()")
    with pytest.raises(NoAnswer, match=r"no answer within 0.5 s"):
        say("import time; time.sleep(60)", timeout=0.5)
    with pytest.raises(NoAnswer, match="not an answer: hello"):
        say("print('hello')")
    with pytest.raises(NoAnswer, match="ValueError: the reason"):
        say("raise ValueError('the reason')")


def test_what_is_required_decides_on_the_exit_status(bare_python, tmp_path):
    copy_doctor(tmp_path)
    (tmp_path / "file").write_text("")
    arguments = ["--json", "--run-dir", str(tmp_path / "file"), "--require", "ray", "kernels"]
    said = doctor(bare_python, *arguments, cwd=tmp_path)
    answer = json.loads(said.stdout)
    assert said.returncode == 1
    assert not answer["sound"]
    assert answer["failed"] == ["packages", "disk", "torch", "ray", "attention"]
    states = {part["part"]: part["state"] for part in answer["parts"]}
    assert states["wandb"] == "absent"  # nothing requires it
    assert states["disk"] == "broken"


def test_a_part_of_another_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--require", "cdua"])
    assert "unknown part 'cdua'. Did you mean 'cuda'?" in capsys.readouterr().err
