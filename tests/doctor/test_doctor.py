"""The doctor in worlds that are broken for real: interpreters, folders, servers and drivers."""

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from relic.doctor.child import NoAnswer, ask
from relic.doctor.cli import PARTS, main
from relic.doctor.finding import ROOT, Finding, State, World
from relic.doctor.habitat import check_egl, check_simulator
from relic.doctor.machine import check_disk, check_kernels, check_shared_memory
from relic.doctor.packages import check_packages, check_requirement
from relic.doctor.services import check_ray, check_wandb
from relic.doctor.torch_checks import check_torch

DOCTOR = ROOT / "relic" / "doctor"


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


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def by_part(findings: list[Finding]) -> dict[str, Finding]:
    return {f.part: f for f in findings}


def in_environment(world: World, **variables: object) -> World:
    return replace(
        world, environment={**world.environment, **{k: str(v) for k, v in variables.items()}}
    )


def doctor(python: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
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


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_cluster_of_ray_that_does_not_answer(world):
    port = closed_port()
    finding = only(check_ray(in_environment(world, RAY_ADDRESS=f"127.0.0.1:{port}")))
    assert finding.state is State.BROKEN
    assert "Connection refused" in finding.found
    assert finding.repair
    assert f"ray start --head --port={port}" in finding.repair
    with socket.create_server(("127.0.0.1", port)):
        answering = only(check_ray(in_environment(world, RAY_ADDRESS=f"127.0.0.1:{port}")))
    assert answering.state is State.OK


def test_ray_that_does_not_start(world, tmp_path):
    (tmp_path / "ray.py").write_text("raise OSError('GLIBC_2.99 not found')")
    finding = only(check_ray(in_environment(world, PYTHONPATH=tmp_path)))
    assert finding.state is State.BROKEN
    assert "GLIBC_2.99 not found" in finding.found


class Refusing(BaseHTTPRequestHandler):
    """A server that is there, and knows nothing."""

    def do_GET(self):
        self.send_error(404)

    def log_message(self, format, *args):
        pass


def test_the_server_of_weights_and_biases(world):
    down = only(
        check_wandb(in_environment(world, WANDB_BASE_URL=f"http://127.0.0.1:{closed_port()}"))
    )
    assert down.state is State.LIMITED
    assert "Connection refused" in down.found
    assert down.repair
    assert "logging.wandb=offline" in down.repair
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    assert only(check_wandb(in_environment(world, WANDB_BASE_URL=url))).state is State.OK
    server.shutdown()


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
