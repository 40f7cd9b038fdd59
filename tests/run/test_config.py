"""Every configuration that ships resolves, every field is read, every mistake is named."""

import dataclasses
import re
from math import inf
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import yaml

from relic.files import CheckpointError
from relic.run.components import build_components
from relic.run.compose import (
    compose,
    compose_arguments,
    groups,
    older_sweep_names,
    sweep,
)
from relic.run.config import RunConfig
from relic.run.distributed import ALONE
from relic.run.run_directory import FREE_KEYS, RunDirectory
from relic.schema import Bound, ConfigError, build, differences, to_plain
from relic.train import in_sweep
from relic.train import train as train_command

from .conftest import ROOT, TINY


def composed(*overrides):
    return compose_arguments(overrides)


@pytest.mark.parametrize("experiment", groups()["experiment"])
@pytest.mark.parametrize("ablation", groups()["ablation"])
def test_every_experiment_resolves_with_every_ablation(experiment, ablation):
    config = composed(f"experiment={experiment}", f"ablation={ablation}")
    assert config.experiment == experiment
    assert build(RunConfig, yaml.safe_load(yaml.safe_dump(to_plain(config)))) == config


DEFAULTS = ("none", "prefix_detached", "sink_kv")
"""Ablations that name what Darkroom does anyway."""


@pytest.mark.parametrize("ablation", [a for a in groups()["ablation"] if a not in DEFAULTS])
def test_every_ablation_changes_something(ablation):
    plain = to_plain(composed("experiment=darkroom"))
    ablated = to_plain(composed("experiment=darkroom", f"ablation={ablation}"))
    assert differences(plain, ablated, free=FREE_KEYS)


def fields(cls, path=""):
    for field in dataclasses.fields(cls):
        kind = field.default_factory if dataclasses.is_dataclass(field.default_factory) else None
        if kind is None:
            yield f"{path}{field.name}", field.name
        else:
            yield from fields(kind, f"{path}{field.name}.")


def test_every_field_is_read_somewhere():
    owners = {"config.py", "auxiliary_config.py"}
    sources = [p for p in (ROOT / "relic").rglob("*.py")]
    read = "\n".join(
        # In the files that define fields only reads through `self` count.
        "\n".join(re.findall(r"self\.\w+", p.read_text())) if p.name in owners else p.read_text()
        for p in sources
    )
    unread = [path for path, name in fields(RunConfig) if not re.search(rf"\.{name}\b", read)]
    assert not unread


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=darkrom"], r"experiment: unknown 'darkrom'\. Did you mean 'darkroom'"),
        (["experiment=darkroom,darkrooom"], "Did you mean 'darkroom'"),
        (["ablation=no_shufle"], r"Did you mean 'no_shuffle'"),
        (["ppo.lrr=1"], r"ppo\.lrr: unknown key\. Did you mean 'lr'"),
        (["pppo.lr=1"], r"Did you mean 'ppo'"),
        (["polcy.memory=lstm"], r"Did you mean 'policy'"),
        (["experimnt=darkroom"], r"Did you mean 'experiment'"),
        (["total_steps"], r"must be of the form key=value\. Write key=value\."),
        (["darkroom"], r"Write experiment=darkroom\."),
        (["no_shuffle"], r"Write ablation=no_shuffle\."),
        (["ablation=nosink"], r"Did you mean 'sink_none'"),
        (["lr=1"], r"lr: unknown key\. Did you mean 'ppo\.lr' or 'pretrain\.lr'"),
        (["ppo.prefix_gradient=full"], r"Did you mean 'updates\.prefix_gradient'"),
        (["compass=true"], r"One of the environment is env\.options\.compass\."),
        (["=3"], r"=3: must be of the form key=value"),
        (["env.options..x=3"], r"must be of the form key=value"),
        (["seed=010"], r"seed: must be a whole number, got '010'"),
        (["seed=1:30"], r"seed: must be a whole number, got '1:30'"),
    ],
)
def test_mistakes_on_the_command_line_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        compose_arguments(arguments)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("policy.place.scale=3", r"Use policy\.goal_location\.scale\."),
        ("policy.place=null", r"policy\.place: was renamed\. Use policy\.goal_location\."),
        ("policy={place: {scale: 3}}", r"Use policy\.goal_location\.scale\."),
        ("ppo.place_coef=0.1", r"Use policy\.goal_location\.weight\."),
        ("rollout.captured_steps=true", r"Use rollout\.cuda_graph\."),
        ("policy.transformer.gated_residual=false", r"was removed\. Leave it out"),
        ("policy.encoder.recompute=true", r"was removed\. Leave it out"),
        ("policy.encoder.read_outs={}", r"was removed\. Leave it out"),
        ("policy.encoder.read_outs.source=rgb", r"was removed\. Leave it out"),
    ],
)
def test_keys_of_older_versions_are_refused_by_their_names_of_today(argument, message):
    with pytest.raises(ConfigError, match=message):
        compose_arguments(["experiment=houses_small", argument])


def test_spaces_around_a_choice_mean_nothing():
    assert composed("ablation= rl2").policy == composed("ablation=rl2").policy


TYPED = ["a=b", "a b,c", "12", "ünï/#1", "it's", 'say "x"', "[x", "a: b", "${x}", "*", "~", "1e-3"]
"""Paths that a user may have, each with something that means something elsewhere."""


@pytest.mark.parametrize("text", TYPED)
def test_the_run_gets_the_text_that_was_typed(text):
    assert composed(f"run_dir={text}").run_dir == text
    assert compose({"run_dir": text, "env.id": text}).env.id == text


def test_quotes_around_the_whole_and_null_are_no_part_of_a_text():
    assert composed("run_dir='a=b, c'").run_dir == "a=b, c"
    assert composed('run_dir="null"').run_dir == "null"
    assert composed("run_dir=null").run_dir is None


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("env.options.x=1e-3", {"x": 1e-3}),
        ("+env.options.x=true", {"x": True}),
        ("env.options.x=a=b", {"x": "a=b"}),
        ("env.options.x.y=[1, b]", {"x": {"y": [1, "b"]}}),
        ("env.options={x:1,y: z}", {"x": 1, "y": "z"}),
        ('env.options={"x": null}', {"x": None}),
        ("env.options={x:1,y:[1,b:2]}", {"x": 1, "y": [1, "b:2"]}),
        ("env.options.x=[{a:1},{b:c:d}]", {"x": [{"a": 1}, {"b": "c:d"}]}),
        ("env.options.x=2026-01-01", {"x": "2026-01-01"}),
        ("env.options.x=12:30", {"x": "12:30"}),
        ("env.options.x=010", {"x": "010"}),
        ("env.options.x=[.5e3, -.5, 1., -0, 0x1f]", {"x": [500.0, -0.5, 1.0, 0, 31]}),
        ("env.options.x=[inf, -inf, .inf, 1:30.5]", {"x": [inf, -inf, inf, "1:30.5"]}),
    ],
)
def test_free_options_are_yaml(argument, options):
    before = composed("experiment=darkroom").env.options
    assert composed("experiment=darkroom", argument).env.options == {**before, **options}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("env.options.name=a #1", r"env\.options\.name: .*'a #1', which a comment ends\. Quote"),
        ("ppo.lr=1e-3 # new", r"ppo\.lr: .* which a comment ends"),
        ("env.options={a: 'x # y', b: 2} #", r"which a comment ends"),
        ("ppo={lr: 1e-3, lr: 2e-3}", r"ppo: .* but the key 'lr' stands in it twice\."),
        ("env.options={a: {b: 1, b: 2}}", r"the key 'b' stands in it twice"),
        ("env.options.x=!!set {a}", r"env\.options\.x: must be a number, text, .* got \{'a'\}"),
        ("env.options.x=!!binary aGk=", r"env\.options\.x: must be a number, text, .* got b'hi'"),
        ("env.options={1: 2}", r"env\.options: must have keys of text, got 1\. Quote it\."),
        ("run_dir=", r"run_dir: must have a value, got none\. Write run_dir=null, or leave it out"),
        ("validation.every_rollouts= ", r"every_rollouts: must have a value, got none"),
        ("env.options.size=", r"env\.options\.size: must have a value, got none"),
        ("run_dir=''", r"run_dir: must not be empty, got ''"),
        ("policy.encoder.checkpoint=' '", r"encoder\.checkpoint: must not be empty, got ' '"),
        ("policy.encoder.keys=[rgb,,gps]", r"keys: must hold something between commas"),
        ("env.options.x={1: 2}", r"env\.options\.x: must have keys of text, got 1\. Quote it\."),
    ],
)
def test_nothing_that_was_typed_is_dropped_or_bent(argument, message):
    with pytest.raises(ConfigError, match=message):
        composed(argument)
    quoted = composed("env.options.a='x # y'", "env.options.b=['#1', 2#]", "env.options.c=d#e")
    assert {key: quoted.env.options[key] for key in "abc"} == {
        "a": "x # y",
        "b": ["#1", "2#"],
        "c": "d#e",
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"env.options.x": np.arange(2)}, r"env\.options\.x: must be a number, text, .*array"),
        ({"env.options": {"x": {1}}}, r"env\.options\.x: must be a number, text"),
        ({"env.options": {"x": [{2: 1}]}}, r"env\.options\.x\[0\]: must have keys of text, got 2"),
        ({"seed": np.arange(2)}, "seed: must be a whole number, got array"),
        ({None: 1}, "overrides: keys must be text, got None"),
        ([("seed", 1)], "overrides: must be a dict"),
    ],
)
def test_in_python_what_no_file_can_hold_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose(overrides)
    assert compose({"env.options": {"x": np.float32(0.5)}}).env.options["x"] == 0.5


def test_fields_take_the_type_that_they_have():
    config = composed("ppo.lr=1e-3", "total_steps=1_000", "policy.encoder.keys=[gps, 12]")
    assert (config.ppo.lr, config.total_steps) == (1e-3, 1000)
    assert config.policy.encoder.keys == ("gps", "12")
    assert composed("ppo.max_grad_norm=inf").ppo.max_grad_norm == inf
    assert composed("policy.encoder.keys=gps").policy.encoder.keys == ("gps",)
    assert composed("policy.encoder.vector_widths.position=3").policy.encoder.vector_widths == {
        "gps": 32,
        "position": 3,
    }


def test_a_section_that_may_be_null_takes_keys_that_no_file_names():
    config = composed("experiment=houses_small", "policy.goal_location.scale=2", "seed=3")
    assert config.policy.goal_location is not None
    assert config.policy.goal_location.scale == 2
    assert (
        composed("experiment=darkroom", "policy.goal_location.scale=2").policy.goal_location
        is not None
    )
    assert (
        composed("experiment=houses_small", "policy.goal_location=null").policy.goal_location
        is None
    )


def test_commas_sweep_where_they_stand_in_no_brackets_and_no_quotes():
    jobs = sweep(["experiment=darkroom", "seed=0,1", "env.options.x=[1,2]", "ppo.lr=1e-3, 1e-4"])
    assert len(jobs) == 4
    assert jobs[1].arguments == [
        "experiment=darkroom",
        "seed=0",
        "env.options.x=[1,2]",
        "ppo.lr=1e-4",
    ]
    assert [job.arguments for job in sweep(["run_dir='a,b'"])] == [["run_dir='a,b'"]]
    with pytest.raises(ConfigError, match=r"^seed: must be one value, got 0,1\. Add -m"):
        composed("seed=0,1")


@pytest.mark.parametrize("key", ["env.options", "env.options.task", "validation.options"])
def test_an_empty_mapping_would_take_nothing_away_so_it_is_refused(key):
    with pytest.raises(
        ConfigError, match=rf"^{key}: must have a key, got {{}}\. .*{key}\.\w+=VALUE"
    ):
        composed("experiment=houses_small", f"{key}={{}}")


def test_an_empty_mapping_turns_on_a_section_that_is_absent():
    assert composed("experiment=houses_small", "policy.goal_location={}").policy.goal_location
    assert composed("experiment=houses_small", "policy.recall={}").policy.recall


def names(*arguments):
    return [run.name for run in sweep(["experiment=darkroom", *arguments])]


def test_runs_of_a_sweep_are_named_by_what_is_swept():
    assert names("seed=0,1", "ppo.lr=1e-3,0.01") == [
        "lr_seed/lr-0.001_seed-0",
        "lr_seed/lr-0.01_seed-0",
        "lr_seed/lr-0.001_seed-1",
        "lr_seed/lr-0.01_seed-1",
    ]
    assert names("ablation=none,sink_none") == [
        "ablation/ablation-none",
        "ablation/ablation-sink_none",
    ]
    assert names("total_steps=1e6,2_000_000")[0] == "total_steps/total_steps-1000000"
    # Two keys of one name are told apart by their sections.
    two = names("policy.transformer.width=8,16", "policy.recurrent.width=8,16")
    assert two[0].endswith("/policy.recurrent.width-8_policy.transformer.width-8")


def test_names_of_runs_are_short_and_no_trouble_on_a_command_line():
    many = [f"env.options.an_option_with_a_long_name_{i}=a,b" for i in range(3)]
    awkward = ["init_from=runs/c=d,a b,a-b,'x,y',é", "policy.encoder.keys=[gps],[gps,compass]"]
    for arguments in ([*many, "seed=0"], awkward, [f"env.options.{'x' * 300}=1,2"]):
        found = names(*arguments)
        assert len(set(found)) == len(found)
        for name in found:
            assert all(len(part.encode()) <= 110 for part in name.split("/"))
            assert re.fullmatch(r"[\w.+/-]+", name)


def test_sweeps_that_differ_in_what_they_do_not_sweep_share_no_directory():
    first = names("seed=0,1", "ppo.lr=1e-3")
    assert set(first).isdisjoint(names("seed=0,1", "ppo.lr=1e-4"))
    assert set(first).isdisjoint(names("seed=0,1"))
    # The same sweep with more values, in another order, or with more steps goes on in its own.
    assert names("ppo.lr=0.001", "seed=0,1,2", "total_steps=5e6")[:2] == first
    assert names("seed=3", "ppo.lr=1e-3") != names("seed=4", "ppo.lr=1e-3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=0,1,0"], "seed: must be another value in each run of a sweep, got 0,1,0"),
        (["ppo.lr=1e-3,0.001"], r"ppo\.lr: must be another value in each run"),
    ],
)
def test_no_run_of_a_sweep_is_another_one_again(arguments, message):
    with pytest.raises(ConfigError, match=message):
        sweep(arguments)
    (only,) = sweep(["seed=0,1", "ppo.lr=1e-3", "seed=5"])  # the last counts
    assert only.arguments == ["ppo.lr=1e-3", "seed=5"]


def test_runs_of_a_sweep_that_share_a_directory_are_refused(tmp_path, capsys):
    shared = tmp_path / "shared"
    assert train_command(["-m", "seed=0,1", f"run_dir={shared}", *TINY]) == 2
    assert (
        f"run_dir: must be another in each run of a sweep, got {shared}" in capsys.readouterr().err
    )
    assert not shared.exists()


def test_a_sweep_trains_each_in_a_directory_of_its_own(train, tmp_path):
    train("-m", "seed=0,1", "total_steps=512", "run_dir=null")
    (folder,) = (tmp_path / "runs/multirun/darkroom").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["seed-0", "seed-1"]
    refused = train("-m", "seed=2,-1", "run_dir=null", check=2)
    assert "seed: must be at least 0" in refused.stderr
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["seed=0", "deterministic=true"], "deterministic=True,seed=0"),
        (["threads=null", "env.options.x=[1, 2]"], "++env.options.x=[1,2],threads=null"),
        (["env.options={split: val, a: 1}", "size=none"], "env.options={split:val,a:1},size=none"),
        (["env.options.x='a b'", "total_steps=1e6"], "++env.options.x='a b',total_steps=1000000.0"),
        (["init_from=a/b"], "init_from=a_b"),
        (["policy.goal_location.scale=2"], "++policy.goal_location.scale=2"),
        (["policy.encoder.keys=[gps, compass]"], "policy.encoder.keys=[gps,compass]"),
    ],
)
def test_runs_of_older_sweeps_are_found_by_their_names(arguments, name):
    assert name in older_sweep_names(arguments)


def test_a_sweep_of_an_older_version_goes_on_in_its_directories(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sweeps = Path("runs/multirun/darkroom")
    (run, _) = sweep(["experiment=darkroom", "deterministic=true,false"])
    config = compose_arguments(run.arguments)
    assert in_sweep(config, run).directory == sweeps / "deterministic" / "deterministic-true"
    for name in (
        "deterministic=True,experiment=darkroom",
        "deterministic=true,experiment=darkroom",
    ):
        (sweeps / name).mkdir(parents=True)
        assert in_sweep(config, run).directory == sweeps / name


def test_flags_may_stand_anywhere(train):
    shown = train("--cfg", "job", "ppo.lr=0.25", "-c=job")
    assert yaml.safe_load(shown.stdout)["ppo"]["lr"] == 0.25
    listed = train("--help").stdout
    assert "experiment  darkroom, darkroom_64k" in listed
    said = train("--experiment", "darkroom", check=2).stderr
    assert "--experiment: unknown option, those are --multirun, --cfg job and --help." in said
    assert "Keys have no dashes: experiment=VALUE." in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cfg", "job", "ppo.lr=-1"), "ppo.lr: must be at least 0"),
        (("ppo.lr=abc", "-c", "job"), "ppo.lr: must be a number"),
        (("-m", "--cfg", "job", "seed=0,1"), "got --multirun"),
    ],
)
def test_a_configuration_that_is_only_shown_is_checked(train, arguments, message):
    refused = train(*arguments, check=2)
    assert message in refused.stderr
    assert not refused.stdout


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ppo.num_minibatches=7"], r"ppo\.num_minibatches: must divide num_envs"),
        (["updates.per_rollout=3"], r"updates\.per_rollout"),
        (["policy.transformer.sink=kv1"], r"policy\.transformer\.sink: unknown 'kv1'"),
        (["ppo.gamma=2"], r"ppo\.gamma: must be in \[0, 1\], got 2"),
        (["rollout.num_envs=0"], r"rollout\.num_envs: must be from 1 to"),
        (["rollout.groups=5"], r"rollout\.groups: must divide num_envs"),
        (["checkpoint.best_metric=val/retrun"], r"Did you mean 'val/return'"),
        (["validation.every_rollouts=null"], r"best_metric: must come with a validation"),
        (["ppo.precision=bf16", "device=cpu"], r"ppo\.precision: must be fp32 on the CPU"),
        (["updates.refresh_memory=false"], r"updates\.shuffle: must be off without refresh_memory"),
        (["updates.prefix_window=-1"], r"updates\.prefix_window: must be at least 0"),
        (
            ["updates.prefix_window=64", "policy.memory=lstm"],
            r"updates\.prefix_window: must be 0 where the memory \(\w+\) does not keep",
        ),
        (
            [
                "updates.refresh_in_pass=true",
                "updates.refresh_every=2",
                "ppo.update_epochs=1",
                "ppo.num_minibatches=1",
            ],
            r"updates\.refresh_in_pass: must be off where an update is a single optimiser step",
        ),
        (["updates.loss_chunks=0"], r"updates\.loss_chunks: must be at least 1"),
        (
            ["updates.loss_chunks=2", "policy.memory=lstm"],
            r"updates\.loss_chunks: must be 1 where the memory \(\w+\) does not keep",
        ),
        (
            ["updates.refresh_in_pass=true", "updates.refresh_every=2", "policy.memory=gru"],
            r"updates\.refresh_in_pass: must be false where the memory \(gru\) does not keep",
        ),
        (["rollout.cache_dtype=float64"], r"rollout\.cache_dtype: "),
        (
            ["rollout.cache_dtype=bfloat16", "policy.memory=gru"],
            r"rollout\.cache_dtype: must be float32 with policy\.memory=gru",
        ),
        (
            ["rollout.cuda_graph=true", "policy.memory=gru"],
            r"rollout\.cuda_graph: must be false with policy\.memory=gru",
        ),
        (
            ["updates.refresh_every=2", "cluster=ray", "cluster.placement=split"],
            r"updates\.refresh_every: must be 1 with cluster\.placement=split",
        ),
        (
            ["rollout.cuda_graph=true", "cluster=ray", "cluster.placement=split"],
            r"rollout\.cuda_graph: must be false with cluster\.placement=split",
        ),
        (
            ["rollout.cuda_graph=true", "device=cpu"],
            r"rollout\.cuda_graph: must be false on the CPU",
        ),
        (["total_steps=0"], r"total_steps: must be at least 1"),
        (
            ["updates.loss_chunks=2", "policy.recall={}"],
            r"updates\.loss_chunks: must be 1 with policy\.recall, a shuffled context and",
        ),
    ],
)
def test_values_that_cannot_work_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        composed("experiment=darkroom", *overrides)


def bounded(cls):
    """Yield each dataclass in a configuration with the name of each field that has a bound."""
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if any(isinstance(extra, Bound) for extra in getattr(hint, "__metadata__", ())):
            yield cls, name
        for option in (hint, *get_args(hint)):
            if isinstance(option, type) and dataclasses.is_dataclass(option):
                yield from bounded(option)


@pytest.mark.parametrize(("cls", "name"), list(bounded(RunConfig)))
def test_every_bound_is_checked_where_a_configuration_is_made(cls, name):
    with pytest.raises(ValueError, match=rf"^{name}: must .*, got -1\. [A-Z].*\.$"):
        cls(**{name: -1})


def test_the_command_line_refuses_in_three_lines(train):
    for overrides in (["ppo.lrr=1"], ["ppo.num_minibatches=7"], ["env.id=relic/Darkrom-v0"]):
        refused = train(*overrides, check=2)
        assert 1 <= len(refused.stderr.strip().splitlines()) <= 3
        assert "Traceback" not in refused.stderr + refused.stdout


def test_a_run_that_is_refused_does_not_bind_its_directory(train, tmp_path):
    run_dir = f"run_dir={tmp_path}/run"
    refused = train(run_dir, "policy.goal_location={}", check=2)
    assert "goal_places must be observed" in refused.stderr
    train(run_dir)
    assert (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("validation.options.splt=val", "Did you mean 'split'?"),
        ("validation.options.horizon=90", "must keep episodes within the 20 steps"),
        ("init_from=/nowhere", "/nowhere"),
        ("ppo={clone_steps: 99, expert: memory}", "ppo.expert: must be one that relic/Darkroom-v0"),
    ],
)
def test_what_comes_later_is_refused_before_training(train, tmp_path, override, message):
    run_dir = tmp_path / "run"
    said = train(f"run_dir={run_dir}", override, check=2).stderr
    assert message in said
    assert "Traceback" not in said
    assert not (run_dir / "config.yaml").exists()
    assert not (run_dir / "metrics.jsonl").exists()


def test_a_damaged_run_is_refused_in_a_sentence(train, tmp_path):
    run_dir = tmp_path / "run"
    train(f"run_dir={run_dir}", "total_steps=512")
    (state,) = run_dir.glob("checkpoints/step_*512/run.json")
    state.write_text("{")
    damaged = train(f"run_dir={run_dir}", check=2).stderr
    assert "run.json: must be JSON, but it is damaged" in damaged
    (run_dir / "config.yaml").write_text("a: [")
    damaged = train(f"run_dir={run_dir}", check=2).stderr
    assert "config.yaml: must be the configuration of a run" in damaged
    (tmp_path / "file").touch()
    refused = train(f"run_dir={tmp_path / 'file'}", check=2).stderr
    assert "run_dir: must be a directory that can be written" in refused


def test_a_run_goes_on_in_a_version_with_new_fields(tmp_path):
    config, run = composed("experiment=darkroom"), RunDirectory(tmp_path / "run")
    run.open(config)
    older = yaml.safe_load(run.config.read_text())
    del older["ppo"]["target_kl"]
    run.config.write_text(yaml.safe_dump(older))
    run.open(config)
    assert yaml.safe_load(run.config.read_text()) == to_plain(config)
    older["ppo"]["dropped_later"] = 1
    run.config.write_text(yaml.safe_dump(older))
    with pytest.raises(ConfigError, match=r"ppo\.dropped_later: 1 -> None"):
        run.open(config)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("transformer", "gated_residual", True, r"must be false, as it was removed, got true"),
        ("encoder", "read_outs", {"tables": 2}, r"must be null, as it was removed, got {'tables'"),
    ],
)
def test_a_run_that_used_what_was_removed_is_refused_in_a_sentence(
    tmp_path, section, key, value, message
):
    config, run = composed("experiment=darkroom"), RunDirectory(tmp_path / "run")
    run.open(config)
    older = yaml.safe_load(run.config.read_text())
    older["policy"][section][key] = value
    run.config.write_text(yaml.safe_dump(older))
    with pytest.raises(ConfigError, match=rf"policy\.{section}\.{key}: {message}"):
        run.open(config)


def test_a_run_directory_is_opened_by_one_process_at_a_time(tmp_path):
    config = composed("experiment=darkroom")
    first, second = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run")
    with first.opened(config):
        pass
    with pytest.raises(ConfigError, match="run_dir: must be written by one process at a time"):
        second.opened(config).__enter__()
    assert first.config.exists()
    first.release()
    with second.opened(config):
        pass
    second.release()


def test_a_run_directory_keeps_its_configuration(tmp_path):
    config = composed("experiment=darkroom")
    directory = RunDirectory(tmp_path / "run")
    directory.open(config)
    assert build(RunConfig, yaml.safe_load(directory.config.read_text())) == config
    free = composed(
        "experiment=darkroom", "total_steps=9", "logging.tensorboard=true", "device=cpu"
    )
    directory.open(free)
    with pytest.raises(ConfigError, match=r"ppo\.gamma: 0\.98 -> 0\.9"):
        directory.open(composed("experiment=darkroom", "ppo.gamma=0.9"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env.options.size=huge", "size"),
        ("env.options.sensors=[rgbd]", "sensors"),
        ("policy.encoder.keys=[rbg]", r"encoder\.keys"),
        ("policy.encoder.channels=16", r"encoder\.channels must be 16, as .* got 32"),
        ("policy.encoder.feature_width=240", r"encoder\.feature_width must be 240, .* got 248"),
        ("init_from=pretrained/darkroom", "init_from"),
    ],
)
def test_nothing_is_compiled_for_a_run_that_is_refused(monkeypatch, tmp_path, override, message):
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))  # in which nothing is yet
    config = compose_arguments(["experiment=houses_small", "device=cpu", override])
    with pytest.raises((ConfigError, CheckpointError), match=message):
        build_components(config, ALONE)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
