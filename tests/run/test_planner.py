"""What a run says that it will need is what it needs."""

import contextlib
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from relic.run import footprint, planner
from relic.run.components import build_envs, build_policy, build_rollout
from relic.run.compose import compose
from relic.schema import ConfigError

from .conftest import ROOT

SIZES = {"policy.transformer": {"num_layers": 2, "num_heads": 2, "width": 16, "mlp_width": 32}}


def held(*roots):
    """Return the bytes of all tensors that objects lead to, shared ones once."""
    sizes, known, waiting = {}, set(), [*roots]
    while waiting:
        one = waiting.pop()
        if id(one) in known:
            continue
        known.add(id(one))
        if isinstance(one, torch.Tensor):
            storage = one.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        elif isinstance(one, list | tuple):
            waiting.extend(one)
        elif isinstance(one, dict):
            waiting.extend(one.values())
        elif type(one).__module__.startswith("relic.policy.memory"):
            names = [n for kind in type(one).__mro__ for n in getattr(kind, "__slots__", ())]
            names += vars(one) if hasattr(one, "__dict__") else ()
            waiting.extend(getattr(one, name, None) for name in names)
    return sum(sizes.values())


@pytest.fixture
def policy():
    def make(**overrides):
        config = compose({"experiment": "darkroom", **SIZES, **overrides})
        return build_policy(config, build_envs(config, range(1))[0], torch.device("cpu"))

    return make


def test_the_peak_is_that_of_the_tensors_that_live():
    with footprint.peak_memory(torch.device("cpu")) as peak:
        first = torch.zeros(1000)
        second = first + 1  # both live: 8,000 bytes
        del first
        third = second.view(10, 100)  # a view holds nothing of its own
        fourth = third.sum(0)
        del second, third
        fifth = torch.zeros(1500)  # 400 + 6,000 bytes
        del fourth, fifth
    assert peak[0] == 8000


@pytest.mark.parametrize(("steps", "width"), [(96, 16), (1536, 64)])
def test_short_passes_foretell_long_ones(policy, steps, width, monkeypatch):
    """With slices as long in proportion, half a pass holds half as much.

    All passes of a case are on one side of the sizes from which compiled kernels are called.
    """
    sizes = {"policy.transformer.width": width, "policy.transformer.mlp_width": 2 * width}
    built = policy(**sizes, **{"policy.encoder.slice_steps": steps // 4})
    nothing = contextlib.nullcontext()
    direct = footprint.learning_footprint(built, steps, nothing).bytes(steps)
    direct_reading = footprint.reading_footprint(built, steps, nothing).bytes(steps)
    monkeypatch.setattr(footprint, "MEASURED_STEPS", steps // 3)
    foretold = footprint.learning_footprint(built, steps, nothing).bytes(steps)
    assert foretold == pytest.approx(direct, rel=0.02)
    assert footprint.reading_footprint(built, steps, nothing).bytes(steps) == pytest.approx(
        direct_reading, rel=0.02
    )


@pytest.mark.parametrize("checkpoints", [False, True])
def test_keys_that_are_kept_are_planned_for(policy, checkpoints):
    built = policy(**{"policy.transformer.gradient_checkpointing": checkpoints})
    nothing = contextlib.nullcontext()
    plain, keeping = (
        footprint.learning_footprint(built, 400, nothing, keeps_keys=keeps).bytes(400)
        for keeps in (False, True)
    )
    # Without checkpoints the pass holds them anyway; with them, a copy of 2 x 2 layers x 16.
    assert keeping - plain == (400 * 4 * 2 * 2 * 16 if checkpoints else 0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_rollout_holds_features_in_their_own_type(dtype):
    keys = {"experiment": "houses_small", "rollout": {"num_envs": 16, "num_steps": 8}}
    config = compose({**keys, "policy.encoder.feature_dtype": dtype})
    built = build_policy(config, build_envs(config, range(1))[0], torch.device("cpu"))
    rollout = build_rollout(config, built, range(16), "cpu")
    assert rollout.observation["rgb_features"].dtype is getattr(torch, dtype)
    assert planner.plan_memory(config, built, rows=16).rollout == rollout.nbytes


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"policy.transformer.attention_window": 64},
        {"ablation": "rl2_gru"},
        {"ablation": "transformer_xl"},
        {"ablation": "memo"},
        {"ablation": "delta_rule"},
    ],
    ids=str,
)
def test_what_a_chunk_began_with_is_planned_for(policy, overrides):
    config = compose({"experiment": "darkroom", **SIZES, **overrides})
    built = policy(**overrides)
    planned = planner.plan_memory(config, built, rows=8).cache
    state = built.initial_state(8, config.rollout.num_steps).memory
    assert 0.9 * planned < held(state, state.snapshot()) < 1.1 * planned


def test_a_lesson_is_planned_for_as_the_long_pass_that_it_is():
    def planned(**overrides):
        keys = {"experiment": "houses_small_detections", "rollout.num_steps": 128, **overrides}
        config = compose({**keys, "updates.refresh_tokens": 1, **SIZES})
        built = build_policy(config, build_envs(config, range(1))[0], torch.device("cpu"))
        return planner.activation_bytes(config, built, 64)

    no_full, no_lesson = {"updates.full_per_rollout": 0}, {"policy.recall.relabelled": 0}
    no_lesson |= {"ppo.lesson_steps": 0, "policy.recall.goal_seen": None}
    whole = planned()
    assert planned(**no_full) == whole
    assert planned(**no_full, **no_lesson) < 0.5 * whole


def test_checkpoints_and_slices_hold_less(policy):
    nothing = contextlib.nullcontext()
    plain, saving, sliced = (
        footprint.learning_footprint(policy(**overrides), 400, nothing).bytes(400)
        for overrides in (
            {},
            {"policy.transformer.gradient_checkpointing": True},
            {
                "policy.transformer.gradient_checkpointing": True,
                "policy.encoder.slice_steps": 50,
            },
        )
    )
    assert plain > saving > sliced


def test_measuring_leaves_the_policy_as_it_was(policy):
    built = policy()
    before = [p.clone() for p in built.parameters()]
    config = built.config
    footprint.learning_footprint(built, 5000, contextlib.nullcontext())
    assert built.config is config
    assert all(p.grad is None for p in built.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, built.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["darkroom_64k", "houses_64k"])
def test_updates_keep_to_the_plan(experiment):
    command = [sys.executable, ROOT / "benchmarks" / "bench_memory.py"]
    options = ["--experiment", experiment, "--contexts", "16384", "--rows", "2"]
    said = subprocess.run([*command, *options], capture_output=True, text=True, timeout=600)
    assert said.returncode == 0, said.stderr
    (row,) = json.loads(said.stdout.splitlines()[-1])["results"]
    assert row["ratio"] == pytest.approx(1.0, abs=0.1)


def test_ranks_share_the_memory_of_the_machine(policy, monkeypatch):
    config = compose({"experiment": "darkroom", **SIZES, "rollout.num_steps": 4096})
    plan = planner.plan_memory(config, policy(), rows=32)
    free = 2 * plan.on_host
    monkeypatch.setattr(planner.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    planner.plan_memory(config, policy(), rows=32).check(config)
    shared = planner.plan_memory(config, policy(), rows=32, processes=4)
    assert "each of 4 ranks needs " in shared.lines()[1]
    with pytest.raises(ConfigError, match="rollout: must fit into memory"):
        shared.check(config)


def test_ranks_share_the_memory_of_a_gpu(policy, monkeypatch):
    config = compose({"experiment": "darkroom", **SIZES})
    monkeypatch.setattr(planner.torch.cuda, "mem_get_info", lambda device: (800, 1000))
    monkeypatch.setattr(type(policy()), "device", torch.device("cuda"))
    monkeypatch.setattr(planner, "activation_bytes", lambda *_: 0)
    assert planner.plan_memory(config, policy(), rows=32).free_device == 800
    assert planner.plan_memory(config, policy(), rows=32, on_device=4).free_device == 200
