"""Memory that a step frees is there for the next one; counted by pages that the system gave."""

import subprocess
import sys

import pytest

COUNT = """
import resource, torch
from relic.run.heap import keep_freed_memory
if KEEP:
    keep_freed_memory()

def step():
    return [torch.ones(2**21) for _ in range(3)]

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(*, keep):
    code = COUNT.replace("KEEP", str(keep))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own ways")
def test_freed_memory_is_taken_again():
    pages = 20 * 3 * 2**23 // 4096
    assert _faults(keep=True) < pages / 10
    if _faults(keep=False) < pages / 2:
        pytest.skip("this C library keeps freed memory anyway")
