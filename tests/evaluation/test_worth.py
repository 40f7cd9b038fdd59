import re

import numpy as np
import pytest

from relic.evaluation.controls import ContextControl
from relic.evaluation.report.page import page
from relic.evaluation.report.text import describe
from relic.evaluation.worth import FROM_EPISODE, PARTS, context_worth, difference

KEPT, CLEARED, FOREIGN = ContextControl.KEPT, ContextControl.CLEARED, ContextControl.FOREIGN

AGO = [-1, 1, 100, 101, 400, 401, 1600, 1601, 6400, 6401, 25_600, 25_601]
"""The ends of all spans of `seen_ago`."""


def draw(seed, *, trials=30, episodes=12, shift=0.0, goals=4):
    """Records of random scores in houses of two trials each; trials end at different indices."""
    generator = np.random.default_rng(seed)
    return [
        {
            "trial": t,
            "repeat": 0,
            "episode": e,
            "house": t // 2,
            "success": float(generator.random() + shift * (e >= FROM_EPISODE)),
            "goal": int(np.random.default_rng((t, e)).integers(goals)),
            "seen_ago": int(generator.choice(AGO)),
        }
        for t in range(trials)
        for e in range(episodes - t % 3)
    ]


def belongs(part, record, earlier):
    """Whether an episode is of a part, by its name."""
    before, ago = record["goal"] in [other["goal"] for other in earlier], record["seen_ago"]
    return {
        None: True,
        "asked_before": before,
        "first_asked": not before,
        "seen_before": ago != -1,
        "never_seen": ago == -1,
        "seen_1_to_100": ago in (1, 100),
        "seen_101_to_400": ago in (101, 400),
        "seen_over_400": ago >= 401,
        "seen_401_to_1600": ago in (401, 1600),
        "seen_1601_to_6400": ago in (1601, 6400),
        "seen_6401_to_25600": ago in (6401, 25600),
        "seen_over_25600": ago == 25601,
    }[part]


def slow_means(records, part=None):
    """Each trial's mean over late episodes, by loops."""
    found = {}
    for trial in {r["trial"] for r in records}:
        own = sorted((r for r in records if r["trial"] == trial), key=lambda r: r["episode"])
        late = [r for i, r in enumerate(own) if i >= 5 and belongs(part, r, own[:i])]
        if late:
            found[trial] = sum(r["success"] for r in late) / len(late)
    return found


NAMES = [None, *(name for parts in PARTS.values() for name in parts)]


@pytest.mark.parametrize("name", NAMES)
def test_difference_is_that_of_a_slow_loop(name):
    kept, cleared = draw(0, shift=0.3), draw(1)
    worth = context_worth({KEPT: kept, CLEARED: cleared})["success"]
    found = worth[name] if name else worth
    own, other = slow_means(kept, name), slow_means(cleared, name)
    assert found["kept"] == pytest.approx(np.mean(list(own.values())))
    assert found["cleared"] == pytest.approx(np.mean(list(other.values())))
    each = [own[t] - other[t] for t in own.keys() & other.keys()]
    assert found["mean"] == pytest.approx(np.mean(each))
    low, mean, high = (float(found[part] or 0.0) for part in ("low", "mean", "high"))
    assert low < mean < high


def test_interval_is_that_of_paired_houses():
    # The same noise under both contexts: only pairing removes it.
    kept, cleared = draw(0, shift=0.25), draw(0)
    found = difference(kept, cleared, "success")
    assert [found[k] for k in ("mean", "low", "high")] == pytest.approx([0.25] * 3)


def test_early_episodes_do_not_count():
    kept = draw(0)
    early = [{**r, "success": r["success"] + (r["episode"] < FROM_EPISODE)} for r in kept]
    assert difference(early, kept, "success")["mean"] == pytest.approx(0.0)


def test_trials_without_late_episodes_are_left_out():
    kept, cleared = draw(0, shift=0.25), draw(0)
    short = [r for r in kept if r["trial"] != 3 or r["episode"] < FROM_EPISODE]
    absent = [r for r in cleared if r["trial"] != 8]
    assert difference(short, absent, "success")["mean"] == pytest.approx(0.25)
    assert difference(draw(0, episodes=4), draw(0, episodes=4), "success")["mean"] is None


def test_worth_names_every_control_against_cleared():
    kept, cleared, foreign = draw(0, shift=0.3), draw(0), draw(0, shift=-0.1)
    worth = context_worth({KEPT: kept, CLEARED: cleared, FOREIGN: foreign})["success"]
    assert (worth["from_episode"], worth["mean"]) == (5, pytest.approx(0.3))
    assert worth["foreign_mean"] == pytest.approx(-0.1)
    assert worth["asked_before"]["mean"] == pytest.approx(0.3, abs=0.05)
    assert worth["first_asked"]["mean"] == pytest.approx(0.3, abs=0.05)
    assert context_worth({KEPT: kept}) == {}
    assert context_worth({KEPT: kept, CLEARED: []}) == {}


def _page(summary):
    return page(summary, [], run="r")


def test_page_and_text_show_it():
    from relic.evaluation.curves import summarise

    records = {KEPT: draw(0, shift=0.25), CLEARED: draw(0)}
    summary = summarise(records[KEPT], {CLEARED: records[CLEARED]})
    facts = {
        "protocol": "p", "protocol_hash": "h", "env": "e", "options": {}, "checkpoint": "c",
        "env_steps": 1,
        "trained_on": False, "trials": 30, "repeats": 1, "episodes": 300,
        "context_limit": "none", "trained_steps": None, "trained_episodes": None,
    }  # fmt: skip
    whole = {**facts, **summary, "context": context_worth(records)}
    assert "25.0 points [25.0, 25.0]" in _page(whole)
    text = describe(whole)
    assert "kept minus cleared, episodes from 5 on: 25.0 points [25.0, 25.0]" in text
    assert "  seen 401 to 1600: 25.0 points [25.0, 25.0] (kept " in text
    assert re.search(r"gain at \d+: -?[\d.]+ points \[", text)
    near = {k: [{**r, "seen_ago": 1} for r in own] for k, own in records.items()}
    told = [t({**whole, "context": context_worth(near)}) for t in (describe, _page)]
    assert all("seen 1 to 100" in text and "seen 401 to" not in text for text in told)
    without = {**facts, **summary, "context": {}}
    assert "What the context is worth" not in _page(without)
