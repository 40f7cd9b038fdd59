"""The images: linted, pinned, not root, and what starts in them is what the project has.

No test here builds one, which takes minutes and a network; `docs/DOCKER.md` says what was built by
hand.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path

import pytest
import yaml

from relic.evaluation.settings import parse
from relic.run.compose import compose_arguments

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
IMAGES = ("cpu", "cuda", "ray", "habitat")


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    beside_python = Path(sys.executable).parent / "hadolint"
    program = beside_python if beside_python.exists() else shutil.which("hadolint")
    assert program, "hadolint is missing: make setup installs it"
    return subprocess.run([program, path], capture_output=True, text=True)


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (instruction, its argument), continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = (line.split(None, 1) for line in joined.splitlines())
    return [(name, rest.strip()) for name, rest in pairs]


def stages(text: str, **arguments: str) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Return what each stage starts from and does; `arguments` are build arguments."""
    known: dict[str, str] = {}
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for name, rest in instructions(text):
        if name == "ARG" and not found:
            key, _, default = rest.partition("=")
            known[key] = arguments.get(key, default)
        elif name == "FROM":
            base, stage = re.sub(r"\$\{(\w+)\}", lambda m: known[m[1]], rest).split(" AS ")
            found[stage] = (base, [])
        else:
            found[list(found)[-1]][1].append((name, rest))
    return found


def lineage(found: dict, stage: str) -> list[str]:
    """Return the stages under one, it first, and the image from outside last."""
    line = [stage]
    while line[-1] in found:
        line.append(found[line[-1]][0])
    return line


def compose_file(name: str) -> dict:
    """Read a compose file with the defaults of its variables."""
    text = (DOCKER / name).read_text()
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


def test_hadolint_finds_nothing_to_complain_of():
    said = hadolint(DOCKERFILE)
    assert said.returncode == 0, said.stdout


def test_hadolint_does_complain_of_a_version_that_floats(tmp_path):
    loose = tmp_path / "Dockerfile"
    loose.write_text(DOCKERFILE.read_text().replace("python:${PYTHON}", "python:latest"))
    said = hadolint(loose)
    assert said.returncode != 0
    assert "DL3007" in said.stdout


@pytest.mark.parametrize(("image", "device"), list(product(IMAGES, ["cpu", "cuda"])))
def test_every_image_is_there_pinned_and_not_root(image, device):
    found = stages(DOCKERFILE.read_text(), IMAGE=image, DEVICE=device)
    line = lineage(found, "image")
    assert f"{image}-packages" in line
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", line[-1])
    users = [rest for name, rest in found["image"][1] if name == "USER"]
    assert users
    assert users[-1].isdecimal()  # a number, so that Kubernetes can see that it is not root
    assert int(users[-1]) > 0


def test_ray_and_habitat_stand_on_the_device_that_is_asked_for():
    for image, device in product(("ray", "habitat"), ("cpu", "cuda")):
        found = stages(DOCKERFILE.read_text(), IMAGE=image, DEVICE=device)
        assert f"{device}-packages" in lineage(found, "image")


def test_every_package_of_pip_has_one_version():
    for name, rest in instructions(DOCKERFILE.read_text()):
        for install in re.findall(r"pip (?:install|wheel) ([^&]*)", rest) if name == "RUN" else []:
            named = [w for w in install.split() if re.match(r'^"?[a-z][\w-]*[\[=]', w)]
            pinned = all("==" in word for word in named)
            bounded = "-c constraints.txt" in install or "--no-deps" in install
            assert pinned, install
            assert named or bounded, install


def test_the_simulator_has_an_environment_of_its_own():
    environment = yaml.safe_load((DOCKER / "habitat.yaml").read_text())
    assert "habitat-sim=0.3.3" in environment["dependencies"]
    found = stages(DOCKERFILE.read_text(), IMAGE="habitat")
    assert ("COPY", "--from=simulator /opt/habitat /opt/habitat") in found["habitat-packages"][1]


def test_requirements_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    command = [sys.executable, DOCKER / "requirements.py"]
    core = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    more = subprocess.check_output([*command, "cluster"], cwd=ROOT, text=True).splitlines()
    assert core == project["dependencies"]
    assert more == [*core, *project["optional-dependencies"]["cluster"]]
    wrong = subprocess.run([*command, "clusters"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode != 0
    assert "'clusters'" in wrong.stderr


def test_what_is_copied_is_not_ignored():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    assert {"relic", "envs", "configs", "train.py", "eval.py"} <= kept
    for name, rest in instructions(DOCKERFILE.read_text()):
        if name != "COPY" or rest.startswith("--from") or rest == ". .":
            continue
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source in kept or Path(source).parts[0] in kept, source


def test_the_compose_file_starts_what_the_project_has():
    whole = compose_file("compose.yaml")
    services = whole["services"]
    assert services.keys() == {"train", "evaluate", "tensorboard"}
    for service in services.values():
        assert f"{service['build']['args']['IMAGE']}" in IMAGES
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    program, script, *overrides = services["train"]["command"]
    assert (program, script) == ("python", "train.py")
    compose_arguments(overrides)
    cuda = compose_file("compose.cuda.yaml")["services"]
    for command in (services["evaluate"]["command"], cuda["evaluate"]["command"]):
        settings, _ = parse(command[2:])
        assert settings.run == ("/runs/first",)
        assert f"run_dir={settings.run[0]}" in overrides
    assert services["tensorboard"]["command"][0] == "tensorboard"
    assert "logging.tensorboard=true" in overrides


def test_the_volumes_are_places_that_the_user_may_write():
    made = re.search(r"install -d -o relic -g relic ([^&\n]*)", DOCKERFILE.read_text())
    assert made
    whole = compose_file("compose.yaml")
    mounts = dict(volume.split(":") for volume in whole["services"]["train"]["volumes"])
    assert set(mounts) == set(whole["volumes"])
    assert sorted(mounts.values()) == sorted(made[1].split())


def test_an_image_starts_with_the_doctor():
    ((_, command),) = [i for i in stages(DOCKERFILE.read_text())["image"][1] if i[0] == "CMD"]
    program, flag, module = yaml.safe_load(command)
    assert (program, flag) == ("python", "-m")
    assert importlib.util.find_spec(module)


def test_the_cluster_files_fit_the_project():
    job = yaml.safe_load((DOCKER / "ray_job.yaml").read_text())
    ray = job["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"ray=={ray}" in (ROOT / "constraints.txt").read_text().splitlines()
    script, *overrides = job["spec"]["entrypoint"].split()[1:]
    assert script == "/relic/train.py"
    compose_arguments(overrides)
    subprocess.run(["bash", "-n", DOCKER / "ray_slurm.sh"], check=True)
