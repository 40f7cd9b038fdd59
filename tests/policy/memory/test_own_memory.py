"""The memory of docs/own_memory.md keeps what memories promise, trains and resumes."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gymnasium import spaces

import relic.policy
from relic.policy.config import PolicyConfig
from relic.policy.loading import save_policy
from relic.policy.memory.config import Capabilities
from relic.policy.memory.memories import MemorySections
from relic.policy.policy import Policy
from relic.run.metrics import is_clock, read_metrics
from relic.schema import ConfigError, build
from tests.memories import CHOICES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "own_memory.md").read_text()
OWN = {"memory": "my_memory:MovingAverage", "memory_options": {"width": 16, "decay": 0.8}}
RESUME = """
import sys
from relic.run.compose import compose
from relic.run.distributed import join_ranks
from relic.run.trainer import Trainer

config = compose(dict(key.split("=", 1) for key in sys.argv[2:]))
trainer = Trainer(config, join_ranks("cpu"))
trainer.resume()
stop, seen = int(sys.argv[1]), []
for metrics in trainer.updates(lambda: len(seen) + 1 == stop):
    seen.append(metrics)
trainer.close()
"""


def block(language, number=0):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)[number]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_memory.py").write_text(block("python"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_memory", None)


def test_it_keeps_what_memories_promise(folder, check_memory):
    module = importlib.import_module("my_memory")
    model = module.MovingAverage(module.MovingAverageConfig(width=8), max_episode_steps=9)
    check_memory(model)
    exec(compile(block("python", 1), "own_memory.md", "exec"), {})
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.bool)).isfinite().all()
    assert model.bytes_per_row(10) == model.initial_state(1, 10).parts["average"].nbytes


def test_a_checkpoint_names_its_module_and_acts_alike(folder):
    space = spaces.Dict({"x": spaces.Box(-1.0, 1.0, (3,))})
    policy = Policy(build(PolicyConfig, OWN), space, spaces.Discrete(3), max_episode_steps=9)
    assert policy.config.width == 16
    assert policy.config.memory_can == Capabilities()
    save_policy(folder, policy)
    again = relic.policy.load(folder)
    assert again.config == policy.config
    x = {"x": torch.rand(2, 3)}
    acted = [
        one.step(x, one.initial_state(2, 5), deterministic=True).log_prob for one in (policy, again)
    ]
    assert torch.equal(*acted)
    changed = policy.config.with_memory_config(type(policy.config.memory_config)(width=24))
    assert changed.memory_options == {"width": 24, "decay": 0.95}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory": "gruu"}, r"policy\.memory: unknown 'gruu'.*Did you mean 'gru'"),
        ({"memory": "my_memory:Average"}, r"policy\.memory: 'my_memory:Average' must name a class"),
        ({"memory": "my_memory:dataclass"}, r"policy\.memory: .* must be a SequenceModel"),
        ({"memory": "no_such:X"}, r"must name a class as module:Class, but No module named"),
        (
            {**OWN, "memory_options": {"deca": 0.5}},
            r"policy\.memory_options\.deca: unknown key. Did you mean 'decay'",
        ),
        ({**OWN, "memory_options": {"decay": 2}}, r"memory_options\.decay: must be in \(0, 1\)"),
        ({"memory_options": {"decay": 0.5}}, r"memory_options: must be empty with memory=trans"),
    ],
)
def test_what_is_wrong_is_said(folder, fields, message):
    with pytest.raises(ConfigError, match=message):
        build(PolicyConfig, fields, "policy")


@pytest.mark.parametrize("choice", CHOICES)
def test_each_choice_reads_the_section_of_its_class(choice):
    sections = MemorySections(memory=choice)
    assert type(sections.memory_config) is sections.memory_class.Config
    other = sections.memory_class.Config(width=96)
    assert sections.with_memory_config(other).memory_config is other


def test_the_command_trains_and_a_stopped_run_goes_on_alike(folder):
    variable, _, script, *keys = block("bash").split()
    assert (variable, script) == ("PYTHONPATH=/folder/of/my_memory", "train.py")
    keys = [key for key in keys if not key.startswith("run_dir=")]
    small = {
        "total_steps": 512, "rollout.num_envs": 4, "rollout.num_steps": 64,
        "updates.per_rollout": 4, "ppo.num_minibatches": 2, "threads": 1,
        "validation.every_rollouts": "null", "checkpoint.best_metric": "null",
    }  # fmt: skip
    keys += [f"{key}={value}" for key, value in small.items()]

    def run(command, name):
        done = subprocess.run(
            [sys.executable, *command, *keys, f"run_dir={folder / name}"],
            cwd=ROOT, env={"PYTHONPATH": f"{folder}:{ROOT}", "PATH": ""},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    run(["train.py"], "whole")
    run(["-c", RESUME, "3"], "stopped")  # in the middle of the first rollout
    run(["-c", RESUME, "0"], "stopped")
    whole, stopped = (
        [
            {k: v for k, v in line.items() if not is_clock(k)}
            for line in read_metrics(folder / name / "metrics.jsonl")
        ]
        for name in ("whole", "stopped")
    )
    assert len(whole) == 8
    assert whole == stopped
