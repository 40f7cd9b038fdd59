"""Every snippet of docs/own_environment.md runs, in order, as a reader would run them."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "own_environment.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def test_the_page_sends_nobody_to_wrong_statistics():
    (bullet,) = re.findall(
        r"^- [^-]*?RecordEpisodeStatistics.*?(?=^- )", PAGE.read_text(), re.M | re.S
    )
    assert 'infos["episode_record"]["length"]' in bullet
    assert "one step and one reward short" in " ".join(bullet.split())


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
    ]
    script.append(
        "from envs.make import make_trial_env\n"
        "env = make_trial_env('my_env:make', 2, {'split': 'val', 'seed': 3, 'first_row': 4})\n"
        "env.reset()\n"
        "for _ in range(20):\n"
        "    infos = env.step(env.expert_actions())[-1]\n"
        "assert infos['episode_record']['success'].all()\n"
    )
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


def test_the_training_command_trains(tmp_path):
    (command,) = blocks("bash")
    variable, python, *arguments = command.split()
    assert variable.startswith("PYTHONPATH=")
    assert python == ".venv/bin/python"
    (my_env,) = (b for b in blocks("python") if b.startswith("# my_env.py"))
    (tmp_path / "my_env.py").write_text(my_env)
    run = tmp_path / "run"
    small = [
        f"run_dir={run}",
        "total_steps=512",
        "rollout.num_envs=8",
        "rollout.num_steps=64",
        "ppo.num_minibatches=2",
        "validation.trials=8",
        "validation.episodes=2",
        "validation.score_from_episode=0",
    ]
    done = subprocess.run(
        [sys.executable, *arguments, *small],
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["env_steps"] == 512
