"""The package is built, and works in an empty folder, without a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import relic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # it compiles all kernels anew
ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "experiment=houses_small",
    "run_dir=runs/first",
    "ranks=1",
    "total_steps=1024",
    "rollout.num_envs=8",
    "rollout.num_steps=64",
    "updates.per_rollout=2",
    "ppo.num_minibatches=2",
    "ppo.update_epochs=1",
    "env.options.task.max_episode_steps=16",
    "validation.trials=4",
    "validation.episodes=2",
    "validation.score_from_episode=0",
]
ENVIRONMENT = '''
"""A module of a user's own, beside folders that have the names of ours."""

from envs.darkroom import DarkroomVectorEnv


def make(num_envs, **options):
    return DarkroomVectorEnv(num_envs, **options)
'''
LOAD = """
import pathlib, relic, relic.policy
print(pathlib.Path(relic.__file__).parent)
policy = relic.policy.load("pretrained/darkroom")
env = policy.make_env(2)
observation, _ = env.reset(seed=0)
step = policy.step(observation, policy.initial_state(2, capacity=4))
print(len(step.action))
"""


def called(command: list[str | Path], folder: Path) -> str:
    """Return what a command printed, which must end well; it finds nothing of this checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, ROOT], cwd=folder, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Return the folder of commands of an environment that has the wheel, and our packages."""
    venv = tmp_path_factory.mktemp("venv")
    called([sys.executable, "-m", "venv", "--without-pip", venv], venv)
    (packages,) = venv.glob("lib/python*/site-packages")
    # A plain folder of packages: a checkout that is installed there for editing is none of them.
    (packages / "shared.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    options = ["--quiet", "--no-deps", "--no-index", wheel]
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python"]
    called([*pip, "install", *options], venv)
    return venv / "bin"


def test_a_wheel_holds_what_ships_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wheel.name.startswith(f"relic_rl-{relic.__version__}-")
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"envs", "relic", f"relic_rl-{relic.__version__}.dist-info"}
    assert {"relic/py.typed", "envs/py.typed"} <= names
    shipped = {
        f"relic/{path.relative_to(ROOT)}"
        for folder in ("configs", "pretrained")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "evaluations" not in path.parts
    }
    assert shipped == {n for n in names if n.startswith(("relic/configs/", "relic/pretrained/"))}
    assert wheel.stat().st_size < 10e6


def test_a_wheel_trains_and_evaluates_in_an_empty_folder(installed, tmp_path):
    for name in ("envs", "configs", "relic_runs"):  # as many a project of one's own has
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    (tmp_path / "my_env.py").write_text(ENVIRONMENT)
    assert "experiment=" in called([installed / "relic-train", "--help"], tmp_path)
    called([installed / "relic-train", *SMALL], tmp_path)
    run = tmp_path / "runs" / "first"
    assert (run / "checkpoints" / "latest.json").is_file()
    short = ["trials=4", "episodes=2", "workers=1", "controls=[]"]
    called([installed / "relic-eval", "run=runs/first", *short], tmp_path)
    assert list(run.glob("evaluations/*/*/report.html"))
    called([installed / "relic-eval", "run=pretrained/darkroom", *short], tmp_path)
    assert list(tmp_path.glob("pretrained/darkroom/evaluations/*/*/report.html"))
    own = [
        "experiment=darkroom",
        "env.id=my_env:make",
        *SMALL[2:9],
        "validation.every_rollouts=null",
        "checkpoint.best_metric=null",
    ]
    called([installed / "relic-train", *own, "run_dir=runs/own"], tmp_path)


def test_a_wheel_loads_an_agent_with_its_environment(installed, tmp_path):
    where, actions = called([installed / "python", "-c", LOAD], tmp_path).splitlines()
    assert Path(where).is_relative_to(installed.parent)
    assert actions == "2"
