"""Parts of an evaluation against numbers picked out by hand."""

import numpy as np
import pytest

from relic.evaluation.curves import RISING, curve, summarise_groups, tabulate
from relic.evaluation.report.page import page
from relic.evaluation.report.plots import plot_by_goal, plot_groups, plot_summary
from tests.evaluation.test_report import FACTS

CATEGORIES = ("apple", "ball", "cup", "dice")


def random_records(trials=12, episodes=8, houses=6):
    """Each trial in one of six houses of 30 to 55 square metres; goals and outcomes by chance."""
    generator = np.random.default_rng(0)
    return [
        {
            "trial": t, "repeat": 0, "episode": e, "house": t % houses,
            "area": 30.0 + 5.0 * (t % houses), "goal": int(generator.integers(3)),
            "success": bool(generator.random() < 0.5), "length": 7,
        }
        for t in range(trials)
        for e in range(episodes)
    ]  # fmt: skip


def mean_of(records, **fits):
    chosen = [r["success"] for r in records if all(r[k] in v for k, v in fits.items())]
    return float(np.mean(chosen)), len(chosen)


def test_goal_categories_hold_the_episodes_that_asked_for_them():
    records = random_records()
    found = summarise_groups(records, CATEGORIES)["by_goal"]
    assert list(found) == ["apple", "ball", "cup"]  # nobody asked for dice
    for goal, name in enumerate(found):
        part, success = found[name], found[name]["metrics"]["success"]
        assert part["episodes"] == sum(r["goal"] == goal for r in records)
        assert set(part["metrics"]) == {"success"} <= set(RISING)
        for e in range(8):
            count = sum(r["goal"] == goal and r["episode"] == e for r in records)
            assert success["count"][e] == count
            if count:
                mean, _ = mean_of(records, goal=[goal], episode=[e])
                assert success["mean"][e] == pytest.approx(mean)
            else:
                assert success["mean"][e] is None
        for band, episodes in (("early", (0, 1)), ("late", (6, 7))):
            mean, _ = mean_of(records, goal=[goal], episode=episodes)
            assert success[band]["mean"] == pytest.approx(mean)
            assert success[band]["low"] <= success[band]["mean"] <= success[band]["high"]


def test_houses_are_cut_into_thirds_by_their_area():
    records = random_records()
    found = summarise_groups(records, ())
    assert list(found) == ["by_area"]
    assert list(found["by_area"]) == [
        "30.0 to 35.0 m²",
        "40.0 to 45.0 m²",
        "50.0 to 55.0 m²",
    ]
    for third, part in enumerate(found["by_area"].values()):
        inside = [r for r in records if r["house"] // 2 == third]
        own = curve(tabulate(inside, "success"))
        assert part["episodes"] == len(inside) == 32
        assert part["metrics"]["success"]["mean"] == pytest.approx(own["mean"])
        assert part["metrics"]["success"]["count"] == own["count"]


def test_the_interval_of_a_part_is_that_of_the_part_alone():
    # Drawn among all houses or among those of the part: the same but for the draw itself.
    records = random_records(trials=120, houses=60)
    part = next(iter(summarise_groups(records, ())["by_area"].values()))["metrics"]["success"]
    own = curve(tabulate([r for r in records if r["house"] < 20], "success"))
    np.testing.assert_allclose(part["low"], own["low"], atol=0.06)
    np.testing.assert_allclose(part["high"], own["high"], atol=0.06)


def test_records_that_do_not_tell_parts_apart_have_none():
    records = [{k: v for k, v in r.items() if k != "area"} for r in random_records()]
    assert summarise_groups(records, ()) == {}
    assert summarise_groups(random_records(houses=2), ()) == {}
    without_goal = [{k: v for k, v in r.items() if k != "goal"} for r in records]
    assert summarise_groups(without_goal, CATEGORIES) == {}


def test_houses_of_one_shown_size_are_one_part():
    records = [{**r, "area": 40.0 + 1e-3 * r["house"]} for r in random_records()]
    (part,) = summarise_groups(records, ())["by_area"].values()
    assert part["episodes"] == len(records)


def test_plots_and_page_show_the_parts(tmp_path):
    parts = summarise_groups(random_records(), CATEGORIES)
    summary = {
        **FACTS,
        "metrics": {"success": curve(tabulate(random_records(), "success"))},
        "gain": {},
        **parts,
    }
    plots = [*plot_summary(summary, tmp_path), *plot_groups(summary, tmp_path)]
    assert [p.stem for p in plots] == ["success", "success_by_area", "success_by_goal"]
    text = page(summary, plots, run="r")
    assert text.count("<img") == 3
    assert "By goal category" in text
    assert '<th scope="row">30.0 to 35.0 m²</th>' in text


def test_goals_are_ordered_by_what_they_reach():
    parts = {
        name: {b: {"mean": v, "low": v, "high": v} for b in ("early", "late")}
        for name, v in {"ball": 0.9, "apple": 0.1, "cup": None}.items()
    }
    axes = plot_by_goal(parts, "success").axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cup", "apple", "ball"]
