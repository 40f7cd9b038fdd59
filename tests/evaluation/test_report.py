import base64
import csv
import re
from html.parser import HTMLParser

from matplotlib.patches import Rectangle

from relic.evaluation.controls import ContextControl
from relic.evaluation.curves import summarise
from relic.evaluation.report.page import page, write_report
from relic.evaluation.report.plots import plot_curve, plot_summary

FACTS = {
    "protocol": "mine & <others>",
    "protocol_hash": "0123456789ab",
    "env": "relic/Darkroom-v0",
    "options": {"split": "test"},
    "checkpoint": "step_1",
    "env_steps": 1,
    "trained_on": False,
    "trials": 3,
    "repeats": 1,
    "episodes": 6,
    "context_limit": "none",
    "trained_steps": None,
    "trained_episodes": None,
}


def small_summary(lengths=(3, 3, 3)):
    kept = [
        {"trial": t, "repeat": 0, "episode": e, "success": e > t, "return": float(e * t)}
        for t, length in enumerate(lengths)
        for e in range(length)
    ]
    cleared = [{**r, "success": False} for r in kept]
    return {**FACTS, **summarise(kept, {ContextControl.CLEARED: cleared})}


class Balance(HTMLParser):
    """Checks that every tag that is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_stands_alone(tmp_path):
    summary = small_summary()
    plots = plot_summary(summary, tmp_path / "plots")
    write_report(summary, plots, tmp_path / "report.html", run="my run")
    text = (tmp_path / "report.html").read_text()
    checker = Balance()
    checker.feed(text)
    assert checker.open == []
    assert checker.seen.count("img") == 2
    assert "mine &amp; &lt;others&gt;" in text
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    kinds = [source.partition(";base64,")[0] for source in sources]
    assert set(kinds) == {"data:image/png", "data:text/csv"}
    assert base64.b64decode(sources[0].partition(",")[2]) == plots[0].read_bytes()
    assert "<title>my run: mine &amp; &lt;others&gt;</title>" in text
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_page_shows_what_the_summary_holds():
    text = page(small_summary(), [], run="my run")
    assert "0 to 2" in text  # the gain's episodes
    assert "<td>66.7 % [" in text  # success at index 2, where two of three trials succeed
    assert "0123456789ab" in text


def test_tables_say_what_their_headers_are_of():
    headers = re.findall(r"<th\b[^>]*>", page(small_summary(), [], run="my run"))
    assert set(headers) == {'<th scope="col">', '<th scope="row">'}


def test_curves_can_be_saved_as_they_are():
    summary = small_summary((3, 2, 1))
    text = page(summary, [], run="my run")
    names = re.findall(r'download="([^"]*)" href="data:text/csv;base64,([^"]*)"', text)
    assert [name for name, _ in names] == ["success.csv", "return.csv"]
    lines = base64.b64decode(names[0][1]).decode().splitlines()
    curve = summary["metrics"]["success"]
    for i, row in enumerate(csv.DictReader(lines)):
        assert (int(row["episodes"]), int(row["trials_with_repeats"])) == (i, curve["count"][i])
        for part in ("mean", "low", "high", "cleared_mean"):
            assert (float(row[part]) if row[part] else None) == curve[part][i]


def test_plot_says_how_many_trials_reach_an_index():
    even, uneven = small_summary(), small_summary((3, 2, 1))
    assert len(plot_curve(even["metrics"]["success"], "success").axes) == 1
    panels = plot_curve(uneven["metrics"]["success"], "success").axes
    heights = [bar.get_height() for bar in panels[1].patches if isinstance(bar, Rectangle)]
    assert heights == [3, 2, 1]
