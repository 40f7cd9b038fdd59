import copy
import json
import re

import numpy as np
import pytest
import yaml

from relic.compare import main
from relic.evaluation.learning_curve import (
    PACE,
    Curve,
    Standing,
    as_shipped,
    expected,
    judge,
    read_run,
    read_shipped,
    shipped_file,
    write_shipped,
)
from relic.files import PROJECT
from relic.run.config import RunConfig
from relic.schema import ConfigError, build
from relic.shipped import PRETRAINED

CONFIG = {
    "experiment": "made_up",
    "seed": 0,
    "ppo": {"lr": 0.1},
    "checkpoint": {"best_metric": "val/return"},
    "validation": {"every_rollouts": 5},
}


def make_run(path, *, rise_at=500.0, until=1000, best=80.0, seed=0, config=None, **further):
    """A run whose return rises from 0 to `best` about a step; validated every 100 steps."""
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "seed": seed, **(config or {})}))
    lines = []
    for step in range(20, until + 1, 20):
        score = best / (1 + np.exp(-(step - rise_at) / 40))
        # Rollouts of four updates, in which returns rise with the context.
        part = (step // 20 - 1) % 4
        line = {"env_steps": step, "return_mean": score * (0.2 + 0.2 * part), "sps": 1.0}
        line["update"] = "full" if part == 3 else "partial"
        lines.append(line | ({"val/return": score, **further} if step % 100 == 0 else {}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_run(path)


@pytest.fixture
def shipped(tmp_path):
    runs = [make_run(tmp_path / f"s{i}", rise_at=r, seed=i) for i, r in enumerate((480, 520))]
    write_shipped(as_shipped(runs), tmp_path / "curve.json")
    return read_shipped(tmp_path / "curve.json")


def test_a_saved_curve_is_that_of_the_runs(shipped, tmp_path):
    run = read_run(tmp_path / "s1")
    assert (shipped.experiment, shipped.score) == ("made_up", "val/return")
    assert set(shipped.curves) == {"val/return", "return_mean"}
    np.testing.assert_array_equal(shipped.curves["return_mean"][1].step_P, np.arange(80, 1001, 80))
    np.testing.assert_array_equal(
        shipped.curves["val/return"][1].score_P, run.curves["val/return"].score_P
    )


@pytest.mark.parametrize(
    ("changes", "standing"),
    [
        ({}, Standing.ON_TRACK),
        ({"rise_at": 640.0, "until": 600}, Standing.ON_TRACK),  # a quarter slower
        ({"rise_at": 1200.0}, Standing.BEHIND),
        ({"best": 50.0}, Standing.BEHIND),
        ({"rise_at": 100.0, "until": 200}, Standing.AHEAD),
        ({"best": 95.0}, Standing.AHEAD),
        ({"until": 2000}, Standing.ON_TRACK),  # trained longer than what ships
    ],
)
def test_verdicts(shipped, tmp_path, changes, standing):
    verdict = judge(make_run(tmp_path / "run", **changes), shipped)
    assert verdict.standing is standing
    assert (verdict.standing is Standing.BEHIND) == (verdict.score < verdict.low)
    assert (verdict.standing is Standing.AHEAD) == (verdict.score > verdict.high)


def test_a_run_without_validation_yet_is_judged_by_its_training(shipped, tmp_path):
    early = judge(make_run(tmp_path / "run", until=80), shipped)
    assert (early.name, early.step, early.standing) == ("return_mean", 80, Standing.ON_TRACK)
    tiny = {"env_steps": 5, "return_mean": 3.0, "update": "full"}
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps(tiny) + "\n")
    assert judge(read_run(tmp_path / "run"), shipped).standing is Standing.EARLY


def test_training_is_averaged_over_whole_rollouts(tmp_path):
    make_run(tmp_path / "run", until=230)
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    curve = read_run(tmp_path / "run").curves["return_mean"]
    assert curve.step_P.tolist() == [80, 160]
    expected = [np.mean([m["return_mean"] for m in lines[i : i + 4]]) for i in (0, 4)]
    assert curve.score_P.tolist() == pytest.approx(expected)


def test_range_is_that_of_all_scores_at_near_steps(shipped):
    curves = shipped.curves["val/return"]
    low, high = expected(curves, 400.0)
    times = np.linspace(400 / PACE, 400 * PACE, 4001)
    scores = np.array([[curve.at(t) for curve in curves] for t in times])
    slack = 2.0 * scores.std(axis=1, ddof=1)
    wanted = ((scores.min(1) - slack).min(), (scores.max(1) + slack).max())
    assert (low, high) == pytest.approx(wanted, rel=0.01)


def test_a_range_stays_within_what_is_possible():
    steps = np.arange(1.0, 6.0)
    noisy = Curve(steps, np.array([0.1, 0.9, 0.05, 0.95, 0.9]))
    assert expected([noisy], 3.0, "val/success") == (0.05, 1.0)
    assert expected([noisy], 3.0, "success_mean") == (0.05, 1.0)
    assert expected([noisy], 3.0, "val/return")[1] > 1.0
    apart = [noisy, Curve(steps, 1.0 - noisy.score_P)]
    assert expected(apart, 3.0, "spl_mean") == (0.0, 1.0)


def test_early_scores_have_a_narrow_range_where_runs_agreed():
    shipped = read_shipped(shipped_file("darkroom"))
    curves = shipped.curves["val/return"]
    first = curves[0].step_P[0]
    low, high = expected(curves, first, "val/return")
    scores = [curve.score_P[0] for curve in curves]
    assert 0.39 < low <= min(scores)
    assert high < 10.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"env": {"id": "mine:make"}}, "env.id: relic/Darkroom-v0 -> mine:make"),
        ({"env": {"options": {"size": "large"}}}, "env.options.size: None -> large"),
        (
            {"validation": {"every_rollouts": 5, "episodes": 3}},
            "validation.episodes: 8 -> 3",
        ),
    ],
)
def test_runs_of_another_task_are_refused(shipped, tmp_path, capsys, changes, named):
    make_run(tmp_path / "run", config=changes)
    assert main([str(tmp_path / "run"), f"--reference={tmp_path / 'curve.json'}"]) == 2
    said = capsys.readouterr().err
    assert f"run: must be of the task that the runs of made_up learned, got {named}" in said


def test_what_an_agent_sees_of_a_task_may_differ(shipped, tmp_path):
    config = {"env": {"options": {"sensors": ["depth"], "resolution": 32}}}
    verdict = judge(make_run(tmp_path / "run", config=config), shipped)
    assert verdict.standing is Standing.ON_TRACK
    assert len(verdict.changes) == 2


def test_noise_is_that_of_the_points_and_not_of_the_trend():
    generator = np.random.default_rng(0)
    steps = np.arange(2000.0)
    trend = 80.0 / (1 + np.exp(-(steps - 900) / 200))
    noisy = Curve(steps, trend + generator.normal(0.0, 3.0, len(steps)))
    assert noisy.noise == pytest.approx(3.0, rel=0.1)
    assert Curve(steps, trend).noise < 0.01
    assert Curve(steps[:2], trend[:2]).noise == 0.0


def test_settings_that_differ_are_named_but_seeds_and_ranks_are_not(shipped, tmp_path):
    run = make_run(tmp_path / "run", seed=9, config={"ppo": {"lr": 0.2}, "ranks": 4})
    assert judge(run, shipped).changes == ("ppo.lr: 0.1 -> 0.2",)
    with pytest.raises(ConfigError, match=r"run: must have the configuration of s0, got ppo\.lr"):
        as_shipped([read_run(tmp_path / "s0"), run])


def test_command_says_where_a_run_stands(shipped, tmp_path, capsys):
    reference = f"--reference={tmp_path / 'curve.json'}"
    make_run(tmp_path / "good")
    make_run(tmp_path / "bad", best=40.0, config={"ppo": {"lr": 0.2}})
    assert main([str(tmp_path / "good"), reference]) == 0
    said = capsys.readouterr().out
    assert said.startswith("good is on track with the reference runs of made_up: val/return 80")
    assert (tmp_path / "good" / "plots" / "learning_curve.png").stat().st_size > 1000
    out = f"--out={tmp_path / 'out'}"
    assert main([str(tmp_path / "good"), str(tmp_path / "bad"), reference, out]) == 1
    said = capsys.readouterr().out
    assert "bad is behind the reference runs of" in said
    steps = re.search(r"they had this score at (\d+)", said)
    assert steps is not None
    assert int(steps.group(1)) in (500, 550, 600)
    assert "It was configured otherwise: ppo.lr: 0.1 -> 0.2." in said
    rows = said.splitlines()[-4:-1]
    assert [row.split()[0] for row in rows] == ["run", "good", "bad"]
    assert (tmp_path / "out" / "learning_curve.png").exists()


def test_another_run_can_be_the_reference(shipped, tmp_path, capsys):
    assert main([str(tmp_path / "s1"), f"--reference={tmp_path / 's0'}"]) == 0
    assert "s1 is on track with" in capsys.readouterr().out


def test_command_saves_curves(shipped, tmp_path, capsys):
    runs = [str(tmp_path / name) for name in ("s0", "s1")]
    assert main([*runs, f"--save={tmp_path / 'new' / 'curve.json'}"]) == 0
    new, old = (json.loads((tmp_path / n).read_text()) for n in ("new/curve.json", "curve.json"))
    assert new == old | {"config": new["config"]}  # whose fields stand at their default


def test_runs_without_a_shipped_curve_are_told_so(tmp_path, capsys):
    make_run(tmp_path / "run")
    assert main([str(tmp_path / "run")]) == 0
    assert "made_up has no reference runs" in capsys.readouterr().out


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    make_run(tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 1100, "val/ret')
    assert read_run(tmp_path / "run").curves["val/return"].step_P[-1] == 1000


def test_what_is_no_run_is_refused(shipped, tmp_path, capsys):
    def refused(*arguments):
        assert main([str(a) for a in arguments]) == 2
        return capsys.readouterr().err

    assert "must be the directory of a run with config.yaml" in refused(tmp_path)
    make_run(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"env_steps": 1}\n')
    assert "must hold a whole rollout with one of val/success" in refused(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert "a run with metrics.jsonl, found none" in refused(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("3")
    (tmp_path / "run" / "metrics.jsonl").touch()
    assert "config.yaml: must be the configuration of a run" in refused(tmp_path / "run")
    newer = json.loads((tmp_path / "curve.json").read_text()) | {"format": 99}
    (tmp_path / "newer.json").write_text(json.dumps(newer))
    said = refused(tmp_path / "s0", f"--reference={tmp_path / 'newer.json'}")
    assert "at most 1, got 99" in said
    assert "(it is a file). Choose another --out." in refused(
        tmp_path / "s0", f"--out={tmp_path / 'newer.json'}"
    )
    (tmp_path / "other.json").write_text('{"format": 1}')
    said = refused(tmp_path / "s0", f"--reference={tmp_path / 'other.json'}")
    assert "must be a file of learning curves, got one without 'curves'" in said


SHIPPED_FILES = sorted(PRETRAINED.glob("*/learning_curve.json"))
KEPT_FILES = sorted((PROJECT / "docs" / "baselines" / "curves").glob("*.json"))


@pytest.mark.parametrize("file", SHIPPED_FILES + KEPT_FILES, ids=lambda file: file.name)
def test_shipped_curves_are_of_their_experiment(file):
    shipped = read_shipped(file)
    if file in SHIPPED_FILES:
        assert file == shipped_file(shipped.experiment)
    else:
        assert file.name.startswith(shipped.experiment)
    assert shipped.score in shipped.curves
    for curves in shipped.curves.values():
        assert all((np.diff(curve.step_P) > 0).all() for curve in curves)
    build(RunConfig, shipped.config)


FIELDS = ("ppo.target_kl", "policy.encoder", "policy.goal_location.scale", "validation.episodes")


@pytest.mark.parametrize("lacking", ["reference", "run"])
def test_fields_that_only_newer_versions_have_stand_at_their_default(tmp_path, capsys, lacking):
    """Of values and of whole sections, also of the task; what differs from it is told."""
    config = RunConfig.completed({**CONFIG, "policy": {"goal_location": {}}})
    for name in ("newer", "older"):
        make_run(tmp_path / name, config=config)
    older = copy.deepcopy(config)
    for key in FIELDS:
        *path, field = key.split(".")
        section = older
        for part in path:
            section = section[part]
        del section[field]
    (tmp_path / "older" / "config.yaml").write_text(yaml.safe_dump(older))
    run, reference = ("older", "newer") if lacking == "run" else ("newer", "older")
    compared = [str(tmp_path / run), f"--reference={tmp_path / reference}"]
    assert main(compared) == 0
    assert "configured otherwise" not in capsys.readouterr().out
    config["ppo"]["target_kl"] = 0.5
    (tmp_path / "newer" / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(compared) == 0
    change = "0.5 -> None" if lacking == "run" else "None -> 0.5"
    assert f"It was configured otherwise: ppo.target_kl: {change}." in capsys.readouterr().out


def test_runs_of_two_versions_are_saved_as_one_curve(tmp_path):
    make_run(tmp_path / "older")
    make_run(tmp_path / "newer", seed=1, config=RunConfig.completed(CONFIG))
    saved = tmp_path / "curve.json"
    assert main([str(tmp_path / "older"), str(tmp_path / "newer"), f"--save={saved}"]) == 0
    assert read_shipped(saved).config["ppo"]["target_kl"] is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "line 51: must hold env_steps"),
        ('{"env_steps": 1020, "val/return": "high"}', "val/return after 1020 steps must be"),
        ("[" * 100_000, "line 51: must be a JSON object, but it is damaged"),
    ],
)
def test_a_line_of_another_kind_is_told(tmp_path, capsys, line, message):
    make_run(tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n")
    assert main([str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "damaged",
    [
        {"curves": []},
        {"curves": {"val/return": []}, "score": "val/success"},
        {"curves": {"val/return": [{"env_steps": [], "score": []}]}},
        {"curves": {"val/return": [{"env_steps": [1, 2], "score": [1.0]}]}},
        {"curves": {"val/return": [{"env_steps": [2, 1], "score": [1.0, 2.0]}]}},
        {"curves": {"val/return": [{"env_steps": [1], "score": ["x"]}]}},
        {"curves": {"val/return": [3]}},
        {"config": None},
    ],
)
def test_a_damaged_file_of_curves_is_told(shipped, tmp_path, capsys, damaged):
    content = json.loads((tmp_path / "curve.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(content | damaged))
    reference = ["--reference", str(tmp_path / "other.json")]
    assert main([str(tmp_path / "s0"), *reference, "--out", str(tmp_path)]) == 2
    assert "must" in capsys.readouterr().err
