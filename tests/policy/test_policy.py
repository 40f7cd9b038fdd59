"""Acting step by step must say the same as judging all steps at once, for every kind of policy."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium import spaces

from relic.policy.config import PolicyConfig
from relic.policy.encoders.config import EncoderConfig, VisualKind
from relic.policy.memory.sequence_model import ContextOverflowError
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch
from relic.schema import build
from tests.memories import CHOICES, SMALL

ROWS, STEPS = 3, 14
DISCRETE = spaces.Discrete(5)
VECTOR = spaces.Box(-1, 1, (2,), np.float32)
VECTORS = spaces.Dict(
    position=spaces.Box(-1, 1, (2,), np.float32), prev_reward=spaces.Box(0, 1, (1,), np.float32)
)
PICTURES = spaces.Dict(
    rgb=spaces.Box(0, 255, (32, 32, 3), np.uint8),
    gps=spaces.Box(-np.inf, np.inf, (2,), np.float32),
    goal=spaces.Discrete(4),
)


def _config(memory="transformer", **encoder):
    config = build(PolicyConfig, {"memory": memory, **SMALL})
    return dataclasses.replace(config, encoder=EncoderConfig(channels=4, **encoder))


def _policy(config=None, observation_space=VECTORS, action_space=DISCRETE):
    torch.manual_seed(0)
    policy = Policy(config or _config(), observation_space, action_space, max_episode_steps=STEPS)
    with torch.no_grad():
        # Heads and sinks start near zero, where many mistakes would not show.
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return policy


def _observations(space, rows=ROWS, steps=STEPS, seed=0):
    space.seed(seed)
    drawn = [[space.sample() for _ in range(steps)] for _ in range(rows)]
    return {
        k: torch.as_tensor(np.stack([np.stack([d[k] for d in row]) for row in drawn]))
        for k in space.spaces
    }


def _starts(rows=ROWS, steps=STEPS, seed=0):
    starts = torch.rand((rows, steps), generator=torch.Generator().manual_seed(seed)) < 0.25
    starts[:, 0] = True
    return starts


def _at(observation, step):
    return {k: v[:, step] for k, v in observation.items()}


def _act(policy, state, observation, starts, *, noise=None, begin=0, end=None):
    """Act step by step; return the steps as a batch, and what the policy said of them."""
    end = starts.shape[1] if end is None else end
    said, prev = [], []
    for step in range(begin, end):
        prev.append(state.prev_action.clone())
        row_noise = None if noise is None else noise[:, step]
        stored = policy.encode_observation(_at(observation, step))
        said.append(policy.step(stored, state, episode_starts=starts[:, step], noise=row_noise))
    stored = policy.encode_observation({k: v[:, begin:end] for k, v in observation.items()})
    action = torch.stack([s.action for s in said], 1)
    batch = SequenceBatch(stored, action, torch.stack(prev, 1), starts[:, begin:end])
    return batch, {k: torch.stack([getattr(s, k) for s in said], 1) for k in ("log_prob", "value")}


def _assert_same(output, said):
    for key, value in said.items():
        torch.testing.assert_close(getattr(output, key), value, atol=1e-5, rtol=1e-5)


def _part(batch, rows=slice(None), steps=slice(None)):
    return SequenceBatch(
        {k: v[rows, steps] for k, v in batch.observation.items()},
        batch.action[rows, steps],
        batch.prev_action[rows, steps],
        batch.episode_starts[rows, steps],
    )


@pytest.mark.parametrize("memory", CHOICES)
@pytest.mark.parametrize("action_space", [DISCRETE, VECTOR])
def test_steps_equal_the_full_pass(memory, action_space):
    policy = _policy(_config(memory), VECTORS, action_space)
    state = policy.initial_state(ROWS, STEPS)
    batch, said = _act(policy, state, _observations(VECTORS), _starts())
    assert said["log_prob"].shape == (ROWS, STEPS)
    output = policy.evaluate_actions(batch)
    _assert_same(output, said)
    (output.log_prob.sum() + output.value.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)


@pytest.mark.parametrize("encoder", [{}, {"frozen": True}, {"frozen": True, "visual": "impala"}])
def test_steps_equal_the_full_pass_with_pictures(encoder):
    fields = {**encoder, "visual": VisualKind(encoder.get("visual", "auto"))}
    policy = _policy(_config(**fields), PICTURES)
    state = policy.initial_state(ROWS, STEPS)
    batch, said = _act(policy, state, _observations(PICTURES), _starts())
    assert set(batch.observation) == set(policy.stored_space.spaces)
    _assert_same(policy.evaluate_actions(batch), said)


@pytest.mark.parametrize("space", [VECTORS, PICTURES])
def test_slices_of_steps_change_neither_values_nor_gradients(space):
    policy = _policy(_config(visual=VisualKind.SMALL_CNN), space)
    stored = policy.encode_observation(_observations(space))
    action = torch.randint(5, (ROWS, STEPS))
    batch = SequenceBatch(stored, action, action.roll(1, 1), _starts())
    seen = []
    for size in (STEPS, 5):
        sliced = dataclasses.replace(policy.config.encoder, slice_steps=size)
        policy.config = dataclasses.replace(policy.config, encoder=sliced)
        policy.zero_grad()
        output = policy.evaluate_actions(batch)
        (output.log_prob.sum() + output.value.sum()).backward()
        grads = [p.grad.clone() for p in policy.parameters() if p.grad is not None]
        seen.append([output.log_prob.detach(), output.value.detach(), *grads])
        with torch.no_grad():
            torch.testing.assert_close(policy.evaluate_actions(batch).value, output.value.detach())
    torch.testing.assert_close(*seen, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("memory", CHOICES)
def test_rows_reset_in_the_middle_begin_anew(memory):
    """Rows whose trial restarts equal a full pass over the new trial alone."""
    policy = _policy(_config(memory))
    observation, starts = _observations(VECTORS), _starts()
    state = policy.initial_state(ROWS, STEPS)
    reset_at = 6
    _act(policy, state, observation, starts, end=reset_at)
    fresh = torch.tensor([True, False, True])
    state.reset(fresh)
    starts[fresh, reset_at] = True
    batch, said = _act(policy, state, observation, starts, begin=reset_at)
    output = policy.evaluate_actions(_part(batch, fresh))
    _assert_same(output, {k: v[fresh] for k, v in said.items()})


@pytest.mark.parametrize("memory", CHOICES)
def test_a_chunk_after_a_prefix_equals_its_steps(memory):
    policy = _policy(_config(memory))
    observation, starts = _observations(VECTORS), _starts()
    state = policy.initial_state(ROWS, STEPS)
    _act(policy, state, observation, starts, end=8)
    prefix = state.memory.snapshot()
    chosen = prefix.select([0, 2])
    batch, said = _act(policy, state, observation, starts, begin=8)
    rows = torch.tensor([0, 2])
    _assert_same(policy.evaluate_actions(batch, prefix), said)
    _assert_same(
        policy.evaluate_actions(_part(batch, rows), chosen), {k: v[rows] for k, v in said.items()}
    )


@pytest.mark.parametrize("memory", CHOICES)
def test_replay_leaves_the_state_that_stepping_leaves(memory):
    policy = _policy(_config(memory))
    observation, starts, noise = _observations(VECTORS), _starts(), torch.rand(ROWS, STEPS, 1)
    stepped = policy.initial_state(ROWS, STEPS)
    batch, said = _act(policy, stepped, observation, starts, noise=noise, end=9)
    state = policy.initial_state(ROWS, STEPS)
    torch.testing.assert_close(
        policy.replay(_part(batch, [2]), state, [2]).value, said["value"][[2]], atol=1e-5, rtol=1e-5
    )
    others = _part(batch, [0, 1], slice(5))
    output = policy.replay(others, state, np.array([0, 1]), lengths=[5, 3])
    assert torch.equal(state.prev_action, batch.action[[0, 1, 2], [4, 2, 8]])
    _assert_same(
        policy.replay(_part(batch, [0], slice(5, 9)), state, [0]),
        {k: v[:1, 5:9] for k, v in said.items()},
    )
    torch.testing.assert_close(output.value[1, :3], said["value"][1, :3], atol=1e-5, rtol=1e-5)
    policy.replay(_part(batch, [1], slice(3, 9)), state, [1])
    after = [
        _act(policy, s, observation, starts, noise=noise, begin=9)[1] for s in (stepped, state)
    ]
    for key in after[0]:
        torch.testing.assert_close(after[0][key], after[1][key], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("memory", CHOICES)
def test_looking_ahead_is_not_remembered(memory):
    policy = _policy(_config(memory))
    observation, starts, noise = _observations(VECTORS), _starts(), torch.rand(ROWS, STEPS, 1)
    looked, plain = policy.initial_state(ROWS, 9), policy.initial_state(ROWS, 9)
    steps = []
    for step in range(9):
        now = {"episode_starts": starts[:, step]}
        other = _at(observation, STEPS - 1)
        policy.value(other, looked, episode_starts=~starts[:, step])
        ahead = policy.value(_at(observation, step), looked, **now)
        policy.step(other, looked, write=False, episode_starts=~starts[:, step])
        said = [
            policy.step(_at(observation, step), s, noise=noise[:, step], **now)
            for s in (looked, plain)
        ]
        steps.append(said)
        assert torch.equal(ahead, said[0].value)
    for first, second in steps:
        assert torch.equal(first.log_prob, second.log_prob)
        assert torch.equal(first.action, second.action)
    # Even a full memory can be asked for the value of what comes next.
    values = [
        policy.value(_at(observation, 9), s, episode_starts=starts[:, 9]) for s in (looked, plain)
    ]
    assert torch.equal(values[0], values[1])


@pytest.mark.parametrize("memory", CHOICES)
def test_a_restored_state_goes_on_as_if_nothing_had_happened(memory):
    policy = _policy(_config(memory))
    observation, starts, noise = _observations(VECTORS), _starts(), torch.rand(ROWS, STEPS, 1)
    state = policy.initial_state(ROWS, STEPS)
    _act(policy, state, observation, starts, noise=noise, end=7)
    restored = policy.initial_state(ROWS, STEPS)
    restored.load_state_dict(state.state_dict())
    after = [
        _act(policy, s, observation, starts, noise=noise, begin=7)[1] for s in (state, restored)
    ]
    # Transformer-XL projects its memory anew, in other batches than step by step.
    tolerance = 1e-6 if memory == "transformer_xl" else 0
    for key in after[0]:
        torch.testing.assert_close(after[0][key], after[1][key], atol=tolerance, rtol=tolerance)


def _assert_equal_trees(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, dict):
            _assert_equal_trees(value, second[key])
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, second[key]), key
        else:
            assert np.array_equal(value, second[key]), key


def test_a_full_memory_refuses_and_stays_as_it_is():
    policy = _policy()
    observation, starts = _observations(VECTORS), _starts()
    state = policy.initial_state(ROWS, 4)
    _act(policy, state, observation, starts, end=4)
    before = state.state_dict()
    with pytest.raises(ContextOverflowError):
        policy.step(_at(observation, 4), state)
    _assert_equal_trees(state.state_dict(), before)


def test_episodes_start_where_trials_begin_unless_said_otherwise():
    policy = _policy()
    observation = _observations(VECTORS)
    noise = torch.rand(ROWS, STEPS, 1)
    silent, told = policy.initial_state(ROWS, STEPS), policy.initial_state(ROWS, STEPS)
    starts = torch.zeros(ROWS, STEPS, dtype=torch.bool)
    starts[:, 0] = True
    starts[1, 3] = True
    for step in range(6):
        if step == 3:
            silent.reset([1])
            told.reset([1])
        now = {"noise": noise[:, step]}
        first = policy.step(_at(observation, step), silent, **now)
        second = policy.step(_at(observation, step), told, episode_starts=starts[:, step], **now)
        assert torch.equal(first.log_prob, second.log_prob)


def test_the_action_that_was_executed_enters_the_next_step():
    policy = _policy()
    observation = _observations(VECTORS)
    values = []
    for executed in (None, torch.tensor([0, 0, 0]), torch.tensor([4, 4, 4])):
        state = policy.initial_state(ROWS, STEPS)
        policy.step(_at(observation, 0), state, noise=torch.zeros(ROWS, 1))
        assert torch.equal(state.prev_action, torch.zeros(ROWS).long())
        if executed is not None:
            state.record_action(executed)
        values.append(policy.value(_at(observation, 1), state))
    assert torch.equal(values[0], values[1])
    assert not torch.allclose(values[0], values[2])


def test_noise_decides_each_row_alone():
    policy = _policy()
    observation = _at(_observations(VECTORS), 0)
    noise = torch.rand(ROWS, policy.noise_size)
    other = noise.clone()
    other[1] = (noise[1] + 0.5) % 1
    drawn = [
        policy.step(observation, policy.initial_state(ROWS, STEPS), noise=u).action
        for u in (noise, noise.numpy(), other)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert drawn[0][1] != drawn[2][1]
    assert torch.equal(drawn[0][[0, 2]], drawn[2][[0, 2]])


def test_deterministic_steps_take_the_likeliest_action():
    policy = _policy()
    observation = _observations(VECTORS)
    state = policy.initial_state(ROWS, STEPS)
    step = policy.step(_at(observation, 0), state, True)
    batch = SequenceBatch(
        {k: v[:, :1] for k, v in observation.items()},
        step.action[:, None],
        torch.zeros(ROWS, 1).long(),
        torch.ones(ROWS, 1, dtype=torch.bool),
    )
    assert torch.equal(policy.evaluate_actions(batch).distribution.mode()[:, 0], step.action)


def test_sampling_follows_the_distribution():
    policy = _policy()
    rows = 20_000
    observation = {k: v[:1, 0].expand(rows, -1) for k, v in _observations(VECTORS).items()}
    noise = np.random.default_rng(0).random((rows, 1), np.float32)
    step = policy.step(observation, policy.initial_state(rows, 1), noise=noise)
    share = torch.bincount(step.action, minlength=5) / rows
    said = {int(a): float(p.exp()) for a, p in zip(step.action, step.log_prob, strict=True)}
    expected = torch.tensor([said[a] for a in range(5)])
    torch.testing.assert_close(expected.sum(), torch.tensor(1.0))
    # Hoeffding, five actions: fails with probability below 2 * 5 * exp(-2 n eps^2) = 5e-10.
    torch.testing.assert_close(share, expected, atol=0.0244, rtol=0)


def test_raw_observations_act_like_stored_ones():
    policy = _policy(_config(frozen=True), PICTURES)
    observation = _at(_observations(PICTURES), 0)
    arrays = {k: v.numpy() for k, v in observation.items()}
    noise = torch.rand(ROWS, 1)
    first, second = (
        policy.step(o, policy.initial_state(ROWS, STEPS), noise=noise)
        for o in (arrays, policy.encode_observation(observation))
    )
    assert torch.equal(first.log_prob, second.log_prob)


def test_vector_actions_are_clipped_for_the_environment():
    policy = _policy(action_space=VECTOR)
    action = torch.tensor([[-3.0, 0.5], [0.0, 2.0]])
    assert policy.clip_action(action).tolist() == [[-1.0, 0.5], [0.0, 1.0]]
    assert policy.noise_size == 2
    discrete = torch.tensor([1, 2])
    assert _policy().clip_action(discrete) is discrete


def test_rows_keep_to_themselves():
    """A row's numbers do not depend on the rows beside it."""
    policy = _policy()
    observation, starts, noise = _observations(VECTORS), _starts(), torch.rand(ROWS, STEPS, 1)
    _, together = _act(policy, policy.initial_state(ROWS, STEPS), observation, starts, noise=noise)
    for row in range(ROWS):
        only = slice(row, row + 1)
        _, alone = _act(
            policy,
            policy.initial_state(1, STEPS),
            {k: v[only] for k, v in observation.items()},
            starts[only],
            noise=noise[only],
        )
        for key, value in alone.items():
            torch.testing.assert_close(value[0], together[key][row], atol=1e-5, rtol=1e-5)


def test_dropped_layers_are_dropped_alike_in_steps_and_full_pass():
    config = _config()
    transformer = dataclasses.replace(config.transformer, depth_dropout=0.5)
    policy = _policy(dataclasses.replace(config, transformer=transformer))
    mask_NL = policy.memory.draw_depth_mask(ROWS, torch.Generator().manual_seed(1))
    assert 0 in mask_NL
    state = policy.initial_state(ROWS, STEPS)
    state.memory.set_depth_mask(mask_NL)
    batch, said = _act(policy, state, _observations(VECTORS), _starts())
    _assert_same(policy.evaluate_actions(batch, depth_mask_NL=mask_NL), said)
    whole = policy.evaluate_actions(batch).value
    assert (whole - said["value"]).abs().max() > 1e-3
