"""What a run says at its end of where its time went."""

import pytest

from relic.run.compose import compose
from relic.run.progress import verdict

FULL = {"updates.prefix_gradient": "full"}


@pytest.mark.parametrize(
    ("slowest", "keys", "told", "not_told"),
    [
        ("learn", FULL, "updates.prefix_gradient=detached", "smaller policy"),
        ("learn", {"updates.prefix_gradient": "detached"}, "fewer ppo.update_epochs", "detached"),
        ("learn", FULL | {"ablation": "no_partial_updates"}, "ppo.update_epochs", "detached"),
        ("learn", {"ppo.update_epochs": "1"}, "a smaller policy", "update_epochs"),
        ("simulate", {}, "rollout.groups=2", "learner"),
        ("simulate", {"rollout.groups": "2"}, "more env threads", "groups"),
        ("act", {"rollout.num_envs": "32"}, "rollout.num_envs, 32 now", "groups"),
        ("refresh", {}, "fewer updates.per_rollout (4 now)", "groups"),
    ],
)
def test_the_advice_is_of_what_is_not_so_already(slowest, keys, told, not_told):
    said = verdict({"act": 1.0, slowest: 9.0}, compose({"experiment": "darkroom", **keys}))
    assert told in said
    assert not_told not in said
