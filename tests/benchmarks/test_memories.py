"""The comparison of memories runs, goes on where it was, and writes its page."""

import json
import subprocess
import sys

import pytest

from relic.files import PROJECT


def compare(folder, *arguments):
    command = [sys.executable, str(PROJECT / "benchmarks" / "memories.py"), str(folder)]
    done = subprocess.run(
        [*command, "--table", "smoke", *arguments],
        cwd=PROJECT, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_smoke_table_is_trained_once_and_written_down(tmp_path):
    first = compare(tmp_path, "--tasks", "darkroom", "--memories", "memo", "min_gru")
    assert (first["results"]["cells"], first["results"]["of"]) == (2, 2)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {line["memory"] for line in lines} == {"memo", "min_gru"}
    for line in lines:
        assert line["worth"][0] == pytest.approx(line["kept"] - line["cleared"])
        assert line["bytes_per_row"] > 0
        assert line["steps_per_cpu_s"] > 0
    page = (tmp_path / "memories.md").read_text()
    assert "| Memo |" in page
    assert "| minGRU |" in page
    (tmp_path / "memories.md").unlink()
    compare(tmp_path, "--tasks", "darkroom", "--memories", "memo", "min_gru")
    assert (tmp_path / "memories.md").read_text() == page
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2
