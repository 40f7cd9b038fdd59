"""What a speed depends on besides the code: the processor, and how busy it is with other things."""

from __future__ import annotations

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numba
import psutil


def cpu_name() -> str:
    """Return the processor's name, or its kind where the system does not say."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cpu_time() -> float:
    """CPU seconds of this process and of its children, such as ViZDoom's engine."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(t.user + t.system for t in times)


@numba.njit(nogil=True)
def _spin(count: int) -> float:
    """Keep a core busy, with nothing shared."""
    total = 0.0
    for i in range(count):
        total += (i * 1.7) % 3.1
    return total


def cores_to_be_had(threads: int) -> float:
    """Return how many cores that many threads get now: what no program can exceed here."""
    _spin(1)
    wall, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_spin, [50_000_000] * threads))
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


class OtherLoad:
    """Measures, as a context, how many cores other programs used in it: `cores` afterwards."""

    cores = 0.0

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def begin(self) -> None:
        """Measure from now on."""
        self._before = self._now()

    def end(self) -> None:
        """Measure up to now. Children that have ended count as others."""
        wall, busy, own = (b - a for a, b in zip(self._before, self._now(), strict=True))
        self.cores = max(0.0, (busy - own) / wall)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds by the wall, of all CPUs at work, and of this process's work."""
        times = psutil.cpu_times()
        unused = ("idle", "iowait", "guest", "guest_nice")  # guests are in user and nice already
        busy = sum(value for name, value in times._asdict().items() if name not in unused)
        return time.perf_counter(), busy, cpu_time()


def load() -> float:
    """Return how many programs wanted a core in the last minute, on average."""
    return round(os.getloadavg()[0], 2)
