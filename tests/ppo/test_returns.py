import itertools

import numpy as np
import pytest
import torch

from relic.ppo.returns import Credit, TimeLimit, find_ends, gae, gae_by_doubling


def slow_advantages(step, gamma, lam, credit, time_limit, trial_over):
    """Advantages of one row from their definition: lambda-weighted n-step returns.

    `step` is a dict of lists; no recurrence over advantages is used.
    """
    num_steps = len(step["reward"])

    def ends(t):
        done = step["terminated"][t] or step["truncated"][t]
        if not done:
            return False
        return credit is Credit.EPISODE or (trial_over and t == num_steps - 1)

    def after(t):
        """Value of what follows step t."""
        if ends(t):
            limit = step["truncated"][t] and not step["terminated"][t]
            if step["crashed"][t] or (limit and time_limit is TimeLimit.BOOTSTRAP):
                return step["final_value"][t]
            return 0.0
        return step["value"][t + 1] if t + 1 < num_steps else step["bootstrap"]

    advantages = []
    for t in range(num_steps):
        last = next((k for k in range(t, num_steps) if ends(k)), num_steps - 1)
        returns = []
        for n in range(1, last - t + 2):
            discounted = sum(gamma**k * step["reward"][t + k] for k in range(n))
            returns.append(discounted + gamma**n * after(t + n - 1))
        weights = [(1 - lam) * lam ** (n - 1) for n in range(1, len(returns))]
        weights.append(lam ** (len(returns) - 1))
        mean = sum(w * r for w, r in zip(weights, returns, strict=True))
        advantages.append(mean - step["value"][t])
    return advantages


def random_rows(rng, num_rows, num_steps):
    truncated = rng.random((num_rows, num_steps)) < 0.15
    columns = {
        "reward": rng.normal(size=(num_rows, num_steps)),
        "value": rng.normal(size=(num_rows, num_steps)),
        "final_value": rng.normal(size=(num_rows, num_steps)),
        "terminated": rng.random((num_rows, num_steps)) < 0.1,
        "truncated": truncated,
        "crashed": truncated & (rng.random((num_rows, num_steps)) < 0.3),
    }
    # Every kind of end is met in the last column too.
    for kind in ("terminated", "truncated", "crashed"):
        columns[kind][:4, -1] = False
    columns["terminated"][1, -1] = True
    columns["truncated"][2:4, -1] = True
    columns["crashed"][3, -1] = True
    return columns, rng.normal(size=num_rows)


@pytest.mark.parametrize(
    ("credit", "time_limit", "trial_over"),
    list(itertools.product(Credit, TimeLimit, [False, True])),
)
def test_gae_equals_the_definition(credit, time_limit, trial_over):
    rng = np.random.default_rng(3)
    rows, bootstrap = random_rows(rng, 6, 40)
    gamma, lam = 0.9, 0.8
    tensors = {
        k: torch.from_numpy(v if v.dtype == bool else v.astype(np.float32)) for k, v in rows.items()
    }
    cut, bootstrapped = find_ends(
        tensors["terminated"],
        tensors["truncated"],
        crashed_NT=tensors["crashed"],
        credit=credit,
        time_limit=time_limit,
        trial_over=trial_over,
    )
    known = {
        "final_value_NT": tensors["final_value"] * bootstrapped,
        "bootstrap_N": torch.from_numpy(bootstrap.astype(np.float32)),
        "gamma": gamma,
        "gae_lambda": lam,
    }
    advantage, ret = gae(tensors["reward"], tensors["value"], cut, **known)
    expected = [
        slow_advantages(
            {k: v[n] for k, v in rows.items()} | {"bootstrap": bootstrap[n]},
            gamma,
            lam,
            credit,
            time_limit,
            trial_over,
        )
        for n in range(6)
    ]
    np.testing.assert_allclose(advantage, expected, atol=2e-5)
    np.testing.assert_allclose(ret, np.array(expected) + rows["value"], atol=2e-5)
    doubled = gae_by_doubling(tensors["reward"], tensors["value"], cut, **known)
    np.testing.assert_allclose(doubled, advantage, atol=1e-5)


def test_gae_by_hand():
    # gamma 0.5, lambda 0.5; step 1 ends its episode.
    advantage, ret = gae(
        torch.tensor([[1.0, 2.0, 3.0]]),
        torch.tensor([[0.5, 1.0, 2.0]]),
        torch.tensor([[False, True, False]]),
        final_value_NT=torch.zeros(1, 3),
        bootstrap_N=torch.tensor([4.0]),
        gamma=0.5,
        gae_lambda=0.5,
    )
    # A2 = 3 + 0.5*4 - 2 = 3; A1 = 2 - 1 = 1; A0 = (1 + 0.5*1 - 0.5) + 0.25*1 = 1.25
    torch.testing.assert_close(advantage, torch.tensor([[1.25, 1.0, 3.0]]))
    torch.testing.assert_close(ret, torch.tensor([[1.75, 2.0, 5.0]]))


@pytest.mark.parametrize("num_steps", [1, 2, 3, 64, 1000])
def test_doubling_equals_the_backward_pass(num_steps):
    generator = torch.Generator().manual_seed(0)
    reward, value, final = torch.randn(3, 5, num_steps, generator=generator)
    cut = torch.rand(5, num_steps, generator=generator) < 0.05
    known = {
        "final_value_NT": final,
        "bootstrap_N": torch.randn(5, generator=generator),
        "gamma": 0.99,
        "gae_lambda": 0.95,
    }
    advantage, _ = gae(reward, value, cut, **known)
    torch.testing.assert_close(
        gae_by_doubling(reward, value, cut, **known), advantage, atol=2e-5, rtol=1e-5
    )


def test_gae_reads_views_of_a_wider_rollout():
    wide = torch.randn(4, 9)
    cut = torch.zeros(4, 9, dtype=torch.bool)
    known = {"bootstrap_N": torch.ones(4), "gamma": 0.9, "gae_lambda": 0.9}
    narrow, _ = gae(wide[:, :5], wide[:, :5], cut[:, :5], final_value_NT=wide[:, :5], **known)
    copied = [x[:, :5].contiguous() for x in (wide, wide, cut)]
    expected, _ = gae(*copied, final_value_NT=copied[0], **known)
    assert torch.equal(narrow, expected)
