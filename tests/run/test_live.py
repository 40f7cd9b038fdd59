"""The page that shows a run while it goes on."""

import re
import xml.etree.ElementTree as ET

import pytest

from relic.run.live import LivePage, page


def updates(count):
    return [
        {
            "env_steps": 10 * (i + 1),
            "sps": 5.0,
            "success_mean": i / count,
            "entropy": 1.0,
            "update": "partial",
        }
        for i in range(count)
    ]


def charts(text):
    found = {}
    for figure in re.findall(r"<figure>.*?</figure>", text, re.DOTALL):
        root = ET.fromstring(figure)
        found["".join(root[0].itertext()).partition(" \N{EM DASH}")[0]] = root
    return found


def test_a_chart_for_what_there_is_and_none_for_the_rest():
    found = charts(page("r", updates(7), 100, 10))
    assert list(found) == ["success", "entropy", "steps per second"]
    (line,) = found["success"].iter("polyline")
    heights = [float(point.partition(",")[2]) for point in line.get("points").split()]
    assert len(heights) == 7
    assert heights == sorted(heights, reverse=True)  # success rises, and so do the lines


def test_one_update_is_a_dot():
    assert len(list(charts(page("r", updates(1), 100, 10))["success"].iter("circle"))) == 1
    assert not list(charts(page("r", updates(99), 1000, 10))["success"].iter("circle"))


@pytest.mark.parametrize("value", [0.0, 1e17, -1e30])
def test_a_large_value_that_does_not_change_is_drawn(value):
    found = charts(page("r", [{**updates(1)[0], "entropy": value}], 100, 10))
    (dot,) = found["entropy"].iter("circle")
    assert 4 < float(dot.get("cy")) < 150


def test_long_runs_are_thinned_and_keep_their_end():
    (line,) = charts(page("r", updates(10_001), 200_000, 10))["success"].iter("polyline")
    points = line.get("points").split()
    assert 250 <= len(points) <= 310
    assert points[-1].startswith("416.0,")


def test_the_page_refreshes_until_the_run_ends(tmp_path):
    file = tmp_path / "run" / "live.html"
    file.parent.mkdir()
    live = LivePage(file, 100)
    for line in updates(3):
        live.add(line)
    text = file.read_text()
    assert '<meta http-equiv="refresh"' in text
    assert "10 of 100 (10 %)" in text  # the next ones came too soon
    live.close()
    text = file.read_text()
    assert '<meta http-equiv="refresh"' not in text
    assert "30 of 100 (30 %)" in text
    assert "<title>run</title>" in text


def test_a_directory_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    live = LivePage(tmp_path / "gone" / "live.html", 100)
    for line in updates(2):
        live.add(line)
    live.close()
    assert "is no longer written" in caplog.text
    assert len(caplog.records) == 1
