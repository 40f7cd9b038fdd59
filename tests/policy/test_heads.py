import gymnasium
import numpy as np
import pytest
import torch

from relic.policy.heads import (
    ACTOR_GAIN,
    Categorical,
    CategoricalHead,
    DiagonalGaussian,
    GaussianHead,
    MultiCategoricalHead,
    ValueHead,
    actor_head,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_categorical_agrees_with_torch():
    logits = torch.randn(5, 7, 6) * 3
    action = torch.randint(0, 6, (5, 7))
    ours, theirs = Categorical(logits), torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), logits.argmax(-1))


def test_choices_of_several_dimensions_agree_with_torch():
    head = MultiCategoricalHead(8, [3, 1, 5])
    features = torch.randn(6, 2, 8, requires_grad=True)
    with torch.no_grad():
        head.linear.weight.mul_(200)
    logits = head.linear(features).split([3, 1, 5], -1)
    theirs = [torch.distributions.Categorical(logits=part) for part in logits]
    ours = head(features)
    action = torch.stack([d.sample() for d in theirs], -1)
    expected = sum(d.log_prob(a) for d, a in zip(theirs, action.unbind(-1), strict=True))
    torch.testing.assert_close(ours.log_prob(action), expected)
    torch.testing.assert_close(ours.entropy(), sum(d.entropy() for d in theirs))
    assert torch.equal(ours.mode(), torch.stack([part.argmax(-1) for part in logits], -1))
    # Each dimension is drawn by its own uniform, as if it were alone.
    noise = torch.rand(6, 2, 3)
    alone = [
        Categorical(p).sample(u[..., None]) for p, u in zip(logits, noise.unbind(-1), strict=True)
    ]
    assert torch.equal(ours.sample(noise), torch.stack(alone, -1))
    (ours.log_prob(action) + ours.entropy()).sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_gaussian_agrees_with_torch():
    mean, log_std, action = torch.randn(4, 5, 3), torch.randn(3), torch.randn(4, 5, 3) * 2
    ours = DiagonalGaussian(mean, log_std)
    normal = torch.distributions.Normal(mean, log_std.exp().expand_as(mean))
    theirs = torch.distributions.Independent(normal, 1)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), mean)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results_are_float32_whatever_the_features_are(dtype):
    logits, action = torch.randn(4, 6).to(dtype), torch.randint(0, 6, (4,))
    exact = torch.log_softmax(logits.double(), -1).gather(-1, action[:, None])[:, 0]
    log_prob = Categorical(logits).log_prob(action)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob.double(), exact, atol=1e-6, rtol=0)
    gaussian = DiagonalGaussian(logits, torch.zeros(6, dtype=dtype))
    assert gaussian.log_prob(logits).dtype == gaussian.entropy().dtype == torch.float32
    assert ValueHead(6)(logits.float()).dtype == torch.float32


def test_categorical_sampling_inverts_the_cdf():
    probabilities = torch.tensor([0.25, 0.0, 0.5, 0.25])
    noise = torch.tensor([0.0, 0.2499, 0.2501, 0.5, 0.7499, 0.7501, 1 - 2.0**-24])
    drawn = Categorical(probabilities.log().expand(7, 4)).sample(noise[:, None])
    assert drawn.tolist() == [0, 0, 2, 2, 2, 3, 3]


def test_categorical_sampling_never_leaves_the_support():
    # Logits so far apart that whole ends of the distribution underflow to zero.
    logits = torch.tensor([[-300.0, 2.0, 1.0, -300.0], [0.0, -300.0, -300.0, -300.0]])
    noise = torch.tensor([0.0, 0.5, 1 - 2.0**-24, 1 - 2.0**-53], dtype=torch.float64)
    for row, allowed in zip(logits, ({1, 2}, {0}), strict=True):
        drawn = Categorical(row.expand(4, 4)).sample(noise[:, None])
        assert set(drawn.tolist()) <= allowed


def test_keyed_samples_have_the_right_frequencies():
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, -3.0])
    count = 200_000
    noise = torch.from_numpy(np.random.default_rng(1).random((count, 1), np.float32))
    drawn = Categorical(logits.expand(count, 5)).sample(noise)
    share = torch.bincount(drawn, minlength=5) / count
    # Hoeffding, five actions: fails with probability below 2 * 5 * exp(-2 n eps^2) = 5e-10.
    torch.testing.assert_close(share, logits.softmax(0), atol=0.00771, rtol=0)


def test_gaussian_sampling_inverts_the_cdf():
    mean, log_std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0])
    noise = torch.rand(1000, 2)
    drawn = DiagonalGaussian(mean.expand(1000, 2), log_std).sample(noise)
    normal = torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(normal.cdf(drawn), noise, atol=1e-5, rtol=0)
    extremes = torch.tensor([[0.0, 1 - 2.0**-24]])
    assert torch.isfinite(DiagonalGaussian(mean[None], log_std).sample(extremes)).all()


def test_gradients_reach_logits_and_spread():
    head = GaussianHead(8, 2, log_std=-0.5)
    features = torch.randn(3, 8, requires_grad=True)
    distribution = head(features)
    (distribution.log_prob(torch.randn(3, 2)).sum() + distribution.entropy().sum()).backward()
    assert head.log_std_A.grad is not None
    assert (head.log_std_A.grad != 0).all()
    assert features.grad is not None
    assert head.linear.weight.grad is not None


def test_heads_start_as_published():
    head = CategoricalHead(32, 6)
    gram = head.linear.weight @ head.linear.weight.T
    torch.testing.assert_close(gram, ACTOR_GAIN**2 * torch.eye(6), atol=1e-8, rtol=0)
    assert not head.linear.bias.any()
    value = ValueHead(32)
    torch.testing.assert_close(value.linear.weight.norm(), torch.tensor(1.0))
    assert value(torch.randn(2, 3, 32)).shape == (2, 3)


def test_heads_follow_the_action_space():
    assert actor_head(8, gymnasium.spaces.Discrete(4)).noise_size == 1
    assert actor_head(8, gymnasium.spaces.Box(-1, 1, (3,), np.float32)).noise_size == 3
    assert actor_head(8, gymnasium.spaces.MultiDiscrete([3, 5])).noise_size == 2
    assert actor_head(8, gymnasium.spaces.MultiBinary(4)).noise_size == 4


@pytest.mark.parametrize(
    ("space", "total"),
    [
        (gymnasium.spaces.Discrete(10**12), "1,000,000,000,000"),
        (gymnasium.spaces.MultiDiscrete([10**6, 2]), "1,000,002"),
    ],
)
def test_too_many_choices_are_refused_before_memory_is_asked_for_them(space, total):
    with pytest.raises(ValueError, match=rf"^action_space: .* at most 1,000,000 .*got {total}\."):
        actor_head(8, space)


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Box(-1, 1, (2, 2), np.float32),
        gymnasium.spaces.Box(0, 9, (2,), np.int64),
        gymnasium.spaces.MultiDiscrete([[2, 3], [4, 5]]),
        gymnasium.spaces.MultiBinary((2, 2)),
        gymnasium.spaces.Box(-1, 1, (0,), np.float32),
        gymnasium.spaces.MultiDiscrete(np.zeros(0, int)),
    ],
)
def test_unsupported_action_spaces_are_named(space):
    with pytest.raises(ValueError, match="action_space: must"):
        actor_head(8, space)
