"""Evaluation in houses: which of them are refused, and what a page about them shows."""

import json

import pytest
import yaml

from envs.make import make_trial_env
from envs.objectnav.goals import GOAL_CATEGORIES
from relic.evaluate import evaluate as main
from relic.policy.config import PolicyConfig
from relic.policy.loading import save_policy
from relic.policy.policy import Policy
from relic.schema import build
from tests.evaluation.test_cli import files_of, refused

SHORT = ("trials=3", "episodes=2", "block=3", "progress=false", "controls=[]")


@pytest.fixture
def run(tmp_path):
    """An untrained agent of small houses, and the configuration that it would be trained by."""
    options = {"split": "train", "resolution": 16, "task": {"max_episode_steps": 8}}
    env = make_trial_env("relic/Houses-v0", 1, options)
    sizes = {"num_layers": 1, "num_heads": 2, "width": 16, "mlp_width": 16}
    policy = Policy(
        build(PolicyConfig, {"transformer": sizes}),
        env.single_observation_space,  # type: ignore[arg-type]
        env.single_action_space,
        max_episode_steps=env.max_episode_steps,
    )
    env.close()
    save_policy(tmp_path / "run", policy, env_steps=0)
    config = {"env": {"id": "relic/Houses-v0", "options": options}}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["options.houses=[]"], "houses must name at least one house seed, got none"),
        (["trials=0"], "trials: must be at least 1, got 0"),
        (["options.split=train"], "that the run was trained on, got 3 of 3 in relic-houses"),
        # The first two houses of the training split, under another name.
        (["options.houses=[4, 0, 3]"], "that the run was trained on, got 2 of 3 in relic-houses"),
        (["options.scale=real", "options.split=train"], "that the run was trained on, got 3 of 3"),
        (["options.resolution=24"], "must let the environment show rgb as"),
    ],
)
def test_houses_that_are_not_to_be_used_are_refused(run, capsys, arguments, message):
    short = [
        a for a in SHORT if a.partition("=")[0] not in {b.partition("=")[0] for b in arguments}
    ]
    assert message in refused(capsys, f"run={run}", *short, *arguments)
    assert not (run / "evaluations").exists()


def test_houses_are_summarised_by_size_and_goal(run, tmp_path):
    out = tmp_path / "out"
    assert main([f"run={run}", f"out={out}", *SHORT]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["by_area"]) == 3
    assert set(summary["by_goal"]) <= set(GOAL_CATEGORIES)
    for kind in ("by_area", "by_goal"):
        assert sum(part["episodes"] for part in summary[kind].values()) == 6
        assert (out / "plots" / f"return_{kind}.png").stat().st_size > 1000
    assert "By goal category" in (out / "report.html").read_text()
    assert len(list((out / "tracks").iterdir())) == 3
    before = files_of(out)
    assert main([f"run={run}", f"out={out}", *SHORT]) == 0
    assert files_of(out) == before
