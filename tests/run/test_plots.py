import pytest

from relic.run.plots import PLOTS


def updates(kinds):
    return [
        {"env_steps": 10 * (i + 1), "update": kind, "policy_loss": 0.1 * i, "return_mean": float(i)}
        for i, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize("name", ["losses", "return"])
@pytest.mark.parametrize("kinds", [["full"], ["partial", "partial", "full"]])
def test_each_line_can_be_seen(name, kinds):
    """One of a single point has no length, so it takes a marker."""
    figure = PLOTS[name](updates(kinds))
    assert figure is not None
    lines = figure.axes[0].get_lines()
    assert lines
    for line in lines:
        assert (line.get_marker() in ("", "None")) == (len(line.get_xdata()) > 1)
