"""What ships trained is loaded by name, and does what it is shipped for."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from relic.evaluation.context import Context
from relic.evaluation.evaluator import evaluate
from relic.evaluation.protocol import load_protocol
from relic.evaluation.subject import find_subject, fit_protocol
from relic.policy import load

PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"


def test_the_darkroom_agent_learns_in_its_context():
    subject = find_subject(PRETRAINED / "darkroom")
    assert subject.default_protocol == "darkroom_test"
    named = load_protocol(subject.default_protocol, repeats=1, episodes=3)
    records = evaluate(load(subject.root), fit_protocol(subject, replace(named, block=20)))
    by_episode = [np.mean([r["return"] for r in records if r["episode"] == i]) for i in range(3)]
    # Measured over four repeats: 31, 72 and 84.
    assert by_episode[0] < 50 < by_episode[1] < by_episode[2]
    assert by_episode[2] > 70


def test_the_houses_agent_remembers_where_things_are_in_houses_that_it_has_not_seen():
    subject = find_subject(PRETRAINED / "houses_small")
    assert subject.default_protocol == "houses_small_val"
    named = load_protocol(subject.default_protocol, trials=60, episodes=10)
    protocol = fit_protocol(subject, replace(named, block=20))
    policy = load(subject.root)
    kept, cleared = (
        np.mean([r["success"] for r in evaluate(policy, protocol, context=c) if r["episode"] >= 5])
        for c in (Context.KEPT, Context.CLEARED)
    )
    # Measured over episodes 5 to 15 of 100 trials: 0.39 and 0.25. An untrained agent finds nothing.
    assert kept > 0.3
    assert kept > cleared + 0.04
