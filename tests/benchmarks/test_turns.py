"""Numbers of ranks, and another checkout, that train in turns."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_ranks_and_another_checkout_take_turns():
    script = [sys.executable, str(ROOT / "benchmarks" / "bench_train.py"), "--quick"]
    cases = ["--ranks", "1", "2", "--against", str(ROOT), "--keys", "ppo.num_minibatches=2"]
    done = subprocess.run([*script, *cases], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    turns = json.loads(done.stdout.splitlines()[-1])["results"]["turns"]
    assert list(turns) == ["against", "ranks=1", "ranks=2"]
    for speeds in turns.values():
        assert speeds[0]["sps"] > 0
        assert speeds[0]["per_cpu_second"] > 0
