"""The parts that are compiled ahead are all that houses need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PLAY = """
import sys
import numpy as np
from numba.core import event
from envs.houses.env import HousesVectorEnv

sensors = ["rgb", "depth", "semantic", "instance", "detections"]
env = HousesVectorEnv(2, sensors=sensors, compass=True, goal_places=True)
compiled = []
class Compiling(event.Listener):
    def on_start(self, event):
        compiled.append(event.data["dispatcher"].py_func.__name__)
    def on_end(self, event):
        pass
listener = Compiling()
event.register("numba:compile", listener)
env.reset()
for action in range(1, 6):
    env.step(np.full(2, action))
for _ in range(150):
    env.step(env.expert_actions())
print(*sorted(set(compiled)))
"""


@pytest.mark.slow
def test_an_episode_compiles_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PLAY],
        cwd=ROOT,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.startswith("Compiling kernels for this machine, once: drawing, walking ...")
    assert done.stderr.count("\n") == 1, done.stderr
    # Only some houses call for it, and it compiles in an instant.
    assert set(done.stdout.split()) <= {"_nearest_blocker"}
