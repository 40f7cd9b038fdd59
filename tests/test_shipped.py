"""What ships is found by name from any folder, and is not written into."""

import shutil

from relic.compare import main as compare
from relic.evaluate import evaluate
from relic.policy import load
from relic.policy.encoders.images import load_image_encoder
from relic.run.compose import compose
from relic.shipped import PRETRAINED, located, outside

AGENT = "pretrained/darkroom"


def files_of(folder):
    return {p for p in folder.rglob("*") if p.is_file()}


def test_a_name_leads_to_what_ships_unless_it_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = located(AGENT, "policy.json")
    assert shipped == PRETRAINED / "darkroom"
    assert (shipped / "policy.json").is_file()
    here = tmp_path / AGENT
    (here / "evaluations").mkdir(parents=True)  # a folder without a policy
    assert located(AGENT, "policy.json") == shipped
    shutil.copy(shipped / "policy.json", here)
    assert located(AGENT, "policy.json").absolute() == here
    for other in ("pretrained/none", "darkroom", str(tmp_path), "."):
        assert str(located(other, "policy.json")) == other


def test_only_what_ships_has_another_place_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert outside(PRETRAINED / "darkroom").absolute() == tmp_path / AGENT
    assert outside(tmp_path / "run") == tmp_path / "run"


def test_an_agent_that_ships_is_evaluated_and_compared_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = files_of(PRETRAINED)
    assert evaluate([f"run={AGENT}", "trials=2", "episodes=2", "controls=[]", "replay=[]"]) == 0
    assert list((tmp_path / AGENT).glob("evaluations/*/darkroom/report.html"))
    assert compare([AGENT]) == 0
    assert (tmp_path / AGENT / "plots" / "learning_curve.png").is_file()
    assert files_of(PRETRAINED) == before
    assert load(AGENT).checkpoint == PRETRAINED / "darkroom"


def test_the_encoder_of_an_experiment_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = compose({"experiment": "houses_small"}).policy.encoder.checkpoint
    assert path is not None
    assert load_image_encoder(located(path)).kind.value == "small_cnn"
