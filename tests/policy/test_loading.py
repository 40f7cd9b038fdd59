import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file

import relic.policy
from relic.policy.config import PolicyConfig
from relic.policy.encoders.config import EncoderConfig, VisualKind, VitConfig
from relic.policy.encoders.vit import VisionTransformer
from relic.policy.loading import (
    load_policy_weights,
    read_meta,
    save_policy,
    space_from_json,
    space_to_json,
)
from relic.policy.memory.config import TransformerConfig
from relic.policy.policy import Policy
from relic.policy.weights import CheckpointError

OBSERVATIONS = spaces.Dict(
    gps=spaces.Box(-np.inf, np.inf, (2,), np.float32),
    position=spaces.Box(np.array([-1, 0], np.float32), np.array([1, 5], np.float32)),
    goal=spaces.Discrete(4),
)
ACTIONS = spaces.Discrete(3)


def _config(**encoder):
    transformer = TransformerConfig(num_layers=1, num_heads=2, width=8, mlp_width=16)
    return PolicyConfig(transformer=transformer, encoder=EncoderConfig(**encoder))


def _policy(seed=0, observations=OBSERVATIONS, **encoder):
    torch.manual_seed(seed)
    return Policy(_config(**encoder), observations, ACTIONS, max_episode_steps=20)


def _act(policy, steps=4):
    """Act on fixed observations with fixed noise; return everything that was said."""
    policy.observation_space.seed(0)
    noise = torch.rand(steps, 2, 1, generator=torch.Generator().manual_seed(0))
    state = policy.initial_state(2, steps)
    said = []
    for step in range(steps):
        drawn = [policy.observation_space.sample() for _ in range(2)]
        observation = {k: np.stack([d[k] for d in drawn]) for k in drawn[0]}
        result = policy.step(observation, state, noise=noise[step])
        said += [result.action.float(), result.log_prob, result.value]
    return torch.stack(said)


@pytest.fixture
def saved(tmp_path):
    policy = _policy()
    save_policy(tmp_path, policy, env_steps=12)
    return policy, tmp_path


def test_a_policy_is_loaded_in_one_line_and_acts_alike(saved):
    policy, path = saved
    loaded = relic.policy.load(path)
    assert torch.equal(_act(loaded), _act(policy))
    assert loaded.config == policy.config
    assert loaded.observation_space == OBSERVATIONS
    assert loaded.action_space == ACTIONS
    assert loaded.max_episode_steps == 20
    assert not loaded.training
    assert read_meta(path) == {"env_steps": 12}
    assert sorted(p.name for p in path.iterdir()) == ["policy.json", "policy.safetensors"]


def test_a_run_directory_stands_for_its_checkpoints(tmp_path):
    store = tmp_path / "checkpoints"
    policies = {"step_1": _policy(1), "step_2": _policy(2)}
    for name, policy in policies.items():
        save_policy(store / name, policy)
    (store / "latest.json").write_text(json.dumps({"name": "step_2"}))
    (store / "best.json").write_text(json.dumps({"name": "step_1", "score": 1.0}))
    for path in (tmp_path, str(store)):
        assert torch.equal(_act(relic.policy.load(path)), _act(policies["step_2"]))
    best = relic.policy.load(tmp_path, which="best")
    assert torch.equal(_act(best), _act(policies["step_1"]))
    (store / "latest.json").write_text(json.dumps({"name": "step_3"}))
    with pytest.raises(FileNotFoundError, match=r"latest.json: names .*step_3, which holds no"):
        relic.policy.load(tmp_path)
    (store / "latest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"latest.json: must name a checkpoint, got a damag"):
        relic.policy.load(tmp_path)


def test_frozen_encoders_are_saved_with_the_policy(tmp_path):
    """Loading needs no file of the pretrained encoder, and two cameras save one ViT."""
    vit = VisionTransformer(width=24, depth=1, heads=3, patch=8, image_size=32)
    file = tmp_path / "vit.pth"
    torch.save(vit.state_dict(), file)
    cameras = {k: spaces.Box(0, 255, (32, 32, 3), np.uint8) for k in ("left", "right")}
    policy = _policy(
        observations=spaces.Dict(cameras),
        visual=VisualKind.VIT,
        vit=VitConfig(width=24, depth=1, heads=3, patch=8, image_size=32),
        checkpoint=str(file),
    )
    save_policy(tmp_path / "saved", policy)
    file.unlink()
    loaded = relic.policy.load(tmp_path / "saved")
    assert torch.equal(_act(loaded, 2), _act(policy, 2))
    assert not any(p.requires_grad for p in loaded.encoder.images.parameters())


def _edit(path, edit):
    content = json.loads((path / "policy.json").read_text())
    del content["sha256"]  # as who edits it by hand is told
    edit(content)
    (path / "policy.json").write_text(json.dumps(content))


def _edit_weights(path, edit, *, sums=False):
    """Change the weights on disk, with or without the checksums that belong to them."""
    tensors = load_file(path / "policy.safetensors")
    edit(tensors)
    save_file(tensors, path / "policy.safetensors")
    if not sums:
        _edit(path, lambda content: content.update(checksums={}))


KEY = "token.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(KEY), r"policy.safetensors: must hold token.weight \[8, \d+\], got no"),
        (
            lambda t: t.update({KEY: torch.zeros(3, 3)}),
            r"policy.safetensors: token.weight must have shape \[8, \d+\], got \[3, 3\]",
        ),
        (
            lambda t: t.update({"token.wait": t[KEY].clone()}),
            r"policy.safetensors: holds token.wait \[8, \d+\], which the model lacks",
        ),
        (
            lambda t: t.update({"token.wait": t.pop(KEY)}),
            r"must hold token.weight .*It has 'token.wait' instead",
        ),
        (lambda t: t[KEY].fill_(np.nan), r"token.weight \[8, \d+\] must be finite, got NaN"),
    ],
)
def test_weights_that_do_not_fit_are_named(saved, edit, message):
    _, path = saved
    _edit_weights(path, edit)
    with pytest.raises(CheckpointError, match=message):
        relic.policy.load(path)


def test_damaged_files_are_named(saved):
    _, path = saved
    weights = path / "policy.safetensors"
    whole = weights.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\xff" * 100):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"policy.safetensors: must be a safetensors"):
            relic.policy.load(path)
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    weights.write_bytes(bytes(flipped))
    with pytest.raises(CheckpointError, match=r"safetensors: [\w.]+ \[[\d, ]+\] must have the che"):
        relic.policy.load(path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"policy.safetensors: must hold the weights"):
        relic.policy.load(path)


def test_weights_of_another_checkpoint_are_refused(saved, tmp_path):
    _, path = saved
    save_policy(tmp_path / "other", _policy(1))
    (tmp_path / "other" / "policy.safetensors").replace(path / "policy.safetensors")
    with pytest.raises(CheckpointError, match="damaged or of another checkpoint"):
        relic.policy.load(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format=99), r"'format' must be at most 1, got 99. Update this program"),
        (lambda c: c.pop("format"), r"'format' must be a whole number from 1, got None"),
        (lambda c: c.pop("action_space"), r"must hold the key 'action_space', got none"),
        (lambda c: c["action_space"].update(type="Text"), r"space: type must be .*got 'Text'"),
        (
            lambda c: c["config"]["transformer"].update(width_=8),
            r"config.transformer.width_: unknown key. Did you mean 'width'",
        ),
        (
            lambda c: c["config"]["transformer"].update(num_heads=3),
            r"config.transformer.num_heads: must divide",
        ),
        (lambda c: c["config"]["transformer"].update(width=16), r"must have shape|must hold"),
        (lambda c: c.update(observation_space=c["action_space"]), r"must be a Dict"),
        (lambda c: c.update(max_episode_steps="many"), r"policy.json: "),
    ],
)
def test_descriptions_that_do_not_fit_are_named(saved, edit, message):
    _, path = saved
    _edit(path, edit)
    with pytest.raises(CheckpointError, match=message) as error:
        relic.policy.load(path)
    assert str(path) in str(error.value)


def test_missing_and_damaged_descriptions_are_named(saved, tmp_path):
    _, path = saved
    with pytest.raises(FileNotFoundError, match=r"nowhere: must be a checkpoint .*found neither"):
        relic.policy.load(tmp_path / "nowhere")
    (path / "policy.json").write_text('{"format": 1')
    with pytest.raises(CheckpointError, match=r"policy.json: must be JSON, got a damaged file"):
        relic.policy.load(path)


def test_weights_are_copied_into_a_policy_that_is_there(saved):
    policy, path = saved
    other = _policy(1)
    load_policy_weights(other, path)
    assert torch.equal(_act(other), _act(policy))
    with pytest.raises(CheckpointError, match=r"policy.safetensors: .* must have shape"):
        load_policy_weights(_policy(category_width=5), path)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (2,), np.float32),
        spaces.Box(0, 255, (64, 64, 3), np.uint8),
        spaces.Box(np.array([0.1, -np.inf]), np.array([1 / 3, 2.0]), dtype=np.float64),
        spaces.Box(-(2**40), 2**40, (), np.int64),
        spaces.Discrete(5, start=2),
        spaces.MultiDiscrete([3, 4], start=[0, 1]),
        spaces.MultiBinary(4),
        spaces.MultiBinary([2, 3]),
        spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2)), c=spaces.MultiBinary(1)),
    ],
)
def test_spaces_survive_json(space):
    text = json.dumps(space_to_json(space), allow_nan=False)
    assert len(text) < 300
    restored = space_from_json(json.loads(text))
    assert restored == space
    assert restored.dtype == space.dtype


def test_spaces_without_a_rule_are_named():
    with pytest.raises(TypeError, match="space: must be Dict, Box"):
        space_to_json(spaces.Text(3))
