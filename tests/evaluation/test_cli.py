import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from relic.evaluate import evaluate as main
from relic.evaluate import usage
from relic.evaluation.plans import shared_directory
from relic.evaluation.protocol import load_protocol
from relic.evaluation.records import read_records
from relic.evaluation.settings import Settings, parse
from relic.evaluation.trained_agent import TrainedAgent, find_agents
from relic.files import hold
from relic.schema import ConfigError
from tests.evaluation.conftest import HORIZON, OPTIONS

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "options.size=4",
    f"options.horizon={HORIZON}",
    "trials=3",
    "repeats=2",
    "episodes=4",
    "block=2",
    "progress=false",
)


def files_of(directory: Path) -> dict[str, bytes]:
    files = [p for p in directory.rglob("*") if p.is_file()]
    return {str(p.relative_to(directory)): p.read_bytes() for p in files}


def test_evaluation_of_a_run_writes_the_fixed_names(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([f"run={run}", f"out={out}", *SMALL]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["protocol"] == "darkroom_test-changed"
    assert len(summary["protocol_hash"]) == 12
    assert (summary["episodes"], summary["trials"], summary["env_steps"]) == (24, 3, 200)
    assert summary["trained_on"] is False
    for name in ("success", "return", "length"):
        curve = summary["metrics"][name]
        assert all(len(curve[part]) == 4 for part in ("mean", "low", "high", "count"))
        assert curve["count"] == [6] * 4
        assert {"mean", "low", "high", "cleared_mean"} <= summary["gain"][name].keys()
        if name != "length":  # which never varies
            assert (out / "plots" / f"{name}.png").stat().st_size > 1000
    records = read_records(out / "records.jsonl")
    means = [sum(r["return"] for r in records if r["episode"] == e) / 6 for e in range(4)]
    assert summary["metrics"]["return"]["mean"] == pytest.approx(means)
    said = capsys.readouterr().out
    assert "CHANGED: episodes=4 instead of 40" in said
    assert summary["protocol_hash"] in said
    assert "gain at 3" in said
    assert re.search(r"^length: [\d.]+ in all episodes$", said, re.MULTILINE)


def test_evaluating_twice_gives_the_same_bytes(run, tmp_path):
    for name in ("one", "two"):
        assert main([f"run={run}", f"out={tmp_path / name}", *SMALL]) == 0
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    before = files_of(tmp_path / "one")
    assert main([f"run={run}", f"out={tmp_path / 'one'}", *SMALL]) == 0
    assert files_of(tmp_path / "one") == before


def test_a_killed_evaluation_goes_on_and_ends_alike(run, tmp_path):
    # 24 episodes a trial take long enough to be killed between the first block and the last.
    arguments = [f"run={run}", *SMALL, "episodes=24", "controls=[]"]
    assert main([*arguments, f"out={tmp_path / 'whole'}"]) == 0
    cut = tmp_path / "cut"
    started = subprocess.Popen(
        [sys.executable, str(ROOT / "eval.py"), *arguments, f"out={cut}"],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not list(cut.glob("blocks/kept-00001.jsonl.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    assert not (cut / "records.jsonl").exists()
    assert main([*arguments, f"out={cut}"]) == 0
    assert files_of(cut) == files_of(tmp_path / "whole")


def test_default_directory_names_protocol_and_checkpoint(run):
    assert main([f"run={run}", *SMALL, "controls=[]", "checkpoint=best"]) == 0
    (summary,) = run.glob("evaluations/darkroom_test-changed-*/*/summary.json")
    assert summary.parent.name == "step_000000000100"
    content = json.loads(summary.read_text())
    assert content["gain"]["return"]["cleared_mean"] is None
    assert content["protocol_hash"] in summary.parent.parent.name


def test_a_checkpoint_alone_is_evaluated_with_the_configuration_of_its_run(run, tmp_path):
    checkpoint = run / "checkpoints" / "step_000000000100"
    assert main([f"run={checkpoint}", f"out={tmp_path / 'out'}", *SMALL, "controls=[]"]) == 0
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    for file in (*checkpoint.iterdir(), run / "config.yaml"):
        (shipped / file.name).write_bytes(file.read_bytes())
    assert main([f"run={shipped}", f"out={tmp_path / 'two'}", *SMALL, "controls=[]"]) == 0
    records = [tmp_path / name / "records.jsonl" for name in ("out", "two")]
    assert records[0].read_bytes() == records[1].read_bytes()


def refused(capsys, *arguments) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") <= 3
    return said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["epsiodes=3"], "epsiodes: unknown key. Did you mean 'episodes'?"),
        (["worker=3"], "worker: unknown key. Did you mean 'workers'?"),
        (["options.splt=val"], "Did you mean 'split'?"),
        (["protocol=darkroom_tset"], "Did you mean 'darkroom_test'?"),
        (["protocol=houses_small_val"], "must be of the run's environment relic/Darkroom-v0"),
        (["trials=0"], "trials: must be at least 1, got 0"),
        (["trials=40"], "must name each of the 4 trials of relic-darkroom-v1/4x4/test once"),
        (["trials=many"], "trials: must be a whole number, got 'many'"),
        (["workers=0"], "workers: must be from 1 to 4096, got 0"),
        (["workers"], "workers: must be of the form key=value. Write key=value."),
        (["pretrained/darkroom"], "Write run=pretrained/darkroom."),
        (["runs/not_there"], "Write run=runs/not_there."),
        (["--run", "x"], "--run: must be a key without dashes. Write run=VALUE."),
        (["darkroom_test"], "Write protocol=darkroom_test."),
        (["videos=[7]"], "videos: must name episodes as TRIAL/EPISODE, got '7'. Write 7/0"),
        (["videos=[x/1]"], "got 'x/1'. Write 3/0"),
        ([f"out={__file__}"], f"got {__file__} (it is a file). Choose another out."),
        (["seed.x=3"], "seed is a single value"),
        (["trials=[1"], "trials: must be a YAML value"),
        (["controls=[cleard]"], "Did you mean 'cleared'?"),
        (["controls=[kept]"], "controls[0]: unknown 'kept'"),
        (["controls=[cleared, cleared]"], "controls: must differ"),
        (["controls=[foreign]", "trials=1"], "foreign needs a trial in another place"),
        (["name=mine"], "name: unknown key"),
        (
            ["options.split=train"],
            "trials that the run was trained on, got 3 of 3 in relic-darkroom-v1/4x4/train",
        ),
        (["options.split=train_all"], "must not use trials that the run was trained on"),
        (["options.horizon=50"], "within the 12 steps"),
        (["options.horizon=abc"], "abc"),
        (["device=meta"], "device: must be a device of this machine, got meta"),
        (["device=cudda"], "device: must be a device of this machine, got cudda"),
        pytest.param(
            ["device=cuda"],
            "device: must be a device of this machine, got cuda",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here"),
        ),
    ],
)
def test_wrong_arguments_are_refused_with_a_reason(run, capsys, arguments, message):
    small = [
        a for a in SMALL if a.partition("=")[0] not in {b.partition("=")[0] for b in arguments}
    ]
    assert message in refused(capsys, f"run={run}", *small, *arguments)
    assert not (run / "evaluations").exists()


def test_a_run_on_joint_splits_was_trained_on_each_part(run, capsys):
    config = {"env": {"id": "relic/Darkroom-v0", "options": {**OPTIONS, "split": "train_all"}}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    one = [a for a in SMALL if not a.startswith("trials")]
    said = refused(capsys, f"run={run}", *one, "trials=1", "protocol=darkroom_val")
    assert "trained on, got 1 of 1 in relic-darkroom-v1/4x4/val" in said


def test_trained_trials_can_be_measured_if_asked_for(run, tmp_path):
    out = tmp_path / "out"
    arguments = ("options.split=train", "allow_trained=true", "controls=[]")
    assert main([f"run={run}", f"out={out}", *SMALL, *arguments]) == 0
    assert json.loads((out / "summary.json").read_text())["trained_on"] is True


def test_directories_without_a_run_are_refused(run, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "found neither. Check the path." in refused(capsys, f"run={empty}")
    assert "found neither. Check the path." in refused(capsys, f"run={tmp_path / 'nowhere'}")
    assert "run: must name at least one run" in refused(capsys, "workers=2")
    (run / "config.yaml").unlink()
    assert "must have the config.yaml of its run" in refused(capsys, f"run={run}")
    (run / "config.yaml").write_text("env: 3")
    assert "config.yaml: must say env.id and env.options" in refused(capsys, f"run={run}")


def test_checkpoints_of_another_format_or_architecture_are_refused(run, capsys):
    description = run / "checkpoints" / "step_000000000200" / "policy.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps({**content, "format": 99}))
    assert "99" in refused(capsys, f"run={run}", *SMALL)
    del content["sha256"]
    content["config"]["transformer"]["num_layers"] = 2
    description.write_text(json.dumps(content))
    assert "policy.safetensors" in refused(capsys, f"run={run}", *SMALL)


def test_an_environment_that_is_not_here_is_named(run, capsys):
    config = {"env": {"id": "my_module:make", "options": {}}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "'my_module:make' must name a function" in refused(capsys, f"run={run}")


def test_another_evaluation_in_the_directory_is_refused(run, tmp_path, capsys):
    out = f"out={tmp_path / 'out'}"
    assert main([f"run={run}", out, *SMALL, "controls=[]"]) == 0
    said = refused(capsys, f"run={run}", out, *SMALL, "seed=3")
    assert "holds another evaluation: protocol.seed is 0 there and 3 here" in said


def test_trials_in_which_no_episode_ends_are_refused(run, tmp_path, capsys):
    small = [a for a in SMALL if not a.startswith("episodes")]
    arguments = (*small, "episodes=null", "steps=3", f"out={tmp_path / 'out'}")
    assert "protocol.steps: must let some trial end an episode, got 3" in refused(
        capsys, f"run={run}", *arguments
    )


def test_a_directory_is_written_by_one_evaluation_at_a_time(run, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    with hold(out, "out"):
        said = refused(capsys, f"run={run}", f"out={out}", *SMALL)
    assert (
        f"out: must be written by one process at a time, but another one is at work in {out}"
        in said
    )
    assert main([f"run={run}", f"out={out}", *SMALL, "controls=[]"]) == 0


def test_out_must_be_a_directory(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert "file" in refused(capsys, f"run={run}", f"out={tmp_path / 'file'}", *SMALL)


def test_a_checkpoint_that_is_being_written_is_none_of_all(run):
    checkpoints = run / "checkpoints"
    shutil.copytree(checkpoints / "step_000000000200", checkpoints / "step_000000000300.unfinished")
    names = [agent.checkpoint.name for agent in find_agents(run, "all")]
    assert "step_000000000200" in names
    assert not [name for name in names if name.endswith("unfinished")]


def test_a_comparison_of_runs_with_nothing_in_common_goes_into_the_first():
    def shared(*roots: str) -> Path:
        agents = [TrainedAgent(Path(r), Path(r), "relic/Darkroom-v0", {}, {}, None) for r in roots]
        settings = Settings(run=roots)
        return shared_directory(agents, settings, [load_protocol("darkroom_test")])

    assert shared("/a/runs/x", "/b/runs/y").is_relative_to("/a/runs/x")
    assert shared("/a/runs/x", "/a/other/y").parents[1] == Path("/a")
    assert shared("/a/runs/x").parents[1] == Path("/a/runs/x")


def test_controls_can_be_added_to_an_evaluation_that_is_done(run, tmp_path):
    out = tmp_path / "out"
    for controls in ("[]", "[foreign, cleared, shuffled]"):
        assert main([f"run={run}", f"out={out}", *SMALL, f"controls={controls}"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    for name in ("cleared", "shuffled", "foreign"):
        records = read_records(out / f"records_{name}.jsonl")
        means = [sum(r["return"] for r in records if r["episode"] == e) / 6 for e in range(4)]
        assert summary["metrics"]["return"][f"{name}_mean"] == pytest.approx(means)
        gain = summary["gain"]["return"]
        assert gain[f"{name}_mean"] == pytest.approx(means[3] - means[0])
        assert gain[f"{name}_low"] <= gain[f"{name}_mean"] <= gain[f"{name}_high"]


def test_names_stay_text_and_null_swaps_limits():
    settings, changes = parse(["run=12", "episodes=null", "steps=8192", "options.task.x=1"])
    assert settings.run == ("12",)
    many = ",".join(map(str, range(200)))  # longer than any path
    assert len(parse(["run=12", f"replay=[{many}]"])[0].replay) == 200
    assert len(parse([f"run=[{many}]"])[0].run) == 200
    settings, _ = parse(["run=[runs/a b, 12]", "out=x=y, #1", "controls=foreign"])
    assert (settings.run, settings.out) == (("runs/a b", "12"), "x=y, #1")
    assert settings.controls == ("foreign",)
    assert changes == {"episodes": None, "steps": 8192, "options.task.x": 1}
    with pytest.raises(ConfigError, match="checkpoint: unknown 'newest'"):
        parse(["run=12", "checkpoint=newest"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=[a,,b]"], r"run: must hold something between commas, got \[a,,b\]\. Drop one"),
        (["run=[,a]"], "run: must hold something between commas"),
        (["run="], "run: must have a value, got none"),
        (["run=['']"], r"run\[0\]: must not be empty"),
        (["run=[a, b"], "run: must be a list, .* End it with a bracket"),
        (["run=a", "out="], "out: must have a value, got none"),
        (["run=a", "out=' '"], "out: must not be empty"),
        (["run=a", "controls=[cleared,,]"], "controls: must hold something between commas"),
    ],
)
def test_a_gap_is_no_path_to_where_the_command_is_started(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(arguments)


def test_paths_may_hold_commas(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,,b").mkdir()
    assert parse(["run=[a,,b, c,]"])[0].run == ("a,,b", "c")


def test_usage_lists_every_key(capsys):
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.strip() == usage()
    assert main([]) == 2
    assert {"workers", "episodes", "allow_trained"} <= set(usage().split())
    assert main(["--help", "workers"]) == 0
    assert "workers=null    (whole number or null, from 1 to 4096)" in capsys.readouterr().out
    assert main(["--help", "worker"]) == 2
    assert "Did you mean 'workers'?" in capsys.readouterr().err
