"""What a file or a key says may be of any size: it is refused before memory or time is spent."""

import json
import shutil
import sys
from contextlib import closing

import pytest
import yaml

from relic.bounded_yaml import parse_yaml
from relic.evaluate import evaluate
from relic.evaluation.protocol import load_protocol
from relic.files import CheckpointError
from relic.policy.loading import find_checkpoint, load
from relic.policy.origin import find_origin, remember_programs
from relic.run.compose import compose
from relic.run.distributed import ALONE
from relic.run.run_directory import CheckpointStore, RunDirectory
from relic.run.trainer import Trainer
from relic.run.validation import check_validation, validation_env
from relic.schema import ConfigError
from relic.shipped import located

SHIPPED = located("pretrained/darkroom")
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


class Copy:
    """A copy of a shipped policy, whose description can be edited."""

    def __init__(self, path):
        self.path = path

    def edit(self, change):
        content = json.loads((self.path / "policy.json").read_text())
        content.pop("sha256", None)
        change(content)
        (self.path / "policy.json").write_text(json.dumps(content))


@pytest.fixture
def copy(tmp_path):
    there = tmp_path / "copy"
    shutil.copytree(find_checkpoint(SHIPPED), there)
    if not (there / "config.yaml").exists():
        shutil.copy(find_origin(find_checkpoint(SHIPPED)).root / "config.yaml", there)

    return Copy(there)


def transformer(**keys):
    return lambda content: content["config"]["transformer"].update(keys)


def of_space(**keys):
    return lambda content: next(iter(content["observation_space"]["spaces"].values())).update(keys)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (transformer(width=10**7), "many fewer than what its description asks for"),
        (transformer(mlp_width=10**10), "many fewer"),
        (transformer(num_layers=10**9), "many fewer"),
        (transformer(num_layers=10**30), "must be less than 2"),
        (lambda content: content.update(max_episode_steps=10**15), "many fewer"),
        (lambda content: content.update(max_episode_steps=10**400), "must be less than 2"),
        (of_space(type="Box", shape=[10**12], low=0, high=1, dtype="float32"), "at most 268435456"),
        (of_space(type="MultiBinary", n=10**12), "at most 268435456 numbers"),
    ],
)
def test_a_description_of_a_policy_without_end(copy, change, said):
    copy.edit(change)
    with pytest.raises(CheckpointError, match=said):
        load(copy.path)


def test_a_description_that_is_nested_without_end(copy):
    (copy.path / "policy.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="damaged"):
        load(copy.path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"rollout.num_steps": "99999999999999999999"}, "rollout.num_steps: must be less than 2"),
        ({"rollout.num_steps": "9" * 500}, "must be less than 2.63, got a number of more than 40"),
        ({"rollout.num_steps": "1e300"}, "rollout.num_steps: must be less than 2"),
        ({"rollout.num_steps": "9999999999"}, "num_steps: must be from 1 to 2147483648"),
        ({"rollout.num_steps": str(2**31 - 1)}, "must divide .*Use 1, "),
        ({"rollout.num_envs": "1e12"}, "num_envs: must be from 1 to 1048576"),
        ({"ppo.lr": "9" * 500}, "ppo.lr: must be less than 2"),
        ({"seed": "9" * 500}, "seed: must be less than 2"),
    ],
)
def test_numbers_without_end(keys, said):
    with pytest.raises(ConfigError, match=said):
        compose({"experiment": "darkroom", **keys})


def test_aliases_without_end(tmp_path, copy):
    with pytest.raises(yaml.YAMLError, match="aliases stand for more than 100000 values"):
        parse_yaml(BOMB)
    with pytest.raises(yaml.YAMLError, match="aliases"):
        parse_yaml("a: &a [*a]")
    with pytest.raises(yaml.YAMLError, match="nested too deeply"):
        parse_yaml("[" * 10_000)
    with pytest.raises(yaml.YAMLError, match="characters"):
        parse_yaml("x" * (2**20 + 1))
    assert parse_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}
    assert parse_yaml("") is None
    run = RunDirectory(tmp_path)
    run.config.write_text(BOMB)
    with pytest.raises(ConfigError, match="aliases"):
        run.open(compose({"experiment": "darkroom"}))
    (copy.path / "config.yaml").write_text(BOMB)
    with pytest.raises(ConfigError, match="aliases"):
        find_origin(copy.path)
    (tmp_path / "mine.yaml").write_text(BOMB)
    with pytest.raises(ConfigError, match="aliases"):
        load_protocol(str(tmp_path / "mine.yaml"))


def test_pointers_name_nothing_outside_of_their_run(tmp_path, copy):
    store = tmp_path / "run" / "checkpoints"
    store.mkdir(parents=True)
    for name in ("../../copy", str(copy.path), "..", "."):
        (store / "latest.json").write_text(json.dumps({"name": name}))
        with pytest.raises(CheckpointError, match="no directory beside it"):
            find_checkpoint(tmp_path / "run")
        assert CheckpointStore(store).latest() is None


OWN = """
import subprocess

from envs.darkroom import DarkroomVectorEnv


def make(num_envs, python=None, **options):
    if python is not None:
        subprocess.run([python], check=True)
    return DarkroomVectorEnv(num_envs, **options)


make.default_protocol = dict(trials=1, episodes=1)
"""


@pytest.fixture
def strangers(tmp_path, monkeypatch, copy):
    """Return a run of a stranger, whose program leaves a mark when it is started."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    program, mark = tmp_path / "program", tmp_path / "mark"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    content = yaml.safe_load((copy.path / "config.yaml").read_text())

    def with_env(name, options):
        content["env"] = {"id": name, "options": {**content["env"]["options"], **options}}
        (copy.path / "config.yaml").write_text(yaml.safe_dump(content))
        return copy.path, program, mark

    yield with_env
    for name in ("own_env", "copy", "copy.own_env"):
        sys.modules.pop(name, None)


def test_a_run_starts_no_program_that_nobody_asked_for(strangers, tmp_path, capsys):
    (tmp_path / "own_env.py").write_text(OWN)
    run, program, mark = strangers("own_env:make", {"python": str(tmp_path / "program")})
    keys = [f"run={run}", "trials=1", "episodes=1", "controls=[]", "allow_trained=true"]
    assert evaluate([*keys, "progress=false"]) == 2
    said = capsys.readouterr().err
    assert "options.python: must be asked for where a run names a program" in said
    assert f"set options.python={program}" in said
    with pytest.raises(ConfigError, match=r"options\.python: must be asked"):
        load(run).make_env(1)
    assert not mark.exists()
    load(run).make_env(1, python=str(program)).close()
    assert mark.exists()
    mark.unlink()
    remember_programs({"python": str(program)})  # as training does
    load(run).make_env(1).close()
    assert mark.exists()


def test_a_run_brings_no_code(strangers, tmp_path, capsys):
    run, *_ = strangers("copy.own_env:make", {})
    (run / "own_env.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n{OWN}")
    assert evaluate([f"run={run}", "trials=1", "episodes=1", "controls=[]"]) == 2
    assert "must not be a module inside the run's own folder" in capsys.readouterr().err
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("key", ["threads", "ranks"])
def test_threads_and_processes_are_bounded(key, capsys):
    with pytest.raises(ConfigError, match=f"{key}: must be from 1 to 4096, got 1000000000"):
        compose({key: 10**9})
    name = {"ranks": "workers"}.get(key, key)
    assert evaluate([f"run={SHIPPED}", f"{name}=1000000000"]) == 2
    assert f"{name}: must be from 1 to 4096, got 1000000000" in capsys.readouterr().err


def test_a_validation_that_cannot_fit_is_refused_before_the_first_rollout():
    keys = {"experiment": "darkroom", "validation.final_trials": 0}
    large = compose({**keys, "validation.trials": 2**20, "validation.episodes": 1000})
    message = r"validation: 1048576 trials .* Use fewer validation\.trials or validation\.episodes"
    with closing(validation_env(large)) as env, pytest.raises(ConfigError, match=message):
        check_validation(large, load(SHIPPED), env)


def test_a_validation_that_cannot_be_built_is_refused_before_the_parts_of_the_run(tmp_path):
    keys = {"experiment": "darkroom", "run_dir": str(tmp_path / "run")}
    wrong = compose({**keys, "validation.options.split": "none"})
    built = []
    with pytest.raises(ConfigError, match="split must be one of"):
        Trainer(wrong, ALONE, lambda *parts: built.append(parts))
    assert not built
