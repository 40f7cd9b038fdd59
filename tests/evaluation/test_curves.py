import numpy as np
import pytest

from relic.evaluation.controls import ContextControl
from relic.evaluation.curves import (
    area,
    curve,
    episodes_to_competence,
    gain,
    measures,
    summarise,
    tabulate,
)


def records_of(values, *, houses=None, place="house", repeats=1, name="success"):
    """One trial per row of `values` (and per repeat); None is an episode that never came."""
    return [
        {"trial": t, "repeat": n, "episode": e, name: value}
        | ({place: houses[t]} if houses else {})
        for n in range(repeats)
        for t, row in enumerate(values)
        for e, value in enumerate(row)
        if value is not None
    ]


def test_curve_averages_the_units_that_reach_an_index():
    table = tabulate(records_of([[0, 1, 1], [1, 1, None], [0, None, None]]), "success")
    found = curve(table)
    assert found["mean"] == pytest.approx([1 / 3, 1.0, 1.0])
    assert found["count"] == [3, 2, 1]
    assert found["low"][1] == found["high"][1] == 1.0
    assert found["low"][2] is found["high"][2] is None
    assert table.common == 1


def test_interval_is_that_of_a_plain_bootstrap():
    generator = np.random.default_rng(3)
    values = generator.random((40, 2))
    found = curve(tabulate(records_of(values.tolist(), name="return"), "return"))
    draws = np.array([values[generator.integers(40, size=40)].mean(0) for _ in range(4000)])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(found["low"], low, atol=0.01)
    np.testing.assert_allclose(found["high"], high, atol=0.01)
    np.testing.assert_allclose(found["mean"], values.mean(0))


def test_repeats_and_trials_of_a_house_do_not_narrow_the_interval():
    values = np.random.default_rng(0).random((12, 1)).tolist()

    def width(**kwargs):
        found = curve(tabulate(records_of(**kwargs, name="return"), "return"))
        return found["high"][0] - found["low"][0]

    once = width(values=values)
    assert width(values=values, repeats=5) == pytest.approx(once)
    twice = [row for row in values for _ in range(2)]
    for place in ("house", "scene"):  # what Habitat calls it
        found = width(values=twice, houses=[i // 2 for i in range(24)], place=place)
        assert found == pytest.approx(once)
    assert width(values=twice) < 0.8 * once


def test_one_house_has_no_interval():
    found = curve(tabulate(records_of([[0, 1], [1, 1]], houses=[5, 5]), "success"))
    assert (found["mean"], found["low"], found["high"]) == ([0.5, 1.0], [None] * 2, [None] * 2)


def test_an_index_that_one_house_alone_reaches_has_no_interval():
    found = curve(tabulate(records_of([[0, 1], [1, None], [1, None]]), "success"))
    assert found["count"] == [3, 1]
    assert found["low"][0] is not None
    assert (found["mean"][1], found["low"][1], found["high"][1]) == (1.0, None, None)


def test_gain_is_paired_and_measured_at_index_ten():
    # Trials differ much, each gains exactly 1 by index 10: paired, there is nothing uncertain.
    rows = [[t] * 10 + [t + 1, t + 50] for t in (0, 10, 20)]
    table = tabulate(records_of(rows, name="return"), "return")
    assert table.late == 10
    assert gain(table) == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_gain_of_short_trials_is_taken_at_the_last_index_all_reach():
    table = tabulate(records_of([[0, 0, 1, 1], [0, 0, 1, None]]), "success")
    assert (table.late, gain(table)["mean"]) == (2, 1.0)
    single = tabulate(records_of([[1], [0]]), "success")
    assert gain(single) == {"mean": None, "low": None, "high": None}


def test_area_is_the_mean_over_common_episodes():
    table = tabulate(records_of([[0, 1, 1], [0, 0, None]]), "success")
    assert area(table)["mean"] == pytest.approx(0.25)
    flat = tabulate(records_of([[2, 2], [2, 2]], name="return"), "return")
    assert area(flat) == {"mean": 2.0, "low": 2.0, "high": 2.0}


@pytest.mark.parametrize(
    ("row", "expected"), [([1, 5, 9, 10, 9], 2), ([3, 3, 3], 0), ([0, 0], None), ([-2, -1], None)]
)
def test_episodes_to_competence(row, expected):
    table = tabulate(records_of([row, row], name="return"), "return")
    assert episodes_to_competence(table) == expected


def test_summary_has_the_control_beside_the_agent():
    kept = records_of([[0] * 5 + [1] * 10, [0] * 12 + [1] * 3])
    cleared = records_of([[0] * 15, [1] * 15])
    summary = summarise(kept, {ContextControl.CLEARED: cleared})
    found = summary["gain"]["success"]
    assert (found["mean"], found["cleared_mean"]) == (0.5, 0.0)
    assert (found["from_episode"], found["to_episode"]) == (0, 10)
    assert summary["metrics"]["success"]["cleared_mean"] == [0.5] * 15
    assert set(summary["metrics"]) == {"success"}
    assert summary == summarise(kept, {ContextControl.CLEARED: cleared})
    assert summarise(kept)["gain"]["success"]["cleared_mean"] is None


def test_length_has_no_competence():
    summary = summarise(records_of([[5, 3], [4, 2]], name="length"))
    assert summary["gain"]["length"]["mean"] == -2.0
    assert summary["episodes_to_competence"] == {}


def test_no_records_are_refused():
    assert measures([]) == []
    with pytest.raises(ValueError, match="records: must hold at least one episode"):
        tabulate([], "success")
