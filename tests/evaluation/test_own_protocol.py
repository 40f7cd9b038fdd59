"""Evaluating an environment of one's own: by its default, by keys, by a file, from any folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from envs.make import make_trial_env
from relic.evaluate import evaluate as main
from relic.evaluation.settings import parse
from relic.evaluation.trained_agent import chosen_protocol
from relic.policy.config import PolicyConfig
from relic.policy.loading import save_policy
from relic.policy.policy import Policy
from relic.schema import ConfigError, build

ROOT = Path(__file__).resolve().parents[2]
CORRIDOR = """
import gymnasium
import numpy as np
from gymnasium import spaces
from envs.core.trials import EpisodeTrials, by_option


class Corridor(gymnasium.Env):
    def __init__(self):
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Box(-5.0, 5.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.end, self.place = 2 if options["task"] % 2 else -2, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.place += 2 * int(action) - 1
        reached = self.place == self.end
        seen = np.full(1, np.clip(self.place, -5, 5), np.float32)
        return seen, float(reached), reached, False, {"success": reached}


def make(num_envs, *, split="train", **options):
    first, count = {"train": (0, 100), "val": (100, 20)}[split]
    return EpisodeTrials(
        Corridor,
        num_envs,
        dataset_name=f"corridor/{split}",
        start=by_option("task"),
        first_trial=first,
        num_trials=count,
        max_episode_steps=4,
        record=["success"],
        expert=lambda env: int(env.unwrapped.end > 0),
        **options,
    )
"""
DEFAULT = "\nmake.default_protocol = {'trials': 3, 'episodes': 2, 'options': {'split': 'val'}}\n"
BY_KEYS = ("trials=3", "episodes=2", "options.split=val")
QUIET = ("progress=false", "block=2", "workers=1", "controls=[]")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write the environment into the working directory, under a name that no other test has."""
    monkeypatch.chdir(tmp_path)

    def write(more=""):
        name = f"corridor_{abs(hash(tmp_path))}_{len(list(tmp_path.glob('*.py')))}"
        (tmp_path / f"{name}.py").write_text(CORRIDOR + more)
        return name

    yield write
    sys.path[:] = [path for path in sys.path if path != str(tmp_path)]


@pytest.fixture
def agent(tmp_path, module):
    """A run of an untrained agent in the environment."""

    def build_run(more=""):
        name = module(more)
        env = make_trial_env(f"{name}:make", 1, {})
        sizes = {"num_layers": 1, "num_heads": 2, "width": 16, "mlp_width": 16}
        torch.manual_seed(0)
        policy = Policy(
            build(PolicyConfig, {"transformer": sizes}),
            env.single_observation_space,
            env.single_action_space,
            max_episode_steps=4,
        )
        save_policy(tmp_path / "run", policy, env_steps=0)
        config = {"env": {"id": f"{name}:make", "options": {}}}
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
        return name

    return build_run


def _summary(directory):
    return json.loads((Path(directory) / "summary.json").read_text())


def test_the_ways_to_say_what_is_evaluated_agree(agent, tmp_path, capsys):
    name = agent(DEFAULT)
    fields = {"env": f"{name}:make", "trials": 3, "episodes": 2, "options": {"split": "val"}}
    (tmp_path / "held_out.yaml").write_text(yaml.safe_dump(fields))
    ways = {
        "default": (),
        "keys": (*BY_KEYS, f"env={name}:make"),
        "file": ("protocol=held_out.yaml",),
    }
    records = []
    for way, arguments in ways.items():
        assert main(["run=run", f"out={way}", *arguments, *QUIET]) == 0, capsys.readouterr().err
        summary = _summary(way)
        assert (summary["trials"], summary["options"]) == (3, {"split": "val"})
        assert summary["protocol"].startswith("held_out" if way == "file" else name)
        assert (tmp_path / way / "report.html").stat().st_size > 1000
        records.append((tmp_path / way / "records.jsonl").read_bytes())
    assert records[0] == records[1] == records[2]


def test_keys_are_enough_where_there_is_no_default(agent, capsys):
    name = agent()
    assert main(["run=run", *BY_KEYS, *QUIET]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "CHANGED" not in said
    (directory,) = Path("run/evaluations").iterdir()
    assert directory.name.startswith(f"{name}_make-")


def test_an_expert_alone_needs_the_environment_only(module, capsys):
    name = module()
    arguments = (f"env={name}:make", "expert=full", "out=out", *BY_KEYS, *QUIET)
    assert main(arguments) == 0, capsys.readouterr().err
    assert _summary("out")["metrics"]["success"]["mean"] == [1.0, 1.0]


def test_a_changed_default_says_so(agent, capsys):
    agent(DEFAULT)
    assert main(["run=run", "out=out", "episodes=3", *QUIET]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "CHANGED: episodes=3 instead of 2" in said
    assert _summary("out")["protocol"].endswith("_make-changed")


@pytest.mark.parametrize(
    ("more", "arguments", "message"),
    [
        ("", (), "protocol: must be given for corridor"),
        ("", ("episodes=2",), "protocol.trials: must be given"),
        ("", ("trials=2",), "episodes: must be given where steps is not"),
        ("", ("trials=2", "episodes=2"), "must not use trials that the run was trained on"),
        ("", ("protocol=nowhere/x.yaml",), "protocol: must be a file or a name, found no file"),
        ("", ("protocol=held_out",), "A file is named by its path, held_out.yaml."),
        ("", ("protocol=bad.yaml",), "bad.yaml: must be YAML"),
        ("", ("protocol=text.yaml",), "text.yaml: must hold the keys of a protocol"),
        ("", ("protocol=wrong.yaml",), "wrong.yaml.episods: unknown key. Did you mean 'episodes'"),
        ("", ("protocol=darkroom_test", "env=x:y"), "env: must not be given with protocol"),
        ("", (*BY_KEYS, "env=relic/Darkrom-v0"), "Did you mean 'relic/Darkroom-v0'"),
        ("", (*BY_KEYS, "env=nowhere:make"), "'nowhere:make' must name a function"),
        ("\nmake.default_protocol = 'val'\n", (), "make.default_protocol: must be a dict"),
        ("\nmake.default_protocol = {'trial': 1}\n", (), "Did you mean 'trials'"),
    ],
)
def test_too_little_or_wrong_is_refused(agent, capsys, tmp_path, more, arguments, message):
    agent(more)
    (tmp_path / "bad.yaml").write_text("a: [1")
    (tmp_path / "text.yaml").write_text("hello")
    (tmp_path / "wrong.yaml").write_text("env: x:y\ntrials: 1\nepisods: 2")
    assert main(["run=run", *arguments, *QUIET]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") <= 3


def test_runs_are_listed_by_any_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("seed=0,ppo.lr=1e-3", "it's [a] #2: {x}", "a", "b"):
        (tmp_path / name).mkdir()
    for text, runs in {
        "[a,b]": ["a", "b"],
        "[seed=0,ppo.lr=1e-3, b]": ["seed=0,ppo.lr=1e-3", "b"],
        "[it's [a] #2: {x},a]": ["it's [a] #2: {x}", "a"],
        "seed=0,ppo.lr=1e-3": ["seed=0,ppo.lr=1e-3"],
        "['x,y', \"z\"]": ["x,y", "z"],
        "[gone,a]": ["gone", "a"],
    }.items():
        assert list(parse([f"run={text}"])[0].run) == runs
    with pytest.raises(ConfigError, match=r"run: must be given once.*Write run=\[DIR1,DIR2\]"):
        parse(["run=a", "run=b"])


def test_the_environments_of_this_project_keep_their_protocols():
    for env, name in {
        "relic/Darkroom-v0": "darkroom_test",
        "relic/Houses-v0": "houses_small_val",
    }.items():
        assert chosen_protocol(None, {}, env).protocol.name == name


def test_a_console_command_finds_the_environment_in_its_folder(module):
    name = module()
    program = f"from envs.make import make_trial_env; make_trial_env('{name}:make', 1, {{}})"
    # As a command's own folder, and not the working directory, comes first there.
    script = f"import sys; sys.path[:] = [{str(ROOT)!r}, *sys.path[1:]]; {program}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
