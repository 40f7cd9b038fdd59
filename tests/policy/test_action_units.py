"""Continuous actions: the policy's distribution lies in the box, whatever its bounds."""

import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file

from relic.policy import load
from relic.policy.config import PolicyConfig
from relic.policy.loading import save_policy
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch
from relic.schema import build

INF = np.inf
HUGE = float(np.finfo(np.float32).max)
SEEN = spaces.Dict(seen=spaces.Box(-1, 1, (2,), np.float32))


def box(*bounds, dtype=np.float32):
    low, high = np.array(bounds, dtype).T
    return spaces.Box(low, high, dtype=dtype)


def make(space):
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "num_heads": 2, "width": 16, "mlp_width": 16}
    config = build(PolicyConfig, {"transformer": sizes})
    return Policy(config, SEEN, space, max_episode_steps=8).eval()


def act(policy, rows=2048):
    noise = np.random.default_rng(0).random((rows, policy.noise_size), np.float32)
    observation = {"seen": np.zeros((rows, 2), np.float32)}
    return policy.step(observation, policy.initial_state(rows, 2), noise=noise)


@pytest.mark.parametrize(
    ("bounds", "at_zero", "at_one"),
    [
        ((10, 20), 15, 20),
        ((-2, 2), 0, 2),
        ((-0.1, 0.1), 0, 0.1),
        ((-1, 3), 1, 3),
        ((-1, 1), 0, 1),
        ((-INF, INF), 0, 1),
        ((-HUGE, HUGE), 0, 1),
        ((0, INF), 1, 2),
        ((0, HUGE), 1, 2),
        ((30, INF), 31, 32),
        ((-5, INF), 0, 1),
        ((-INF, 0), -1, 0),
        ((-INF, 7), 0, 1),
        ((3, 3), 3, 3),
    ],
)
def test_bounds_say_what_zero_and_one_are(bounds, at_zero, at_one):
    policy = make(box(bounds, (10, 20)))
    action = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    given = policy.clip_action(policy.to_environment(action))
    np.testing.assert_allclose(given, [[at_zero, 15], [at_one, 15]], rtol=1e-6)
    own = policy.from_environment(policy.to_environment(action))
    torch.testing.assert_close(own, action)


@pytest.mark.parametrize("bounds", [(10, 20), (-1, 3), (0, INF), (-INF, -4), (0, 0.01)])
def test_a_new_policy_acts_inside_its_box(bounds):
    """Two thirds of a normal distribution lie within one deviation."""
    policy = make(box(bounds))
    step = act(policy)
    given = policy.clip_action(policy.to_environment(step.action))
    low, high = np.float32(bounds)
    inside = ((given > low) & (given < high)).float().mean()
    assert 0.6 < inside < 0.9
    assert all(policy.action_space.contains(action) for action in given.numpy())
    mode = policy.step(
        {"seen": np.zeros((1, 2), np.float32)}, policy.initial_state(1, 2), deterministic=True
    )
    likeliest = policy.clip_action(policy.to_environment(mode.action))
    assert low < float(likeliest) < high


@pytest.mark.parametrize("bounds", [(-1, 1), (-INF, INF)])
def test_boxes_around_zero_are_left_as_they_are(bounds):
    policy = make(box(bounds))
    action = act(policy).action
    assert torch.equal(policy.to_environment(action), action)
    assert torch.equal(policy.from_environment(action), action)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_environments_are_given_their_own_type(dtype):
    policy = make(box((1000, 1000.5), dtype=dtype))
    given = policy.clip_action(policy.to_environment(torch.tensor([[-3.0], [0.0], [9.0]])))
    assert given.numpy().dtype == dtype
    np.testing.assert_allclose(given[:, 0].double(), [1000, np.float64(dtype(1000.25)), 1000.5])


def test_log_probs_are_of_the_policys_own_units():
    """The same density for every box, so that entropy and ratio do not depend on its size."""
    near, far = make(box((-1, 1))), make(box((10, 20)))
    one, other = act(near), act(far)
    assert torch.equal(one.action, other.action)
    assert torch.equal(one.log_prob, other.log_prob)
    batch = SequenceBatch(
        far.encode_observation({"seen": torch.zeros(2048, 1, 2)}),
        other.action[:, None],
        torch.zeros(2048, 1, 1),
        torch.ones(2048, 1, dtype=torch.bool),
    )
    torch.testing.assert_close(far.evaluate_actions(batch).log_prob[:, 0], other.log_prob)


def test_files_say_their_units_and_old_ones_have_the_environments(tmp_path):
    policy = make(box((10, 20)))
    save_policy(tmp_path, policy)
    action = torch.tensor([[0.5]])
    assert load(tmp_path).to_environment(action).item() == 17.5
    # As it was written before there were units: such policies have learned in the environment's.
    weights, description = tmp_path / "policy.safetensors", tmp_path / "policy.json"
    tensors = {k: v for k, v in load_file(weights).items() if not k.startswith("action_units.")}
    assert len(tensors) == len(load_file(weights)) - 2
    save_file(tensors, weights)
    content = json.loads(description.read_text())
    del content["sha256"]
    content["checksums"] = {k: v for k, v in content["checksums"].items() if k in tensors}
    description.write_text(json.dumps(content))
    old = load(tmp_path)
    assert old.to_environment(action).item() == 0.5
    assert old.clip_action(old.to_environment(action)).item() == 10.0
    assert torch.equal(act(old).log_prob, act(policy).log_prob)
