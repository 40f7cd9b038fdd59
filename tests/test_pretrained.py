"""What ships trained is loaded by name, and does what it is shipped for."""

from contextlib import closing

import numpy as np
import torch

from relic.evaluation.controls import ContextControl
from relic.evaluation.evaluator import evaluate
from relic.evaluation.trained_agent import chosen_protocol, find_agent, fit_protocol
from relic.policy import load
from relic.policy.loading import save_policy
from relic.run.components import build_envs, build_policy
from relic.run.compose import compose_arguments
from relic.shipped import PRETRAINED


def test_the_darkroom_agent_learns_in_its_context():
    agent = find_agent(PRETRAINED / "darkroom")
    asked = chosen_protocol(None, {"repeats": 1, "episodes": 3, "block": 20}, agent.env)
    assert asked.base.name == "darkroom_test"
    records = evaluate(load(agent.checkpoint), fit_protocol(agent, asked.protocol))
    by_episode = [np.mean([r["return"] for r in records if r["episode"] == i]) for i in range(3)]
    # Measured over four repeats: 31, 72 and 84.
    assert by_episode[0] < 50 < by_episode[1] < by_episode[2]
    assert by_episode[2] > 70


def test_the_houses_agent_remembers_where_things_are_in_houses_that_it_has_not_seen():
    agent = find_agent(PRETRAINED / "houses_small")
    asked = chosen_protocol(None, {"trials": 60, "episodes": 10, "block": 20}, agent.env)
    assert asked.base.name == "houses_small_val"
    protocol = fit_protocol(agent, asked.protocol)
    policy = load(agent.checkpoint)
    kept, cleared = (
        np.mean([r["success"] for r in evaluate(policy, protocol, control=c) if r["episode"] >= 5])
        for c in (ContextControl.KEPT, ContextControl.CLEARED)
    )
    # Measured over episodes 5 to 15 of 300 trials: 0.76 and 0.59. An untrained agent finds nothing.
    assert kept > 0.66
    assert kept > cleared + 0.08


def test_a_run_from_an_agent_of_before_there_were_ranges_takes_those_of_its_encoder(tmp_path):
    """They hold for the same weights alone."""
    name = "encoder.images.rgb_in.backbone."
    older = load(PRETRAINED / "houses_small")
    older.state_dict()[f"{name}ranges"].zero_()
    save_policy(tmp_path / "same", older)
    older.state_dict()[f"{name}layers.2.bias"][0] += 1.0
    save_policy(tmp_path / "other", older)
    keys = ["experiment=houses_small", "rollout.num_envs=16"]
    plain = compose_arguments(keys)
    with closing(build_envs(plain, range(1))[0]) as env:
        own, same, other = (
            build_policy(config, env, torch.device("cpu")).state_dict()[f"{name}ranges"]
            for config in (
                plain,
                *(
                    compose_arguments([*keys, f"init_from={tmp_path / n}"])
                    for n in ("same", "other")
                ),
            )
        )
    assert own.all()
    assert torch.equal(same, own)
    assert not other.any()
