import pytest

from relic.run.plots import PLOTS, main


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


def test_a_damaged_file_is_told_in_a_sentence(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"env_steps": 1}\n{"entropy": 2}\n')
    assert main([str(tmp_path)]) == 2
    assert "metrics.jsonl: line 2: must hold env_steps" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2
