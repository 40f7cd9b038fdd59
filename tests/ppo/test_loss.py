import math

import pytest
import torch

from relic.ppo.loss import LossTargets, clone_loss, explained_variance, ppo_loss

COEFS = {"clip_coef": 0.2, "vf_coef": 0.5, "ent_coef": 0.1}


def part(loss, name):
    return float(loss.parts[name])


def hand_example():
    log_prob = torch.tensor([math.log(0.5), math.log(0.3), math.log(0.1)], requires_grad=True)
    value = torch.tensor([1.0, 2.0, 0.0], requires_grad=True)
    entropy = torch.tensor([0.5, 0.6, 0.7], requires_grad=True)
    targets = LossTargets(
        log_prob=torch.tensor([math.log(0.25), math.log(0.25), math.log(0.25)]),
        value=torch.tensor([0.5, 2.0, 1.0]),
        advantage=torch.tensor([1.0, -1.0, -2.0]),
        ret=torch.tensor([2.0, 1.0, 0.5]),
    )
    return log_prob, value, entropy, targets


def test_ppo_loss_by_hand():
    log_prob, value, entropy, targets = hand_example()
    loss = ppo_loss(log_prob, value, entropy, targets, count=3, **COEFS)
    # Ratios 2, 1.2, 0.4. Surrogates: min(2, 1.2) = 1.2; min(-1.2, -1.2); min(-0.8, -1.6) = -1.6.
    policy = -(1.2 - 1.2 - 1.6) / 3
    # Moves are clipped to 0.2: 0.7, 2.0, 0.8; squared errors max(1, 1.69), 1, max(.25, .09).
    value_part = 0.5 * (1.69 + 1.0 + 0.25) / 3
    assert part(loss, "policy_loss") == pytest.approx(policy, rel=1e-5)
    assert part(loss, "value_loss") == pytest.approx(value_part, rel=1e-5)
    assert part(loss, "entropy") == pytest.approx(0.6)
    kl = sum(r - 1 - math.log(r) for r in (2, 1.2, 0.4)) / 3
    assert part(loss, "approx_kl") == pytest.approx(kl, rel=1e-5)
    assert part(loss, "ratio_drift") == pytest.approx((1 + 0.2 + 0.6) / 3, rel=1e-5)
    assert float(loss.max_drift) == pytest.approx(1.0, rel=1e-5)
    total = policy + 0.5 * value_part - 0.1 * 0.6
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-5)


def test_ppo_gradients_by_hand():
    log_prob, value, entropy, targets = hand_example()
    # The second ratio moves off the corner of the clip, where the gradient is a matter of taste.
    targets.log_prob[1] = math.log(0.3)
    ppo_loss(log_prob, value, entropy, targets, count=3, **COEFS).total.backward()
    # Step 0 is clipped; steps 1 and 2 have -A * ratio / 3, the third clipped pessimistically.
    torch.testing.assert_close(log_prob.grad, torch.tensor([0.0, 1 / 3, 0.0]))
    # Step 0: the clipped error is the larger and constant. Step 1: v - R = 1. Step 2: -0.5.
    torch.testing.assert_close(value.grad, torch.tensor([0.0, 0.5 / 3, -0.25 / 3]))
    torch.testing.assert_close(entropy.grad, torch.full((3,), -0.1 / 3))


def test_parts_of_a_minibatch_add_up():
    torch.manual_seed(0)
    columns = torch.randn(7, 12)
    whole, pieces = [], []
    for begin, end in [(0, 12), (0, 5), (5, 12)]:
        log_prob, value, entropy, old, old_value, adv, ret = columns[:, begin:end]
        targets = LossTargets(old, old_value, adv, ret)
        loss = ppo_loss(log_prob, value, entropy, targets, count=12, **COEFS)
        (whole if end - begin == 12 else pieces).append(loss)
    torch.testing.assert_close(whole[0].total, pieces[0].total + pieces[1].total)
    summed = {name: pieces[0].parts[name] + pieces[1].parts[name] for name in whole[0].parts}
    torch.testing.assert_close(whole[0].parts, summed)


def test_unclipped_values():
    log_prob, value, entropy, targets = hand_example()
    loss = ppo_loss(log_prob, value, entropy, targets, count=3, clip_value=False, **COEFS)
    assert part(loss, "value_loss") == pytest.approx(0.5 * (1.0 + 1.0 + 0.25) / 3)


def test_a_dual_clip_bounds_what_a_bad_action_counts():
    log_prob, value, entropy, targets = hand_example()
    targets.log_prob[1:] = torch.tensor([0.1, 0.05]).log()
    loss = ppo_loss(log_prob, value, entropy, targets, count=3, dual_clip=2.5, **COEFS)
    # Ratios 2, 3, 2. Surrogates: 1.2 as before, -1 * 3 is bounded by -1 * 2.5, -2 * 2 is not.
    assert part(loss, "policy_loss") == pytest.approx(-(1.2 - 2.5 - 4.0) / 3, rel=1e-5)
    loss.total.backward()
    # What is bounded has no gradient.
    torch.testing.assert_close(log_prob.grad, torch.tensor([0.0, 0.0, 4.0 / 3]))


def test_clone_loss_is_the_cross_entropy():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expert = torch.tensor([0, 2, 1, 1])
    log_prob = logits.log_softmax(-1).gather(1, expert[:, None])[:, 0]
    zeros = torch.zeros(4)
    targets = LossTargets(zeros, zeros, zeros, ret=torch.ones(4))
    loss = clone_loss(log_prob, zeros, zeros, targets, count=4, vf_coef=0.5)
    expected = torch.nn.functional.cross_entropy(logits, expert) + 0.5 * 0.5
    torch.testing.assert_close(loss.total, expected)


def test_explained_variance():
    ret = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(ret, ret) == pytest.approx(1.0)
    assert explained_variance(ret, torch.zeros(4)) == pytest.approx(0.0)
    assert explained_variance(ret, 5 - ret) == pytest.approx(1 - 5.0 / 1.25)
    assert explained_variance(torch.ones(4), ret) is None
