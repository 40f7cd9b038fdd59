"""Every snippet of docs/own_environment.md runs, in order, as a reader would run them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relic.evaluation.settings import parse
from relic.run.compose import compose_arguments

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "own_environment.md"

FURTHER = """
from importlib.util import find_spec
from envs.make import make_trial_env
import others

env = make_trial_env("my_env:make", 2, {"split": "val", "seed": 3, "first_row": 4})
env.reset()
for _ in range(20):
    infos = env.step(env.expert_actions())[-1]
assert infos["episode_record"]["success"].all()

packages = {"cartpole": "gymnasium", "pendulum": "gymnasium"}
packages |= {"memory": "minigrid", "repeat": "popgym"}
for name, package in packages.items():
    if find_spec(package):
        make = getattr(others, name)
        check_trial_env(make(2), make=make)
"""
"""What is done with the page's files after its own snippets."""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def test_the_page_sends_nobody_to_wrong_statistics():
    (bullet,) = re.findall(
        r"^- [^-]*?RecordEpisodeStatistics.*?(?=^- )", PAGE.read_text(), re.M | re.S
    )
    assert 'infos["episode_record"]["length"]' in bullet
    assert "misses the first step, and its reward, of each episode" in " ".join(bullet.split())


def test_snippets_run(tmp_path):
    script = []
    for block in blocks("python"):
        named = re.match(r"# (\w+\.py)\n", block)
        if named:
            (tmp_path / named.group(1)).write_text(block)
        else:
            script.append(block)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "my_env.py",
        "my_simulator.py",
        "my_vector_env.py",
        "others.py",
    ]
    script.append(FURTHER)
    (tmp_path / "read_along.py").write_text("\n".join(script))
    done = subprocess.run(
        [sys.executable, "read_along.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


SMALL = {
    "relic-train": (
        "total_steps=512",
        "rollout.num_envs=8",
        "rollout.num_steps=64",
        "ppo.num_minibatches=2",
        "validation.episodes=3",
        "validation.final_trials=2",
    ),
    "relic-eval": ("trials=2", "episodes=2", "workers=1", "progress=false"),
}
FUNCTIONS = {"relic-train": "train", "relic-eval": "evaluate"}


@pytest.mark.slow
def test_the_commands_lead_from_the_file_to_the_report(tmp_path):
    """As console commands, which find the file in the working directory."""
    (my_env,) = (b for b in blocks("python") if b.startswith("# my_env.py"))
    (tmp_path / "my_env.py").write_text(my_env)
    said = []
    for line in blocks("bash")[0].splitlines():
        command, *arguments = line.split()
        program = f"from relic.console import {FUNCTIONS[command]} as run; raise SystemExit(run())"
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, *arguments, *SMALL[command]],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert len(said) == 2
    assert re.search(r"untrained: mean success [\d.]+ % \(95 % interval", said[0])
    last = json.loads((tmp_path / "runs/my_env/metrics.jsonl").read_text().splitlines()[-1])
    assert last["env_steps"] == 512
    report = Path(said[1].splitlines()[-1])
    assert report.name == "report.html"
    assert report.stat().st_size > 1000


def test_the_commands_for_environments_of_others_are_valid():
    (_, *trained), (_, *evaluated) = map(str.split, blocks("bash")[1].splitlines())
    config = compose_arguments(trained)
    assert (config.experiment, config.env.id) == ("own", "others:cartpole")
    assert parse(evaluated)[0].run == (str(config.run_dir),)
