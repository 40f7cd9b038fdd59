"""The search of docs/sweeps.md runs, with smaller runs and fewer of them."""

import os
import re
import subprocess
import sys

import pytest

from relic.run.metrics import read_metrics

from .conftest import ROOT, TINY


@pytest.mark.slow
def test_the_search_of_the_docs_runs(tmp_path):
    page = (ROOT / "docs" / "sweeps.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    fixed = {**dict(item.split("=", 1) for item in TINY), "total_steps": "512"}
    script, replaced = re.subn(r"FIXED = .*\n", f"FIXED = {fixed!r}\n", script)
    assert replaced == 1
    assert "n_trials=20" in script
    (tmp_path / "search.py").write_text(script.replace("n_trials=20", "n_trials=2"))
    done = subprocess.run(
        [sys.executable, "search.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'num_sinks'" in done.stdout
    for number in (0, 1):
        last = read_metrics(tmp_path / "runs" / "search" / str(number) / "metrics.jsonl")[-1]
        assert last["env_steps"] == 512
