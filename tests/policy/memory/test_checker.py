"""Memories that break a promise are told which one."""

import pytest
import torch

from relic.policy.memory.checker import MemoryCheckError, check_memory
from relic.policy.memory.states.min_gru import MinGRU


class LooksAhead(MinGRU):
    def read(self, x_NTE, episode_starts_NT, parts):
        y_NTE, after = super().read(x_NTE, episode_starts_NT, parts)
        return y_NTE + x_NTE.mean(1, keepdim=True), after


class MixesRows(MinGRU):
    def read(self, x_NTE, episode_starts_NT, parts):
        y_NTE, after = super().read(x_NTE, episode_starts_NT, parts)
        return y_NTE + x_NTE.mean(0, keepdim=True), after


class Forgets(MinGRU):
    def read(self, x_NTE, episode_starts_NT, parts):
        y_NTE, after = super().read(x_NTE, episode_starts_NT, parts)
        return y_NTE, {name: torch.zeros_like(part) for name, part in after.items()}


class RemembersElsewhere(MinGRU):
    last = 0.0

    def read(self, x_NTE, episode_starts_NT, parts):
        y_NTE, after = super().read(x_NTE, episode_starts_NT, parts)
        self.last = 0.5 * self.last + float(x_NTE.detach().mean())
        return y_NTE + self.last, after


class Ignores(MinGRU):
    def read(self, x_NTE, episode_starts_NT, parts):
        return torch.zeros_like(x_NTE), parts


class Keeps(MinGRU):
    def read(self, x_NTE, episode_starts_NT, parts):
        y_NTE, _ = super().read(x_NTE, episode_starts_NT, parts)
        return y_NTE, {}


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (LooksAhead, "Changing a step changes nothing before it"),
        (MixesRows, "What a row answers depends on no other row"),
        (Forgets, "Cached steps equal the full pass"),
        (RemembersElsewhere, "steps that are not written leave no trace"),
        (Ignores, "something at it or after: Another token changed no answer"),
        (Keeps, "ValueError was raised: Keeps.read: must return all parts of the state"),
    ],
)
def test_a_broken_promise_is_named(broken, promise):
    model = broken(MinGRU.Config(width=8, mlp_width=8, num_layers=1), max_episode_steps=9)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    seed = torch.random.get_rng_state()
    with pytest.raises(MemoryCheckError, match=promise) as caught:
        check_memory(model)
    assert caught.value.findings
    assert all(torch.equal(weight, before[n]) for n, weight in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), seed)


def test_a_memory_that_keeps_them_passes():
    check_memory(MinGRU(MinGRU.Config(width=8, mlp_width=8, num_layers=1), max_episode_steps=9))
