"""Files of older versions load: their names and values become those of today."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from relic import upgrade
from relic.policy import load
from relic.policy.loading import read_meta
from relic.run.config import RunConfig
from relic.schema import ConfigError, build
from relic.upgrade import (
    upgrade_config,
    upgrade_metrics,
    upgrade_policy,
    upgrade_section,
    upgrade_weights,
)

PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
AGENTS = ("darkroom", "houses_small")


@pytest.fixture
def tables(monkeypatch):
    """Tables with one line of each kind."""
    renamed = {"a.old": "b.new", "b.old_weight": "b.new.weight"}
    monkeypatch.setattr(upgrade, "RENAMED", renamed)
    monkeypatch.setattr(upgrade, "REPLACED", {"b.kind": {"fast": "auto"}})
    monkeypatch.setattr(upgrade, "REMOVED", {"b.gone": False})
    monkeypatch.setattr(upgrade, "IGNORED", ("b.hint",))
    monkeypatch.setattr(upgrade, "WEIGHTS", {"old.": "new.inner."})
    monkeypatch.setattr(upgrade, "METRICS", {"old_loss": "new_loss"})


@pytest.mark.parametrize("agent", AGENTS)
def test_shipped_configurations_are_todays(agent):
    stored = yaml.safe_load((PRETRAINED / agent / "config.yaml").read_text())
    config = build(RunConfig, upgrade_config(stored))
    assert config.experiment == stored["experiment"]
    content = json.loads((PRETRAINED / agent / "learning_curve.json").read_text())
    build(RunConfig, upgrade_config(content["config"]))


@pytest.mark.parametrize("agent", AGENTS)
def test_shipped_agents_load_from_a_copy(agent, tmp_path):
    copied = shutil.copytree(PRETRAINED / agent, tmp_path / agent)
    policy, shipped = load(copied).state_dict(), load(PRETRAINED / agent).state_dict()
    assert all(torch.equal(policy[name], value) for name, value in shipped.items())
    assert read_meta(copied)["env_steps"] > 0


def test_old_names_move_with_their_values(tables):
    old = {"a": {"old": {"x": 1}, "kept": 2}, "b": {"old_weight": 0.5, "kind": "fast"}}
    new = {"a": {"kept": 2}, "b": {"new": {"x": 1, "weight": 0.5}, "kind": "auto"}}
    assert upgrade_config(old) == new
    assert upgrade_config(new) == new
    assert old["a"] == {"old": {"x": 1}, "kept": 2}, "the file's content is left alone"


@pytest.mark.parametrize("section", [{}, {"new": None}])
def test_a_value_whose_new_section_is_off_is_dropped(tables, section):
    assert upgrade_config({"b": {"old_weight": 0.5, **section}}) == {"b": section}


def test_what_was_removed_passes_unused_and_is_refused_in_a_sentence_else(tables):
    assert upgrade_config({"b": {"gone": False, "hint": 3}}) == {"b": {}}
    assert upgrade_section({"gone": False, "x": 1}, "b") == {"x": 1}
    with pytest.raises(ConfigError, match=r"^b\.gone: must be false, as it was removed, got true"):
        upgrade_config({"b": {"gone": True}})


def test_weights_and_metrics_keep_values_and_order(tables):
    assert list(upgrade_weights({"z": 1, "old.x": 2, "a": 3})) == ["z", "new.inner.x", "a"]
    assert upgrade_metrics({"old_loss": 1.0, "env_steps": 2}) == {"new_loss": 1.0, "env_steps": 2}


def test_a_policy_keeps_the_checksums_of_its_file(tables, monkeypatch):
    monkeypatch.setattr(upgrade, "RENAMED", {"policy.old": "policy.new"})
    content = {"config": {"old": 1}, "checksums": {"old.x": 7}}
    assert upgrade_policy(content) == {"config": {"new": 1}, "checksums": {"old.x": 7}}
