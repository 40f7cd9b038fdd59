"""Memory that a step frees is there for the next one; counted by pages that the system gave."""

import subprocess
import sys

import pytest

STEPS, TENSORS, BYTES = 20, 8, 2**23

COUNT = f"""
import resource, torch
from relic.run.heap import keep_freed_memory
keep_freed_memory()

def step():
    return [torch.ones({BYTES} // 4) for _ in range({TENSORS})]

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({STEPS}):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc only")
def test_freed_memory_is_taken_again():
    """Without the call it is four fifths of all pages, in most runs."""
    command = [sys.executable, "-c", COUNT]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 0.1 * STEPS * TENSORS * BYTES / 4096
