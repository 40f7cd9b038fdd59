"""Experts by the protocols of agents: alone, beside a run, and as the ceiling of its context."""

import json
from pathlib import Path

import numpy as np
import pytest

from envs.make import make_trial_env
from relic.evaluate import evaluate as run_command
from relic.evaluation.evaluator import ExpertActor, make_env, run_blocks
from relic.evaluation.protocol import Protocol
from relic.evaluation.trained_agent import Expert, chosen_protocol, fit_protocol
from relic.evaluation.worth import with_oracle
from relic.schema import build

SHORT = {"max_episode_steps": 40}
KEYS = ["options.task.max_episode_steps=40", "trials=4", "episodes=8", "block=4"]


def houses(**changes: object) -> Protocol:
    fields = {
        "name": "houses",
        "env": "relic/Houses-v0",
        "options": {"split": "val", "size": "small", "sensors": [], "task": SHORT},
        "trials": 4,
        "episodes": 8,
        "block": 4,
        **changes,
    }
    return build(Protocol, fields)


def slow_records(kind: str) -> list[tuple[int, int, bool]]:
    """Trial, episode and success of an expert that is asked by hand."""
    env = make_trial_env("relic/Houses-v0", 4, houses().options)
    env.reset(options={"new_trial": np.ones(4, bool), "trial": np.arange(4)})
    found = []
    while len(found) < 32:
        episode_N = env.episode
        _, _, terminated, truncated, infos = env.step(env.expert_actions(kind))
        for row in np.flatnonzero((terminated | truncated) & (episode_N < 8)):
            success = bool(infos["episode_record"]["success"][row])
            found.append((int(row), int(episode_N[row]), success))
    env.close()
    return sorted(found)


@pytest.mark.parametrize(("control", "kind"), [("kept", "memory"), ("cleared", "episode")])
def test_the_memory_oracle_is_the_environments_own(control, kind):
    protocol = houses()
    env = make_env(protocol)
    records = list(run_blocks(ExpertActor("memory"), env, protocol, control=control))
    env.close()
    found = sorted((r["trial"], r["episode"], r["success"]) for r in records)
    assert found == slow_records(kind)


def test_an_expert_is_evaluated_alone(tmp_path, capsys):
    out = f"out={tmp_path / 'oracle'}"
    keys = ["expert=memory", "protocol=houses_small_val", "options.sensors=[]", *KEYS, out]
    assert run_command([*keys, "progress=false"]) == 0
    summary = json.loads((tmp_path / "oracle" / "summary.json").read_text())
    assert (summary["policy"], summary["checkpoint"]) == ("expert memory", "expert_memory")
    assert summary["context"]["spl"]["kept"] > summary["context"]["spl"]["cleared"]
    assert "expert=memory: houses_small_val" in capsys.readouterr().out


def test_shares_are_those_of_the_oracles_margin():
    worth = {"spl": {"mean": 0.1, "kept": 0.6, "cleared": 0.5}}
    found = with_oracle(worth, {"spl": {"kept": 0.9}})["spl"]
    assert found["oracle"] == 0.9
    assert found["share_of_oracle"] == pytest.approx(0.25)
    assert with_oracle(worth, {"spl": {"kept": 0.4}})["spl"]["share_of_oracle"] is None
    assert with_oracle(worth, {})["spl"]["share_of_oracle"] is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["expert=memory"], "protocol: must be named where no run is"),
        (["expert=memry", "protocol=houses_small_val"], "memory"),
        (
            ["expert=memory", "protocol=houses_small_val", "controls=[foreign]"],
            r"controls: must be [cleared] or []",
        ),
        (
            ["expert=memory", "protocol=houses_small_val", "context_limits=[none,last:9]"],
            "context_limits: must not be given with expert",
        ),
        (
            ["expert=memory", "protocol=revisits_val", "context_limit=last:8"],
            "context_limit: must not be given with expert",
        ),
    ],
)
def test_what_an_expert_cannot_do_is_refused(keys, message, capsys):
    assert run_command(keys) == 2
    assert message in capsys.readouterr().err


def test_what_a_protocol_does_not_name_of_the_task_is_as_the_run_had_it():
    own = {"task": {"turn_deg": 14.3, "max_episode_steps": 80, "max_goals": 3}, "sensors": []}
    expert = Expert("memory", Path("."), "relic/Houses-v0", own)
    protocol = chosen_protocol("houses_small_changing", {"options.resolution": 16}).protocol
    options = fit_protocol(expert, protocol).options
    assert options["sensors"] == []
    assert options["task"] == {
        "turn_deg": 14.3, "max_episode_steps": 100, "max_goals": None, "fixed_goal": False,
    }  # fmt: skip
    assert own["task"]["max_episode_steps"] == 80


def test_an_environment_without_an_oracle_says_so(tmp_path, capsys):
    keys = ["expert=memory", "protocol=darkroom_test", "trials=2", "repeats=1", "episodes=2"]
    assert run_command([*keys, f"out={tmp_path}", "progress=false"]) == 2
    assert "expert: must be one that relic/Darkroom-v0 has, got memory" in capsys.readouterr().err
