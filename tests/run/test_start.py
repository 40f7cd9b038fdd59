"""Commands that train or evaluate nothing import nothing that only training or evaluation needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from relic import console
from relic.stops import stop_of

ROOT = Path(__file__).resolve().parents[2]
SLOW = ("torch", "numba", "numpy", "gymnasium", "matplotlib", "scipy", "safetensors", "envs")
"""Each takes from a tenth of a second to several seconds to import."""
REPORT = f"""
import atexit, runpy, sys
atexit.register(lambda: print("IMPORTED", *sorted(set({SLOW}) & set(sys.modules))))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("train.py --help", 0),
        ("train.py --help all", 0),
        ("train.py --help ppp", 2),
        ("eval.py --help", 0),
        ("eval.py --help all", 0),
        ("eval.py", 2),
        ("eval.py run=runs/x worker=2", 2),
        ("eval.py run=runs/x workers=0", 2),
        ("eval.py run=runs/x protocol=darkrom_test", 2),
        ("eval.py run=runs/x protocol=darkroom_test block=0", 2),
        ("train.py --cfg job", 0),
        ("train.py --cfg job experiment=houses_small ablation=rl2 seed=1", 0),
        ("train.py experiment=darkrom", 2),
        ("train.py ppo.lrr=1", 2),
        ("train.py ppo.lr=fast", 2),
        ("train.py policy.memory=gru rollout.cache_dtype=float16", 2),
        ("train.py policy.memory=lstmm", 2),
        ("train.py -m seed=1,2 ppo.gamma=3", 2),
    ],
)
def test_what_they_import(command, status):
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    *_, last = done.stdout.splitlines()
    assert last == "IMPORTED", last


def test_a_rank_imports_no_plots():
    program = "import sys, relic.run.ranks.rank; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_a_python_without_the_packages_is_told_which_one_to_use(script):
    done = subprocess.run(
        [sys.executable, "-S", script, "run=x"],  # -S: without the installed packages
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"No module named 'yaml'. This is {sys.executable}: start with")
    assert said.endswith(f"{sys.executable} -m relic.doctor")


def test_a_missing_module_of_the_user_is_told_as_such():
    stop = stop_of(ModuleNotFoundError("No module named 'minigrid'"))
    assert stop is not None
    said = f"No module named 'minigrid'. It must be installed for {sys.executable}."
    assert stop.text.startswith(said)


def test_a_python_that_is_too_old_is_told_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 10, 2, "final", 0))
    assert console.train() == console.evaluate() == 2
    assert capsys.readouterr().err.count("Python: must be 3.11 or newer, got ") == 2
